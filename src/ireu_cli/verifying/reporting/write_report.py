"""Write a report to disk: `report.json`, the page, and pictures if you asked for them."""

from collections.abc import Sequence
from pathlib import Path

from ireu_cli.drawing.judged_pictures import Drawn
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest
from ireu_cli.report import Report
from ireu_cli.report_page import audit_page, page, person_page
from ireu_cli.session import Session
from ireu_cli.store.files import write_bytes
from ireu_cli.store.manifests import GRIDS, IMAGES, REPORT_MANIFEST_NAME, REPORT_NAME
from ireu_cli.verifying.pictures.grids import Grid, make_grids, write_images


def write_report(
    session: Session, draft: Manifest, report: Report, drawn: Sequence[Drawn], out: Path, reader: PhotoReader
) -> Manifest:
    """Write the report's folder; ends the step.

    Args:
        session: the run.
        draft: the started manifest.
        report: the report to write.
        drawn: the pictures for grids, or to keep.
        out: the folder.
        reader: reads the photos for grids.
    """
    params = session.config.verify
    grids = [grid for plan in drawn for grid in make_grids(plan, reader)] if params.pictures else []

    def fill(folder: Path) -> Manifest:
        files = []
        for name, text in _texts(report, grids).items():
            files.append(folder / name)
            write_bytes(files[-1], text.encode())
        for grid in grids:
            files.append(folder / GRIDS / grid.name)
            write_bytes(files[-1], grid.png)
        if params.keep_images and drawn:
            files += write_images(folder / IMAGES, drawn)
        metrics = {"outcome": report.outcome, "standing": report.standing, "reason": report.reason}
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        return session.seal(folder / REPORT_MANIFEST_NAME, finished, files)

    return session.put_folder(out, fill, shared=False)


def _texts(report: Report, grids: Sequence[Grid]) -> dict[str, str]:
    """The report for machines, and its pages: the whole, one for the person who asked, and one for an auditor."""
    return {
        REPORT_NAME: report.model_dump_json(indent=2) + "\n",
        "report.html": page(report, [(grid.generator, grid.role, grid.png) for grid in grids]),
        "person.html": person_page(report),
        "audit.html": audit_page(report),
    }
