"""An encoder whose files are written whole, such as a face-embedding network: the file itself, or its pack."""

import hashlib
from pathlib import Path

from ireu_cli.encoders.family import Family
from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.errors import ConfigError
from ireu_cli.exporting.facefusion import checksummed, refuse_unfit
from ireu_cli.exporting.opened import Original
from ireu_cli.exporting.pack import pack_of, write_pack
from ireu_cli.exporting.transformer import refuse_unlike
from ireu_cli.layouts.layout import NETWORK, Layout
from ireu_cli.layouts.table import AUTO, layout_named, layouts_of, plain_layout
from ireu_cli.params import Config, ExportParams
from ireu_cli.session import Session
from ireu_cli.store.files import file_sha256, write_bytes
from ireu_cli.values import WeightDelta


def check_whole(original: Original, params: ExportParams) -> None:
    """Refuse a layout or a dtype that is not for this family of encoders.

    Raises:
        ConfigError: it is not.
        ModelError: it is, and what loads that layout cannot use this encoder.
    """
    family, is_whole = original.family, original.source is None
    networks = [layout.name for layout in layouts_of(NETWORK)]
    own = [] if family.held_as is None else [layout.name for layout in layouts_of(family.held_as)]
    if params.format not in {AUTO, *own} if is_whole else params.format in networks:
        allowed = " or ".join(own) if is_whole else f"a layout of {family.library}"
        remedy = f"Use --format {allowed}, or leave it out" if allowed else "Leave out the format"
        raise ConfigError(f"This encoder cannot be exported as {params.format}", remedy)
    if is_whole and params.dtype not in {"auto", "float32"}:
        noun = original.encoder.noun
        raise ConfigError(
            f"{noun[0].upper()}{noun[1:]} is exported in the precision that it was saved in, not in {params.dtype}",
            "Leave out the dtype",
        )
    if is_whole and params.format != AUTO and layout_named(params.format).has_checksum:
        for name, content in original.encoder.whole_files().items():
            refuse_unfit(content, name)


def whole_layout(family: Family, config: Config) -> Layout | None:
    """The layout to write an encoder in that is written whole: the wanted one, or its own; None where it has none."""
    if family.held_as is None:
        return None
    if config.export.format != AUTO:
        return layout_named(config.export.format)
    if family.held_as != NETWORK:
        return layouts_of(family.held_as)[0]
    source = config.encoder.source
    return plain_layout(family.held_as, folder=find_bundle(source) is None and is_pack(Path(source)))


def write_whole(session: Session, original: Original, delta: WeightDelta, folder: Path) -> tuple[Path, str]:
    """Write an encoder by its own files and read them back.

    Returns:
        What is to be named to load it, and its fingerprint.
    """
    config = session.config
    family, edited = original.family, original.encoder.edited(delta)
    network, layout = family.place(config.encoder.source), whole_layout(family, config)
    files = edited.files_in(layout)
    if network is not None and layout is not None and layout.in_folder and family.held_as == NETWORK:
        left_out = write_pack(pack_of(Path(config.encoder.source), network), network, edited, folder)
        for name in left_out:
            session.talk.note(f"left out of the pack: {name}, a recogniser that insightface would fall back to")
        (content,) = files.values()
        place, written = folder, {recogniser_in(folder): content}
    else:
        if layout is not None and layout.has_checksum:
            files = checksummed(layout, next(iter(files.values())))
        place, written = folder / next(iter(files)), {folder / name: data for name, data in files.items()}
        for path, data in written.items():
            write_bytes(path, data)
    # These very bytes were opened and run; a pack is looked up by insightface's rules.
    refuse_unlike(all(file_sha256(path) == hashlib.sha256(data).hexdigest() for path, data in written.items()))
    return place, edited.fingerprint
