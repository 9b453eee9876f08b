"""The erasure record: what the tool knows about an erasure, and what the operator states."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ireu_cli.params import RecordParams
from ireu_cli.report import ErasureRecord
from ireu_cli.values import WEIGHTS_AT_ONCE, WeightDelta

LIMITS = (
    "Only the edited encoder is covered. Copies of the original encoder elsewhere still carry the person, and so do "
    "features that were computed with it before.",
    "Generators are not covered if they read another tap than the verified one, or another encoder besides this one.",
    "Text prompts alone are not covered: a generator that knows the person by name can draw them without any photo.",
    "The record says nothing about the training data of encoder and generators, or about whether weights, including "
    "the edited ones, are personal data.",
    "Figures hold for the photos, people, generators, settings and recognisers of this run. Intervals say how far "
    "results may differ for other people like these.",
    "Attacks that were not tried may bring the person back, and so may further training of the encoder.",
    "Whoever holds the files of the edited encoder may take the edit out of them, and may find the person with them.",
    "The original and the edited weights together, or the delta, show what was removed.",
)
"""The limits that every erasure record states."""


def erasure_record(
    params: RecordParams,
    *,
    revision: str | None,
    people: int,
    photos_supplied: int,
    photos_used: int,
    delta: WeightDelta,
    systems_covered: Sequence[str],
    systems_missed: Sequence[str],
    attacks_tried: Sequence[str],
    limits: Sequence[str] = LIMITS,
) -> ErasureRecord:
    """Put the operator's statements together with what the tool did; an empty field stays empty.

    Args:
        params: the operator's statements.
        revision: revision of the encoder's hub id, if it came from the hub.
        people: targets.
        photos_supplied: photos of the targets in their folder.
        photos_used: those of them that unlearning used.
        delta: finite change of the weights. Tensors with any change count as edited; the norm is the Frobenius norm
            over all of them.
        systems_covered: generators whose encoder and taps the edit reaches.
        systems_missed: generators that it does not reach.
        attacks_tried: names of attacks.
        limits: statements of what the record does not claim.
    """
    changes = delta.changes
    return ErasureRecord(
        **params.model_dump(),
        encoder_revision=revision or None,
        people=people,
        photos_supplied=photos_supplied,
        photos_used=photos_used,
        edited_tensors=tuple(sorted(name for name, tensor in changes.items() if bool(tensor.any()))),
        # The last bits depend on the tensors' place in memory, and the report has to repeat.
        edit_norm=float(f"{_norm(changes.values()):.6g}"),
        systems_covered=tuple(systems_covered),
        systems_missed=tuple(systems_missed),
        attacks_tried=tuple(attacks_tried),
        limits=tuple(limits),
    )


def _norm(tensors: Iterable[Tensor]) -> float:
    """The Frobenius norm over all of them, a piece at a time in double precision."""
    pieces = (piece for tensor in tensors for piece in torch.split(tensor.flatten(), WEIGHTS_AT_ONCE))
    return math.sqrt(sum(float(piece.double().square().sum()) for piece in pieces))
