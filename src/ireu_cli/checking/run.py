"""`ireu check`: compare a file or folder with its record, offline and without the run folder."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ireu_cli.checking.files import Recorded, compare
from ireu_cli.checking.identity import Export, Identity, identify, read_export
from ireu_cli.checking.signature import is_signed
from ireu_cli.checking.traps import Place, traps_at
from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.manifest import Manifest
from ireu_cli.store.beside import record_of
from ireu_cli.support.bounded import printable
from ireu_cli.values import Json

Verdict = Literal["as recorded", "not as recorded", "unknown"]
_KINDS = {"locate": "mask", "unlearn": "delta", "verify": "report", "export": "export", "apply": "embeddings"}


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
        ArtifactError: nothing is there, or a file of `records` is no record of an export.
        UserError: a signature cannot be looked at.
    """
    if not path.exists():
        raise ArtifactError(f"{path} does not exist", "Name a file or a folder")
    named = [read_export(record) for record in records]
    try:
        own = _own(path)
    except ArtifactError as error:
        return _of_damaged_record(error)
    identity = _identity(path, own, named)
    signature = None if signed is None else is_signed(path, signed.signature, signed.public_key)
    verdict = _verdict(own, identity, signature)
    told: dict[str, Json] = {"verdict": verdict}
    if own is not None:
        told |= _about(own)
    if identity is not None:
        told |= {"holds": printable(identity.words, 600), "cases": list(identity.cases or ())}
    if own is not None:
        told |= {"files": own.files.told()}
    unsigned = "not looked at: give --signature and --public-key"
    told |= {"signature": unsigned if signature is None else signature[1], "warnings": _warnings(path, own)}
    return Checked(verdict, told)


def _own(path: Path) -> _Own | None:
    found = record_of(path)
    if found is None:
        return None
    record, manifest = found
    files = compare(record, manifest, is_folder=path.is_dir())
    if path.is_file() and path != record:
        # One file of a folder may be served alone, elsewhere than the others.
        wrong = {name: state for name, state in files.wrong.items() if Path(name).name == path.name}
        files = replace(files, wrong=wrong, right=0 if wrong else 1)
    return _Own(record, manifest, files)


def _identity(path: Path, own: _Own | None, named: Sequence[Export]) -> Identity | None:
    """Which encoder it holds; None if it is none."""
    exports = list(named)
    if own is not None:
        mine = Export(own.manifest, own.path.parent.name)
        if own.manifest.step != "export" or mine.edited is None:
            return None
        exports = [*named, mine]
        if own.files.whole:
            # Its bytes are those of the record, so its weights need not be read.
            return identify(mine.edited, exports)
    from ireu_cli.encoders.families import card_of

    try:
        fingerprint = card_of(str(path)).fingerprint
    except ModelError as error:
        return Identity(False, f"nothing that can be read as an encoder: {error.fact}")
    return identify(fingerprint, exports)


def _verdict(own: _Own | None, identity: Identity | None, signature: tuple[bool, str] | None) -> Verdict:
    is_wrong = own is not None and (not own.files.whole or own.manifest.state != "complete")
    is_other = identity is not None and identity.is_wanted is False
    is_forged = signature is not None and not signature[0]
    if is_wrong or is_other or is_forged:
        return "not as recorded"
    return "unknown" if own is None and (identity is None or identity.is_wanted is None) else "as recorded"


def _about(own: _Own) -> dict[str, Json]:
    manifest = own.manifest
    sealed = manifest.seal is not None and manifest.key is not None
    found: dict[str, Json] = {
        "kind": f"{_KINDS[manifest.step]}, written by ireu {printable(manifest.tool_version, 40)}",
        "seal": f"by the run folder with key {manifest.key}, which alone can confirm it" if sealed else "none",
    }
    match manifest.metrics.get("verification"):
        case {"standing": str(words)}:
            found["verification"] = printable(words, 300)
    return found


def _warnings(path: Path, own: _Own | None) -> list[str]:
    found = traps_at(Place.of(path, [] if own is None else [one.name for one in own.manifest.outputs]))
    if own is not None and own.files.added:
        found.append("Some files of the folder are not in its record; `files` names them")
    return found


def _of_damaged_record(error: ArtifactError) -> Checked:
    told = {"verdict": "not as recorded", "holds": f"nothing that can be trusted: {printable(error.fact, 400)}"}
    return Checked("not as recorded", told)
