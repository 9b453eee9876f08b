"""`ireu check`: compare a file or folder with its record, offline and without the run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ireu_cli.checking.against_record import Recorded, compare
from ireu_cli.checking.known_exports import Export, Identity, read_export
from ireu_cli.checking.signature import is_signed
from ireu_cli.checking.traps import Place, traps_at
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import Manifest
from ireu_cli.store.beside import NOUNS, record_of
from ireu_cli.store.files import native_name
from ireu_cli.support.bounded import printable
from ireu_cli.values import Json

if TYPE_CHECKING:
    from ireu_cli.encoders.card import Card

Verdict = Literal["as recorded", "not as recorded", "unknown"]


@dataclass(frozen=True)
class Signed:
    """A signature to verify, and the key that it should be by."""

    signature: Path
    public_key: Path


@dataclass(frozen=True)
class Checked:
    """The verdict, and everything that was found, as plain values."""

    verdict: Verdict
    told: dict[str, Json]


@dataclass(frozen=True)
class _Own:
    """The record of what was named: its path, what it says, and its files."""

    path: Path
    manifest: Manifest
    files: Recorded


def check(path: Path, records: Sequence[Path] = (), signed: Signed | None = None) -> Checked:
    """Check an artifact of ireu, or an encoder.

    Args:
        path: the file or folder.
        records: exports that an encoder may be; the first one says which it should be. Without any, that is the export
            whose record lies in the folder or beside the file.
        signed: a signature over the path.

    Raises:
        ArtifactError: nothing is there, it is neither a file nor a folder, or a file of `records` is no record of an
            export.
        UserError: a signature cannot be looked at.
    """
    if not path.is_file() and not path.is_dir():
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise ArtifactError(f"{path} {what}", "Name a file or a folder")
    named = [read_export(record) for record in records]
    try:
        own = _own(path)
    except ArtifactError as error:
        return _of_damaged_record(error)
    card, identity = _encoder(path, own, named)
    signature = None if signed is None else is_signed(path, signed.signature, signed.public_key)
    verdict = _verdict(own, identity, signature)
    told: dict[str, Json] = {"verdict": verdict}
    if own is not None:
        told |= _about(own)
    if identity is not None:
        told |= {"holds": printable(identity.words, 600), "cases": list(identity.cases or ())}
    if own is not None:
        told |= own.files.told()
    unsigned = "not looked at: give --signature and --public-key"
    told |= {"signature": unsigned if signature is None else signature[1], "warnings": _warnings(path, own, card)}
    return Checked(verdict, told)


def _own(path: Path) -> _Own | None:
    found = record_of(path)
    return None if found is None else _Own(*found, compare(*found, path))


def _encoder(path: Path, own: _Own | None, named: Sequence[Export]) -> "tuple[Card | None, Identity | None]":
    """The encoder that the path holds, and which one it is; None of what is none and need not be one."""
    exports = list(named)
    if own is not None:
        mine = Export(own.manifest, own.path.parent.name)
        if own.manifest.step != "export" or mine.edited is None:
            kind = "gate" if own.manifest.step == "export" else NOUNS[own.manifest.step]
            return None, Identity(False, f"a {kind}, which is no encoder") if named else None
        exports.append(mine)
    from ireu_cli.checking.held_encoder import card_at, identity_of

    # A record that lies at hand may say anything, so the weights are read.
    card = card_at(path)
    return None if isinstance(card, str) else card, identity_of(path, card, exports)


def _verdict(own: _Own | None, identity: Identity | None, signature: tuple[bool, str] | None) -> Verdict:
    is_wrong = own is not None and (not own.files.whole or own.manifest.state != "complete")
    is_other = identity is not None and identity.is_wanted is False
    is_forged = signature is not None and not signature[0]
    if is_wrong or is_other or is_forged:
        return "not as recorded"
    is_known = identity.is_wanted if identity is not None else own is not None
    return "as recorded" if is_known else "unknown"


def _about(own: _Own) -> dict[str, Json]:
    manifest = own.manifest
    sealed = manifest.seal is not None and manifest.key is not None
    found: dict[str, Json] = {
        "kind": f"{NOUNS[manifest.step]}, written by ireu {printable(manifest.tool_version, 40)}",
        "seal": f"by the run folder with key {manifest.key}, which alone can confirm it" if sealed else "none",
    }
    match manifest.metrics.get("verification"):
        case {"standing": str(words)}:
            found["verification"] = printable(words, 300)
    return found


def _warnings(path: Path, own: _Own | None, card: "Card | None") -> list[str]:
    known = [native_name(one.name) for one in own.manifest.outputs] if own is not None else []
    if card is not None:
        known += [file.name for file in card.files]
    found = traps_at(Place.of(path, known))
    if own is not None and own.files.added:
        found.append("some files of the folder are not in its record")
    return found


def _of_damaged_record(error: ArtifactError) -> Checked:
    told = {"verdict": "not as recorded", "holds": f"nothing that can be trusted: {printable(error.fact, 400)}"}
    return Checked("not as recorded", told)
