"""What an export says about itself: the systems that it covers, and its model card."""

from collections.abc import Mapping
from pathlib import Path

from ireu_cli.coverage import Coverage, coverage_in, groups_for, recorded, sentences
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.hub import address_of
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.exporting.layouts import layout_for
from ireu_cli.exporting.model_card import Told, write_card
from ireu_cli.exporting.network import whole_layout
from ireu_cli.exporting.opened import Original
from ireu_cli.manifest import Manifest
from ireu_cli.session import Session
from ireu_cli.store.files import files_below
from ireu_cli.store.manifests import EXPORT_MANIFEST_NAME
from ireu_cli.values import Json, WeightDelta
from ireu_cli.verifying.reporting.make_record import make_record
from ireu_cli.verifying.verdict import Verdict, with_findings


def reached_by(session: Session, original: ImageEncoder, delta: WeightDelta) -> tuple[list[Coverage], dict[str, Json]]:
    """The systems that the edit covers, and the manifest's entry about them; tells the user as well."""
    reach = original.reached_by(delta)
    covered = coverage_in(groups_for(session.config.encoder, original), reach)
    for sentence in (*reach.parts(session.config.encoder.tap), *sentences(covered)):
        session.talk.note(sentence)
    return covered, {"taps_reached": reach.taps, "taps_missed": reach.missed, "coverage": recorded(covered)}


def record_in(
    session: Session, parent: Manifest, delta: WeightDelta, encoder: ImageEncoder, verdict: Verdict | None
) -> Json:
    """The erasure record of an export; what was found by drawing and attacking stands as it does in the report."""
    return with_findings(make_record(session, parent, delta, encoder, (), None), verdict).model_dump(mode="json")


def sealed(session: Session, folder: Path, finished: Manifest, known: Mapping[Path, str]) -> Manifest:
    """Seal everything that lies in the folder of an export; `known` are digests of files that were digested before."""
    return session.seal(folder / EXPORT_MANIFEST_NAME, finished, files_below(folder), known)


def write_told(
    session: Session,
    original: Original,
    covered: list[Coverage],
    metrics: dict[str, Json],
    verdict: Verdict | None,
    folder: Path,
) -> None:
    """Write the model card of an export.

    Args:
        session: the run.
        original: the encoder.
        covered: the systems that read it, and how far the edit covers them.
        metrics: what the manifest says.
        verdict: the report of the delta, where there is one.
        folder: of the export.
    """
    params, wanted = session.config.encoder, session.config.export.format
    layout = (
        whole_layout(original.family, session.config)
        if original.source is None
        else layout_for(wanted, original.source)
    )
    place = Path(params.source)
    is_local = place.exists() or find_bundle(params.source) is not None
    address = None if is_local else address_of(params.source, params.revision)
    told = Told(
        library=original.family.library if layout is None else layout.library,
        hub_id=None if address is None else address.repository,
        revision=params.revision if address is None else address.revision,
        verification=None if verdict is None else verdict.words,
        again=None if metrics["verified_again"] is None else str(metrics["verified_again"]["outcome"]),
        dtype=str(metrics["dtype"]),
        covered=tuple(covered),
    )
    if original.source is not None and not is_local:
        place = original.source.source
    # The folder around a lone file is somebody's: what lies there need not be of the file.
    write_card(folder, place if place.is_dir() else None, told)
