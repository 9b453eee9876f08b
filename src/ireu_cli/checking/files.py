"""The files of an artifact against its record: what is missing, changed or added."""

from dataclasses import dataclass
from pathlib import Path

from ireu_cli.manifest import Manifest
from ireu_cli.store.beside import AS_RECORDED, state_of
from ireu_cli.store.files import files_below, portable_name
from ireu_cli.support.bounded import printable

_SHOWN = 20


@dataclass(frozen=True)
class Recorded:
    """Files by their names: `wrong` with what is wrong, `added` are not in the record; `right` counts the others."""

    wrong: dict[str, str]
    added: tuple[str, ...]
    right: int

    @property
    def whole(self) -> bool:
        """Whether every recorded file is as recorded."""
        return not self.wrong

    def told(self) -> dict[str, str]:
        """For people: what is wrong or added, and how many files are right."""
        shown = {printable(name, 120): words for name, words in list(self.wrong.items())[:_SHOWN]}
        shown |= {printable(name, 120): "not in the record" for name in self.added[:_SHOWN]}
        if rest := len(self.wrong) + len(self.added) - len(shown):
            shown["more"] = f"{rest} more are not as recorded"
        noun = "file is" if self.right == 1 else "files are"
        return shown | ({"as recorded": f"{self.right} {noun}"} if self.right else {})


def compare(record: Path, manifest: Manifest, *, is_folder: bool) -> Recorded:
    """Compare the files beside a record with the record.

    Args:
        record: the record's path.
        manifest: what it says.
        is_folder: whether the artifact is a whole folder, in which nothing else may lie.
    """
    states = {one.name: state_of(one, record.parent) for one in manifest.outputs}
    wrong = {name: state for name, state in states.items() if state != AS_RECORDED}
    added: tuple[str, ...] = ()
    if is_folder:
        known = {*states, record.name}
        below = (portable_name(str(path.relative_to(record.parent))) for path in files_below(record.parent))
        added = tuple(sorted(name for name in below if name not in known))
    return Recorded(wrong, added, len(states) - len(wrong))
