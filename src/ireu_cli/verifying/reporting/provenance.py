"""What a report is about, and how to obtain it again."""

from typing import Any

from ireu_cli import __version__
from ireu_cli.drawing.show import Show
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.reach import Reach
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.report import (
    Provenance,
    Subject,
)
from ireu_cli.session import Session
from ireu_cli.values import Pair


def subject_of(session: Session, encoders: Pair[ImageEncoder], reach: Reach) -> Subject:
    """Which encoder, edit and tap a report is about."""
    return Subject(
        original_encoder=encoders.original.fingerprint,
        edited_encoder=encoders.edited.fingerprint,
        delta_manifest=delta_record(session).digest,
        tap=session.config.encoder.tap,
        served_dtype=session.config.encoder.dtype,
        taps_reached=reach.taps,
        taps_missed=reach.missed,
    )


def provenance_of(session: Session, draft: Manifest, show: Show | None) -> Provenance:
    """Digests of everything that took part, and the command that measures it again."""
    plan: dict[str, Any] = dict(draft.parameters)
    digests = {"identity of the run": draft.identity, "manifest of the delta": delta_record(session).digest}
    if show is not None:
        digests |= {f"generator {one.name}": one.fingerprint for one in show.generators}
        digests |= {f"recogniser {net.name}": net.fingerprint for net in show.panel.recognisers}
        digests["panel"] = show.panel.fingerprint
    return Provenance(
        tool_version=__version__,
        plan_digest=digest_of(plan),
        plan=plan,
        seed=session.config.seed,
        digests=digests,
        environment=dict(draft.environment),
        command="ireu verify --delta DELTA --force, in the folder where the run began, or with --run-dir; leave out "
        "--with-pictures for a report without pictures of people",
    )


def delta_record(session: Session) -> Manifest:
    """The manifest of the delta."""
    if session.parent is None:
        raise RuntimeError("a report has a delta")
    return session.parent
