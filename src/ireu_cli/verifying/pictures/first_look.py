"""All pictures of a report, and before them a first look: some of the targets, to be shown as soon as possible."""

from collections.abc import Sequence

from ireu_cli.drawing.before_and_after import Planned, draw_planned, plan_all
from ireu_cli.drawing.jobs import run_jobs
from ireu_cli.drawing.judged_pictures import Drawn
from ireu_cli.drawing.seen_photos import Photos
from ireu_cli.drawing.show import Show
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence
from ireu_cli.report import Role
from ireu_cli.session import Session
from ireu_cli.store.files import write_bytes
from ireu_cli.verifying.feature_evidence import Gathered
from ireu_cli.verifying.pictures.grids import columns, make_grid

_ROLES: tuple[Role, ...] = ("target-unseen", "target-seen")
"""Photos that unlearning did not see say more."""


def draw_all(
    session: Session, show: Show, delta: Manifest, gathered: Gathered, photos: Photos
) -> tuple[tuple[Drawn, ...], tuple[GeneratorEvidence, ...]]:
    """Draw with every generator before and after the edit, a first look before all others, and judge the pictures.

    Args:
        session: the run.
        show: generators and panel.
        delta: the record of unlearning, which says which photos were used.
        gathered: encoders and everybody's photos.
        photos: the same photos as the panel sees them.

    Raises:
        PhotoError: a photo changed since it was encoded.
    """
    plans = plan_all(session, show, delta, gathered.encoders, photos)
    _show_first(session, plans, gathered.encodings.reader)
    return draw_planned(session, show, plans, photos)


def _show_first(session: Session, plans: Sequence[Planned], reader: PhotoReader) -> None:
    """Draw a grid of targets with the first generator into the run folder, and say where it is.

    It shows photos, so it stays in the run folder. Its pictures are those of the report, so nothing is drawn twice.
    """
    if not plans:
        return
    plan = plans[0]
    role = next((role for role in _ROLES if columns(plan.drawn.shots, role)), None)
    if role is None:
        return
    shown = columns(plan.drawn.shots, role)
    text = f"first pictures: {len(shown)} before and {len(shown)} after with generator {plan.drawn.generator}"
    run_jobs(session, plan.jobs(shown), text, "drawing")
    grid = make_grid(plan.drawn, role, reader)
    file = session.run.looks / grid.name
    write_bytes(file, grid.png, durable=False)
    session.talk.note(f"Look at {file} meanwhile: photos, pictures before the edit, pictures after it")
