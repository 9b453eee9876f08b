"""One changed file after another before its reader, in this process or in children that may not last."""

import contextlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from ireu_cli.cli.failures import chain, told_of
from ireu_cli.errors import IreuError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.support.bounded import escaped
from tests.fuzzing.kinds import KINDS, Kind
from tests.fuzzing.watch import LateError, Outside, guarded, snapshot

State = Literal["same", "other", "refused", "failure"]
MEMORY = 2 << 30
"""Bytes that a reader may take beyond what the process has."""
LONGEST = 5000
"""Characters of an error."""
_PATIENCE = 120
"""Seconds without an answer after which a child is taken to hang."""


@dataclass(frozen=True)
class Outcome:
    """What came of one input: accepted with the same or another meaning, refused, or a failure and why."""

    kind: str
    number: int
    state: State
    why: str = ""


class Bench:
    """A copy of one kind's seed in which one file is changed at a time."""

    def __init__(self, name: str, sound: Path, work: Path) -> None:
        """Copy the seeds, and read the unchanged files, which must be accepted.

        Args:
            name: the kind.
            sound: the folder of seeds.
            work: an empty folder to work in.
        """
        self.name, self.kind, self._sound = name, KINDS[name], sound
        # A delta is read beside the encoder that it is for.
        self._base = work / "here" / "inner"
        for seed in {self.kind.seed, "tiny", "network"}:
            shutil.copytree(sound / seed, self._base / seed, dirs_exist_ok=True)
        self._place = self._base / self.kind.seed
        self.outside = Outside(work / "outside")
        (work / "here" / "outside").symlink_to("../outside")
        self._files = sorted(self._place.glob(self.kind.files))
        self._wholes = {path: path.read_bytes() for path in self._files}
        self._before = {path: self.kind.read(self._given(path)) for path in self._files}

    def close(self) -> None:
        """Watch no longer."""
        self.outside.close()

    def _given(self, path: Path) -> Path:
        return path if self.kind.by_file else self._place

    def changed(self, seed: int, number: int) -> tuple[Path, bytes]:
        """The file of an input, and what it holds there."""
        draw = random.Random(f"{seed} {self.name} {number}")
        path = draw.choice(self._files)
        mutant = self._wholes[path]
        while mutant == self._wholes[path]:
            mutant = self.kind.change(mutant, draw)
        return path, mutant

    def examine(self, seed: int, number: int) -> Outcome:
        """Put one changed file before the reader."""
        path, mutant = self.changed(seed, number)
        path.write_bytes(mutant)
        before = snapshot(self._base)
        self.outside.touched()
        seen: list[str] = []
        try:
            with guarded(seen):
                state, why = self._read(path)
            if self.outside.touched():
                state, why = "failure", "a file outside was touched"
            elif seen:
                state, why = "failure", seen[0]
            elif not self.kind.writes and snapshot(self._base) != before:
                state, why = "failure", "files were changed"
        finally:
            self._restore(path)
        return Outcome(self.name, number, state, why)

    def _restore(self, path: Path) -> None:
        if self.kind.writes:
            shutil.rmtree(self._place)
            shutil.copytree(self._sound / self.kind.seed, self._place)
        else:
            path.write_bytes(self._wholes[path])

    def _read(self, path: Path) -> tuple[State, str]:
        try:
            with warnings.catch_warnings():
                _strict_warnings()
                found = self.kind.read(self._given(path))
        except (IreuError, BadPhotoError) as error:
            return _refused(error)
        except (Exception, LateError) as error:  # noqa: BLE001 - that is what is looked for
            return "failure", f"{type(error).__name__}: {error}"[:300]
        if found is None:
            return "refused", "counts as not there"
        if wrong := self.kind.wrong(self._before[path], found):
            return "failure", wrong
        return ("same" if found == self._before[path] else "other"), ""


def _refused(error: Exception) -> tuple[State, str]:
    text = str(error)
    if not escaped(text).isprintable():
        return "failure", f"unprintable: {text!r:.200}"
    if len(text) > LONGEST:
        return "failure", f"an error of {len(text)} characters: {text:.200}"
    if any(isinstance(one, MemoryError) for one in chain(error)):
        return "failure", f"asked for too much memory: {text:.200}"
    told = told_of(error)
    if isinstance(error, IreuError) and not (told and told.fact and told.remedy):
        return "failure", f"no fact or no remedy: {text:.200}"
    return "refused", text[:200]


def _strict_warnings() -> None:
    warnings.simplefilter("error")
    for kind in (DeprecationWarning, FutureWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    # As `ireu_cli.faces.decode` sets for the whole process.
    warnings.filterwarnings("ignore", module=r"PIL\.")


def _limit_memory() -> None:
    """Let the process grow by so much and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _work(name: str, sound: Path, work: Path, seed: int, numbers: range, answers: Connection) -> None:
    """What a child does: one input after another, each answered."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    quiet = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(quiet, stream)
    for folder in ("cwd", "home"):
        (work / folder).mkdir(parents=True)
    os.environ |= {"HOME": str(work / "home"), "HF_HUB_OFFLINE": "1"}
    os.chdir(work / "cwd")
    bench = Bench(name, sound, work)
    _limit_memory()
    for number in numbers:
        answers.send(number)
        answers.send(bench.examine(seed, number))
    answers.send(None)


def run(name: str, sound: Path, work: Path, seed: int, count: int) -> Iterator[Outcome]:
    """Examine so many inputs of one kind in children, each of which takes over from one that died.

    Args:
        name: the kind.
        sound: the folder of seeds.
        work: a folder to work in; children leave nothing there.
        seed: decides the inputs, with their numbers.
        count: how many.
    """
    fork = multiprocessing.get_context("fork")
    done = 0
    while done < count:
        place = work / f"{os.getpid()}-{time.monotonic_ns()}"
        answers, theirs = fork.Pipe(duplex=False)
        child = fork.Process(target=_work, args=(name, sound, place, seed, range(done, count), theirs))
        child.start()
        theirs.close()
        for outcome in _answers(name, child, answers, done):
            done = outcome.number + 1
            yield outcome
        child.kill()
        child.join()
        shutil.rmtree(place, ignore_errors=True)


def _answers(name: str, child: Any, answers: Connection, first: int) -> Iterator[Outcome]:
    number, begun = first, False
    while True:
        try:
            said = answers.recv() if answers.poll(_PATIENCE) else "late"
        except EOFError:
            child.join()
            said = f"the process died ({child.exitcode})"
        if said is None:
            return
        if isinstance(said, Outcome):
            yield said
        elif isinstance(said, int):
            number, begun = said, True
        elif not begun:
            raise RuntimeError(f"{name}: the seed itself cannot be read: {said}")
        else:
            yield Outcome(name, number, "failure", said)
            return


def keep(folder: Path, bench: Bench, seed: int, outcome: Outcome) -> Path:
    """Keep the file of a failure, and beside it what went wrong."""
    folder.mkdir(parents=True, exist_ok=True)
    path, mutant = bench.changed(seed, outcome.number)
    stem = f"{outcome.kind.replace(' ', '-').replace(',', '')}-{seed}-{outcome.number}"
    kept = folder / f"{stem}-{path.name}"
    kept.write_bytes(mutant)
    about = {"kind": outcome.kind, "seed": seed, "number": outcome.number, "why": outcome.why}
    with contextlib.suppress(OSError):
        (folder / f"{stem}.json").write_text(json.dumps(about))
    return kept


__all__ = ["KINDS", "Bench", "Kind", "Outcome", "keep", "run"]
