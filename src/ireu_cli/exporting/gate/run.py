"""Write a gate: its file, its card and its record. It changes no encoder."""

from pathlib import Path

from ireu_cli.coverage import gated_only, recorded, sentences
from ireu_cli.encoders.gate.network import FILE, gate_bytes
from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.exporting.gate.card import GateTold, write_gate_card
from ireu_cli.exporting.gate.check import compared
from ireu_cli.exporting.gate.wanted import RATE
from ireu_cli.exporting.opened import Original
from ireu_cli.exporting.told import sealed
from ireu_cli.manifest import Manifest
from ireu_cli.session import Session
from ireu_cli.store.files import write_bytes
from ireu_cli.values import Json, WeightDelta
from ireu_cli.verifying.reporting.make_record import make_record
from ireu_cli.verifying.verdict import Verdict, with_findings

_LIMIT = (
    "A gate changes no encoder. It protects only as far as the service asks it about every face in every picture that "
    "comes in, and refuses what it finds."
)


def fill_gate(
    session: Session,
    draft: Manifest,
    parent: Manifest,
    verdict: Verdict | None,
    original: Original,
    delta: WeightDelta,
    folder: Path,
) -> Manifest:
    """Write a gate into an empty folder and compare it with the edited network, if the photos are available.

    Args:
        session: the run.
        draft: the record that is completed.
        parent: the record of the delta.
        verdict: the report of the delta, where there is one.
        original: the encoder.
        delta: one that `refuse_without_detectors` lets pass.
        folder: where to write.

    Raises:
        ModelError: the gate and the edited network differ about a photo.
    """
    gates = Gates.from_tensors(delta.tensors)
    rate = min(1.0, float(parent.metrics[RATE]) * len(gates.weights))
    with session.timed("write"):
        content = gate_bytes(gates, original.encoder.fingerprint, rate)
        write_bytes(folder / FILE, content)
    found = compared(session, parent, original.encoder, delta, content)
    covered = gated_only()
    for sentence in sentences(covered):
        session.talk.note(sentence)
    metrics: dict[str, Json] = {
        "dtype": "float32",
        "verified_again": None,
        "verification": None if verdict is None else verdict.recorded(),
        "gate": {"false_alarm_rate": rate, "compared": found},
        "coverage": recorded(covered),
        "record": _record(session, parent, verdict, original),
    }
    words = None if verdict is None else verdict.words
    write_gate_card(folder, GateTold(original.encoder.fingerprint, gates.weights.shape[1], rate, words, found, covered))
    finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
    return sealed(session, folder, finished, {})


def _record(session: Session, parent: Manifest, verdict: Verdict | None, original: Original) -> Json:
    """The erasure record: nothing is edited, and no system is covered by what is written alone."""
    plain = make_record(session, parent, WeightDelta({}), original.encoder, (), None)
    alone = {"systems_covered": (), "systems_missed": (), "limits": (_LIMIT, *plain.limits)}
    return with_findings(plain, verdict).model_copy(update=alone).model_dump(mode="json")
