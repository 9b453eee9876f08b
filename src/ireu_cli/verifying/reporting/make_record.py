"""The erasure record of a run."""

from collections.abc import Sequence

from ireu_cli.coverage import coverage_in, groups_for
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import GeneratorEntry, find_bundle
from ireu_cli.encoders.reach import Reach
from ireu_cli.manifest import Manifest
from ireu_cli.report import NO_ATTACK, ErasureRecord, Figure
from ireu_cli.session import Session
from ireu_cli.values import WeightDelta
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.reporting.erasure_record import LIMITS, erasure_record


def generators_reached(session: Session, reach: Reach) -> list[str]:
    """Names of the encoder's own generators that read a tap that the edit reaches."""
    bundle = find_bundle(session.config.encoder.source)
    return [] if bundle is None else [entry.name for entry in bundle.generators if reach.includes(entry.tap)]


def unreached(session: Session, reach: Reach) -> str:
    """A sentence if the edit does not reach the configured tap; nothing if it does."""
    tap = session.config.encoder.tap
    if reach.includes(tap):
        return ""
    return f" The delta does not reach {tap}: {'. '.join(reach.parts(tap)) or reach.sentence()}."


def _told(entry: GeneratorEntry, reach: Reach) -> str:
    """A generator with the tap that it reads, and with the parts that change where only some do."""
    parts = () if reach.includes(entry.tap) else reach.parts(entry.tap)
    return ": ".join((f"generator {entry.name} ({entry.tap})", *parts))


def _removed(parent: Manifest) -> tuple[int, int]:
    """How many people a delta removes, and from how many photos.

    The targets of a delta made of requests are more: locating may have used others, of whom none need be removed.
    """
    requests: dict[str, list[str]] | None = parent.metrics.get("requests")
    if requests is None:
        return len(parent.targets), sum(len(person.photos) for person in parent.targets)
    asked = {digest for photos in requests.values() for digest in photos}
    return sum(not asked.isdisjoint(person.photos) for person in parent.targets), len(asked)


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
    reach = original.reached_by(delta)
    bundle = find_bundle(session.config.encoder.source)
    own = () if bundle is None else bundle.generators
    known = coverage_in(groups_for(session.config.encoder, original), reach)
    tried = dict.fromkeys(f.attack for f in figures if f.attack not in {None, NO_ATTACK})
    people, used = _removed(parent)
    return erasure_record(
        session.config.record,
        revision=session.config.encoder.revision,
        people=people,
        photos_supplied=used if gathered is None else len(gathered.targets.flat) + gathered.copies,
        photos_used=used,
        delta=delta,
        systems_covered=[
            *(_told(entry, reach) for entry in own if reach.includes(entry.tap)),
            *(one.sentence() for one in known if one.status == "covered"),
        ],
        systems_missed=[
            *(_told(entry, reach) for entry in own if not reach.includes(entry.tap)),
            *(one.sentence() for one in known if one.status != "covered"),
        ],
        attacks_tried=[name for name in tried if name],
        limits=LIMITS,
    )
