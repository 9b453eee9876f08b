"""The erasure record: what the tool knows of an erasure, beside what the operator states."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from ireu_cli.params import RecordParams
from ireu_cli.report import ErasureRecord
from ireu_cli.values import WEIGHTS_AT_ONCE, WeightDelta

LIMITS = (
    "Only the edited encoder is covered: copies of the original encoder elsewhere still carry the person, and so do "
    "features of the person that were computed with it before.",
    "Generators that read another tap than the one verified, or another encoder beside this one, are not covered.",
    "Text prompts alone are not covered: a generator that knows the person by name draws them without any photo.",
    "Nothing is said about the data that encoder or generators were trained on, nor about whether weights, the edited "
    "ones included, are personal data.",
    "Figures hold for the photos, people, generators, settings and recognisers of this run; intervals say how far "
    "other people like these may differ.",
    "Attacks that were not tried may bring the person back; further training of the encoder may too.",
    "The original and the edited weights together, or the delta, show what was removed.",
)
"""What every erasure record states as its limits."""


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
    """Put what the operator states together with what the tool did; nothing is invented for an empty field.

    Args:
        params: the operator's statements.
        revision: of the encoder's hub id, where it came from there.
        people: targets.
        photos_supplied: photos of the targets in their folder.
        photos_used: of them, those that unlearning used.
        delta: finite change of the weights. Tensors with any change count as edited; the norm is Frobenius', over all.
        systems_covered: generators whose encoder and taps the edit reaches.
        systems_missed: generators that it does not reach.
        attacks_tried: names of attacks.
        limits: what the record does not claim.
    """
    changes = delta.changes
    return ErasureRecord(
        **params.model_dump(),
        encoder_revision=revision or None,
        people=people,
        photos_supplied=photos_supplied,
        photos_used=photos_used,
        edited_tensors=tuple(sorted(name for name, tensor in changes.items() if bool(tensor.any()))),
        # Its last bits depend on where the tensors lie in memory, and the report has to repeat.
        edit_norm=float(f"{_norm(changes.values()):.6g}"),
        systems_covered=tuple(systems_covered),
        systems_missed=tuple(systems_missed),
        attacks_tried=tuple(attacks_tried),
        limits=tuple(limits),
    )


def _norm(tensors: Iterable[Tensor]) -> float:
    """Frobenius' norm over all of them, a piece at a time in double precision."""
    pieces = (piece for tensor in tensors for piece in torch.split(tensor.flatten(), WEIGHTS_AT_ONCE))
    return math.sqrt(sum(float(piece.double().square().sum()) for piece in pieces))
