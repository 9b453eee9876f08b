"""Which encoder a file or folder holds, by its fingerprint, and which cases it honours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import Manifest
from ireu_cli.store.beside import record_of


@dataclass(frozen=True)
class Export:
    """The record of an export, and what messages call it."""

    manifest: Manifest
    name: str

    @property
    def edited(self) -> str | None:
        """The fingerprint of the encoder that it wrote; None of a gate."""
        found = self.manifest.metrics.get("edited_encoder")
        return found if isinstance(found, str) else None

    @property
    def original(self) -> str:
        """The fingerprint of the encoder that it started from."""
        return self.manifest.encoder.fingerprint

    @property
    def cases(self) -> tuple[str, ...] | None:
        """The cases whose people it removes; None in exports of earlier versions, which do not say."""
        found = self.manifest.metrics.get("cases")
        return tuple(map(str, found)) if isinstance(found, list) else None

    @property
    def honours(self) -> str:
        """The cases in words."""
        if self.cases is None:
            return "its record does not say which cases it honours"
        return f"it honours {_counted(self.cases)}" if self.cases else "it removes nobody"


@dataclass(frozen=True)
class Identity:
    """Whether an encoder is the wanted one (None: nobody says which one is wanted), and what it is, in words."""

    is_wanted: bool | None
    words: str
    cases: tuple[str, ...] | None = None


def read_export(place: Path) -> Export:
    """Read the record of an export: its `ireu.json`, its folder, or a file in it.

    Raises:
        ArtifactError: there is none, it is damaged, or it is of something else.
    """
    found = record_of(place)
    if found is None or found[1].step != "export":
        raise ArtifactError(
            f"{place} is not the record of an export", "Name the folder that `ireu export` wrote, or its ireu.json"
        )
    return Export(found[1], place.name)


def identify(fingerprint: str, exports: Sequence[Export]) -> Identity:
    """Say which encoder has a fingerprint.

    Args:
        fingerprint: the encoder's.
        exports: exports that it may be; it should be the first one.
    """
    if not exports:
        return Identity(None, "unknown: no record lies beside it, and none was named with --record")
    wanted, *others = exports
    if fingerprint == wanted.edited:
        return Identity(True, f"the edited encoder of {wanted.name}: {wanted.honours}", wanted.cases)
    if fingerprint == wanted.original:
        return Identity(False, f"THE ORIGINAL of {wanted.name}, which removes nobody", ())
    for other in others:
        if fingerprint == other.edited:
            return Identity(False, f"the edited encoder of another export, {other.name}: {other.honours}", other.cases)
        if fingerprint == other.original:
            return Identity(False, f"the original of another export, {other.name}, which removes nobody", ())
    return Identity(False, "none that the records know: it is neither their original nor their edited encoder")


def _counted(cases: Sequence[str]) -> str:
    shown = ", ".join(cases[:10]) + (f" and {len(cases) - 10} more" if len(cases) > 10 else "")
    return f"case {shown}" if len(cases) == 1 else f"cases {shown}"
