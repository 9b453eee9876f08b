"""Stops and kills the four commands at random moments, starves them of disk and rights, and looks for what is lost.

    python benchmarks/kill_matrix.py [--moments 20] [--commands locate,export] [--modes kill,two-runs] [--seed 0]

On the sample people, with settings made small. Each command gets its own number of random moments, half of them with
SIGTERM and half with SIGKILL, one to three in a row; half of the time an older result is in its place and is replaced.
After each one the result has to be the old one or the new one, whole; after the last of a row the same command has to
end with the bytes of a run that was left alone, and nothing may lie around outside the run folder. How long SIGTERM
takes at most is printed. Exits 1 where anything of this does not hold, or SIGTERM takes more than two seconds.

Modes: `kill`; `full-disk` (a tmpfs, for root only); `read-only`; `other-user` (for root only); `two-runs`, two commands
with run folders of their own and one output.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

from ireu_cli.cli.app import main as ireu
from kill_runs import is_between, leftovers, result_at, run, start, taken

LONGEST_STOP = 2.0
"""Seconds that a command may take to end after SIGTERM."""
NOBODY = 65534


class Command(NamedTuple):
    """One of the four: its command line, what makes another result, what it writes, and how it may end."""

    name: str
    arguments: tuple[str, ...]
    other: tuple[str, ...]
    output: str
    codes: frozenset[int]


SMALL = tuple(
    part
    for text in ("pictures.generators=none", "attacks.suite=flip,grey", "attacks.photos=1", "verify.bootstrap=100")
    for part in ("--set", text)
)
COMMANDS = (
    Command("locate", ("--set", "locate.interchange_pairs=0"), ("--top", "0.3"), "mask.pt", frozenset({0})),
    Command(
        "unlearn",
        ("--mask", "mask.pt", "--set", "run.checkpoint_seconds=0.1"),
        ("--set", "gated.max_false_alarm=0.05"),
        "delta.safetensors",
        frozenset({0}),
    ),
    Command(
        "verify", ("--delta", "delta.safetensors", *SMALL), ("--seed", "1"), "report", frozenset({0, 4, 5})
    ),
    Command(
        "export", ("--delta", "delta.safetensors", "--allow-failed"), ("--dtype", "float16"), "encoder-unlearned",
        frozenset({0}),
    ),
)  # fmt: skip


@dataclass
class Findings:
    """What was seen."""

    failures: list[str] = field(default_factory=list)
    hits: dict[str, int] = field(default_factory=dict)
    longest_stop: float = 0.0

    def check(self, holds: bool, what: str) -> None:
        """Note a failure, and say it at once."""
        if not holds:
            self.failures.append(what)
            print(f"FAILED {what}", flush=True)


def stop(process: ForkServerProcess, how: signal.Signals, found: Findings) -> bool:
    """Stop or kill a command; returns whether it was still running."""
    if not process.is_alive() or process.pid is None:
        process.join()
        return False
    begin = time.monotonic()
    os.kill(process.pid, how)
    process.join(60)
    seconds = time.monotonic() - begin
    if process.is_alive():
        process.kill()
        process.join()
    if how is signal.SIGTERM:
        found.longest_stop = max(found.longest_stop, seconds)
        found.check(seconds <= LONGEST_STOP, f"SIGTERM took {seconds:.1f} s")
    return True


class Matrix:
    """One command, what it starts from, and what it gives when it is left alone."""

    def __init__(self, command: Command, before: Path, scratch: Path, found: Findings) -> None:
        """Run it alone, and once more with other settings for an older result."""
        self.command, self.before, self.scratch, self.found = command, before, scratch, found
        self.whole, self.older = scratch / "whole", scratch / "older"
        begin = time.monotonic()
        self.new = self._alone(self.whole, ())
        self.seconds = time.monotonic() - begin
        self.old = self._alone(self.older, command.other)

    def _alone(self, folder: Path, more: tuple[str, ...]) -> dict[str, object]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.before, folder)
        code, said = run(folder, (self.command.name, *self.command.arguments, *more))
        if code not in self.command.codes:
            raise SystemExit(f"{self.command.name} does not run here: {said}")
        return result_at(folder, self.command.output)

    @contextlib.contextmanager
    def folder(self, name: str, *, older: bool) -> Iterator[Path]:
        """A copy of what the command starts from."""
        place = self.scratch / name
        shutil.copytree(self.older if older else self.before, place)
        try:
            yield place
        finally:
            shutil.rmtree(place)

    def arguments(self, *, older: bool) -> tuple[str, ...]:
        """The command line."""
        return (self.command.name, *self.command.arguments, *(("--force",) if older else ()))

    def finish(self, folder: Path, what: str, *, older: bool) -> None:
        """Run the command to its end: the bytes of a run that was left alone, and nothing left lying around."""
        code, said = run(folder, self.arguments(older=older))
        self.found.check(code in self.command.codes, f"{what}: ended with {code}: {said[-300:]}")
        self.found.check(result_at(folder, self.command.output) == self.new, f"{what}: other bytes")
        left = leftovers(folder)
        self.found.check(not left, f"{what}: left {left}")

    def kill_row(self, rng: random.Random, times: int, number: int) -> int:
        """Stop or kill the command so many times, then let it end; returns how many hit it at work."""
        older, hits, name = rng.random() < 0.5, 0, self.command.name
        old = self.old if older else {}
        with self.folder(f"row-{number}", older=older) as folder:
            for _ in range(times):
                how = rng.choice((signal.SIGTERM, signal.SIGKILL))
                process, log = start(folder, self.arguments(older=older))
                process.join(self.seconds * rng.uniform(0, 1))
                hit = stop(process, how, self.found)
                hits += hit
                said, what = taken(log), f"{name} row {number} {how.name}{' over an older result' if older else ''}"
                found = result_at(folder, self.command.output)
                whole = found in (old, self.new) or is_between(folder, self.command.output, old, self.new)
                self.found.check(whole, f"{what}: neither old nor new")
                self.found.check("Traceback" not in said, f"{what}: {said[-600:]}")
                if found == self.new:
                    break
            self.finish(folder, f"{name} row {number}", older=older)
        return hits

    def kill(self, rng: random.Random, moments: int) -> None:
        """All rows."""
        hits = number = 0
        while hits < moments and number < 4 * moments:
            hits += self.kill_row(rng, min(rng.randint(1, 3), moments - hits), number)
            number += 1
        self.found.hits[self.command.name] = hits
        self.found.check(hits >= moments // 2, f"{self.command.name}: most signals came too late")

    def full_disk(self, rng: random.Random, moments: int) -> None:
        """A disk that fills up at different moments of the work; then there is room again."""
        disk = self.scratch / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", disk], check=True)
        try:
            shutil.copytree(self.before, disk / "job")
            sizes = sum(len(data) for data in self.new.values() if isinstance(data, bytes))
            for _ in range(moments):
                ballast = disk / "ballast"
                free = shutil.disk_usage(disk).free - int(sizes * rng.uniform(0, 1))
                ballast.write_bytes(b"\0" * max(0, free))
                code, said = run(disk / "job", self.arguments(older=False))
                ballast.unlink()
                self.found.check(
                    code == 3 and "Free space on its disk" in said, f"{self.command.name} full disk: {code} {said}"
                )
                empty = not result_at(disk / "job", self.command.output) and not leftovers(disk / "job")
                self.found.check(empty, f"{self.command.name} full disk: something is left")
            self.finish(disk / "job", f"{self.command.name} full disk", older=False)
        finally:
            subprocess.run(["umount", disk], check=True)

    def read_only(self, _rng: random.Random, _moments: int) -> None:
        """A folder in which nothing can be written is told before the work."""
        with self.folder("read-only", older=False) as folder, closed(folder / "closed"):
            code, said = run(folder, (*self.arguments(older=False), "-o", f"closed/{self.command.output}"))
            told = code == 3 and "closed" in said and "targets:" not in said
            self.found.check(told, f"{self.command.name} read-only: {code} {said}")

    def other_user(self, _rng: random.Random, _moments: int) -> None:
        """A run folder of somebody else is named."""
        with self.folder("other-user", older=False) as folder:
            for path in (folder, *(path for path in folder.glob("*") if path.name != ".ireu")):
                os.chown(path, NOBODY, NOBODY)
            code, said = run(folder, self.arguments(older=False), NOBODY)
            told = code == 3 and ".ireu" in said and "Traceback" not in said
            self.found.check(told, f"{self.command.name} other user: {code} {said}")

    def two_runs(self, rng: random.Random, moments: int) -> None:
        """Two run folders, one output: one writes it, the other is told, or finds it done."""
        for number in range(moments):
            with self.folder(f"two-{number}", older=False) as folder:
                shutil.copytree(folder / ".ireu", folder / ".other")
                first = start(folder, self.arguments(older=False))
                time.sleep(rng.uniform(0, self.seconds))
                second = start(folder, (*self.arguments(older=False), "--run-dir", ".other"))
                for process, _ in (first, second):
                    process.join()
                said = [taken(log) for _, log in (first, second)]
                codes = [process.exitcode for process, _ in (first, second)]
                what = f"{self.command.name} two runs: {codes} {said}"
                self.found.check(any(code in self.command.codes for code in codes), what)
                refused = "Another ireu process is writing" in said[codes.index(3)] if 3 in codes else True
                self.found.check(set(codes) <= {*self.command.codes, 3} and refused, what)
                self.found.check(result_at(folder, self.command.output) == self.new, f"{what}: other bytes")
                self.found.check(not leftovers(folder), f"{what}: left {leftovers(folder)}")


@contextlib.contextmanager
def closed(folder: Path) -> Iterator[None]:
    """A folder that cannot be written; root needs a file system that is read-only."""
    folder.mkdir(mode=0o555)
    if os.geteuid() != 0:
        yield
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


MODES: dict[str, Callable[[Matrix, random.Random, int], None]] = {
    "kill": Matrix.kill,
    "full-disk": Matrix.full_disk,
    "read-only": Matrix.read_only,
    "other-user": Matrix.other_user,
    "two-runs": Matrix.two_runs,
}
OF_ROOT = frozenset({"full-disk", "other-user"})


def prepare(folder: Path) -> None:
    """The sample people, and a run folder that has its key: all runs start from the same."""
    if ireu(["samples", str(folder)]) != 0:
        raise SystemExit("the sample people are not here")
    code, said = run(folder, ("locate", "--method", "all", "--set", "locate.interchange_pairs=0", "-o", "first.pt"))
    if code != 0:
        raise SystemExit(said)
    for path in (*folder.glob("first.pt*"), folder / ".ireu" / "features"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    """Run the matrix and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moments", type=int, default=20, help="signals for each command; tries in other modes")
    parser.add_argument("--commands", default=",".join(command.name for command in COMMANDS))
    parser.add_argument("--modes", default=",".join(MODES))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng, found = random.Random(given.seed), Findings()
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        before = Path(scratch) / "demo"
        prepare(before)
        for command in COMMANDS:
            place = Path(scratch) / command.name
            place.mkdir()
            matrix = Matrix(command, before, place, found)
            for mode in given.modes.split(",") if command.name in given.commands.split(",") else ():
                if mode in OF_ROOT and os.geteuid() != 0:
                    print(f"{command.name} {mode}: for root only, skipped", flush=True)
                    continue
                MODES[mode](matrix, rng, given.moments)
                print(f"{command.name} {mode}: done", flush=True)
            before = matrix.whole
    for name, hits in found.hits.items():
        print(f"{name}: {hits} signals hit it at work")
    print(f"longest stop by SIGTERM: {found.longest_stop:.2f} s, at most {LONGEST_STOP}")
    print(f"{len(found.failures)} failures")
    sys.exit(bool(found.failures))


if __name__ == "__main__":
    main()
