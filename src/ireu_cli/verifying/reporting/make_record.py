"""The erasure record of a run."""

from collections.abc import Sequence

from ireu_cli.coverage import coverage_in, groups_for
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.manifest import Manifest
from ireu_cli.report import NO_ATTACK, ErasureRecord, Figure
from ireu_cli.session import Session
from ireu_cli.values import WeightDelta
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.reporting.erasure_record import LIMITS, erasure_record


def generators_reached(session: Session, taps: Sequence[str]) -> list[str]:
    """Names of the encoder's own generators that read a tap that the edit reaches."""
    bundle = find_bundle(session.config.encoder.source)
    return [] if bundle is None else [entry.name for entry in bundle.generators if entry.tap in taps]


def make_record(
    session: Session,
    parent: Manifest,
    delta: WeightDelta,
    original: ImageEncoder,
    figures: Sequence[Figure],
    gathered: Gathered | None,
) -> ErasureRecord:
    """The erasure record of this run.

    Args:
        session: the run; its section `record` holds what the operator states.
        parent: the record of unlearning.
        delta: the change of the weights.
        original: the original encoder.
        figures: the measured figures; they name the attacks that were tried.
        gathered: everybody's photos; None if they are not available.
    """
    taps = original.reached_by(delta).taps
    bundle = find_bundle(session.config.encoder.source)
    systems = [] if bundle is None else [(f"generator {e.name} ({e.tap})", e.tap) for e in bundle.generators]
    known = coverage_in(groups_for(session.config.encoder, original), taps)
    tried = dict.fromkeys(f.attack for f in figures if f.attack not in {None, NO_ATTACK})
    used = sum(len(person.photos) for person in parent.targets)
    return erasure_record(
        session.config.record,
        revision=session.config.encoder.revision,
        people=len(parent.targets),
        photos_supplied=used if gathered is None else len(gathered.targets.flat) + gathered.copies,
        photos_used=used,
        delta=delta,
        systems_covered=[
            *(name for name, tap in systems if tap in taps),
            *(one.sentence() for one in known if one.status == "covered"),
        ],
        systems_missed=[
            *(name for name, tap in systems if tap not in taps),
            *(one.sentence() for one in known if one.status != "covered"),
        ],
        attacks_tried=[name for name in tried if name],
        limits=LIMITS,
    )
