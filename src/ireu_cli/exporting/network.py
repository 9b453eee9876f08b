"""An encoder whose files are written whole, such as a face-embedding network: the file itself, or its pack."""

import hashlib
from pathlib import Path

from ireu_cli.encoders.face_networks import FACE_NETWORKS
from ireu_cli.encoders.family import Family, ImageEncoder
from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.errors import ConfigError
from ireu_cli.exporting.pack import pack_of, write_pack
from ireu_cli.exporting.transformer import refuse_unlike
from ireu_cli.params import ExportParams
from ireu_cli.session import Session
from ireu_cli.store.files import file_sha256, write_bytes
from ireu_cli.values import WeightDelta

_PACK = "insightface-pack"


def check_whole(family: Family, original: ImageEncoder, params: ExportParams) -> None:
    """Refuse a layout or a dtype that is not for this family of encoders.

    Raises:
        ConfigError: it is not.
    """
    is_whole = family.checkpoint is None
    wrong = params.format not in {"auto", *family.layouts} if is_whole else params.format in FACE_NETWORKS.layouts
    if wrong:
        own = " or ".join(family.layouts) if is_whole else f"a layout of {family.library}"
        remedy = f"Use --format {own}, or leave it out" if own else "Leave out the format"
        raise ConfigError(f"This encoder cannot be exported as {params.format}", remedy)
    if is_whole and params.dtype not in {"auto", "float32"}:
        raise ConfigError(
            f"{original.noun[0].upper()}{original.noun[1:]} is exported in the precision that it was saved in, not in "
            f"{params.dtype}",
            "Leave out the dtype",
        )


def write_whole(
    session: Session, family: Family, original: ImageEncoder, delta: WeightDelta, folder: Path
) -> tuple[Path, str]:
    """Write an encoder by its own files and read them back.

    Returns:
        What is to be named to load it, and its fingerprint.
    """
    config = session.config
    edited = original.edited(delta)
    files = edited.whole_files()
    wanted, source = config.export.format, Path(config.encoder.source)
    network = family.place(config.encoder.source)
    in_a_pack = _PACK in family.layouts and find_bundle(config.encoder.source) is None and is_pack(source)
    if network is not None and (wanted == _PACK or (wanted == "auto" and in_a_pack)):
        left_out = write_pack(pack_of(source, network), network, edited, folder)
        for name in left_out:
            session.talk.note(f"left out of the pack: {name}, a recogniser that insightface would fall back to")
        place, written = folder, dict.fromkeys([recogniser_in(folder)], *files.values())
    else:
        place, written = folder / next(iter(files)), {folder / name: data for name, data in files.items()}
        for path, data in written.items():
            write_bytes(path, data)
    # These very bytes were opened and run; a pack is looked up by insightface's rules.
    refuse_unlike(all(file_sha256(path) == hashlib.sha256(data).hexdigest() for path, data in written.items()))
    return place, edited.fingerprint
