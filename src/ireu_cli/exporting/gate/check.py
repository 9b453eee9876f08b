"""Ask a gate that was written about photos, and compare its answers with what the edited network changes."""

import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.onnx_session import open_session
from ireu_cli.encoders.gate.network import INPUT, OUTPUT
from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.encodings.lens import Lens, photo_reader
from ireu_cli.errors import ModelError
from ireu_cli.exporting.served import at_hand
from ireu_cli.manifest import Manifest
from ireu_cli.session import Session
from ireu_cli.support.made import batched
from ireu_cli.values import Json, WeightDelta
from ireu_cli.verifying.feature_evidence import load_people

_PIECE = 1024
"""The number of photos whose embeddings are in memory at once."""
_ROUNDING = 1e-3
"""How near to a threshold, in units of `rise`, the last bits of an embedding decide."""


def compared(
    session: Session, parent: Manifest, original: ImageEncoder, delta: WeightDelta, content: bytes
) -> dict[str, Json] | None:
    """How many photos the gate finds, and for how many it decides as the edited network does.

    Args:
        session: the run.
        parent: the record of the delta.
        original: the encoder.
        delta: the delta that the gate was made of.
        content: the gate's file.

    Returns:
        Counts of photos, of targets and of retained people; None if the photos are not available.

    Raises:
        ModelError: the two differ about a photo that is not at a threshold.
    """
    if not at_hand(session):
        session.talk.note(
            "the photos are not available, so the gate is not tried; give --targets and --retain to compare it with "
            "the edited network"
        )
        return None
    people, reader = load_people(session, parent), photo_reader(session.config)
    before, after = (Lens(session, encoder, reader) for encoder in (original, original.edited(delta)))
    gate, gates = open_session(content, "cpu"), Gates.from_tensors(delta.tensors)
    found: dict[str, Json] = {}
    for group, flag, some in (
        ("targets", "--targets", (people.targets,)),
        ("retained", "--retain", (people.used, people.held)),
    ):
        asked = removed = apart = 0
        for part in some:
            usable = before.encode(part, flag, f"{group}, original")
            usable = after.encode(usable, flag, f"{group}, edited")
            for photos in batched(usable.flat, _PIECE):
                own, new = before.features(photos), after.features(photos)
                says = torch.from_numpy(gate.run([OUTPUT], {INPUT: own.numpy()})[0])
                differs = says != (own != new).any(dim=1)
                _refuse_apart(own[differs], gates)
                asked, removed, apart = asked + len(own), removed + int(says.sum()), apart + int(differs.sum())
        found[group] = {"photos": asked, "removed": removed, "unlike_network": apart}
    targets, retained = found["targets"], found["retained"]
    session.talk.note(
        f"the gate finds {targets['removed']} of {targets['photos']} photos of targets, and "
        f"{retained['removed']} of {retained['photos']} of retained people"
    )
    return found


def _refuse_apart(vectors: Tensor, gates: Gates) -> None:
    """Refuse answers that differ from the edited network's where no rounding explains it.

    Raises:
        ModelError: there are such answers.
    """
    if not len(vectors):
        return
    unit = torch.nn.functional.normalize(vectors.double(), dim=1)
    above = (unit @ gates.weights.double().T - gates.thresholds.double()) / gates.rise
    if not len(gates.weights) or bool((above.abs().amin(dim=1) > _ROUNDING).any()):
        raise ModelError(
            "The gate, read back, differs from the edited network about a photo", "Report this as a bug of ireu"
        )
