"""The files of an artifact against its record: what is missing, changed or added."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.manifest import Manifest
from ireu_cli.store.beside import AS_RECORDED, is_of, state_of
from ireu_cli.store.files import native_name, portable_name
from ireu_cli.support.bounded import printable
from ireu_cli.values import Json

_SHOWN = 20


@dataclass(frozen=True)
class Recorded:
    """Files by their names: `wrong` with what is wrong, `added` are not in the record; `right` counts the others."""

    wrong: dict[str, str]
    added: tuple[str, ...]
    right: int

    @property
    def whole(self) -> bool:
        """Whether every recorded file is as recorded, and there is one at all."""
        return not self.wrong and self.right > 0

    def told(self) -> dict[str, Json]:
        """For people: the first of each kind, and how many files are right."""
        wrong = {printable(name, 120): words for name, words in list(self.wrong.items())[:_SHOWN]}
        if rest := len(self.wrong) - len(wrong):
            wrong["..."] = f"and {rest} more"
        added = [printable(name, 120) for name in self.added[:_SHOWN]]
        if rest := len(self.added) - len(added):
            added.append(f"and {rest} more")
        return {"as_recorded": self.right, "wrong": wrong, "not_in_the_record": added}


def compare(record: Path, manifest: Manifest, path: Path) -> Recorded:
    """Compare the files of an artifact with its record.

    Args:
        record: the record's path.
        manifest: what it says.
        path: the artifact: a folder, in which nothing else should lie, a file that is looked at alone, or the record
            itself, which stands for all of its files.
    """
    folder = record.parent
    outputs = manifest.outputs
    if path.is_file() and path != record:
        outputs = tuple(one for one in outputs if is_of(one, folder, path))
    states = {one.name: state_of(one, folder) for one in outputs}
    wrong = {name: state for name, state in states.items() if state != AS_RECORDED}
    added: tuple[str, ...] = ()
    if path.is_dir():
        known = {*(native_name(one.name) for one in outputs), record.name}
        added = tuple(portable_name(name) for name in sorted(_entries(folder)) if name not in known)
    return Recorded(wrong, added, len(states) - len(wrong))


def _entries(folder: Path) -> Iterator[str]:
    """Every file, link and unreadable folder below a folder, by its name from there; links are not followed."""
    unread: list[str] = []
    for base, folders, files in os.walk(folder, onerror=lambda error: unread.append(str(error.filename))):
        for name in files:
            yield os.path.relpath(os.path.join(base, name), folder)  # noqa: PTH118 - names may be any bytes
        for name in folders:
            if os.path.islink(os.path.join(base, name)):  # noqa: PTH114, PTH118
                yield os.path.relpath(os.path.join(base, name), folder)  # noqa: PTH118
    for name in unread:
        yield os.path.relpath(name, folder)
