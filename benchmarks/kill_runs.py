"""Commands that can be killed: started from a process that has imported the libraries, and what they leave."""

import codecs
import json
import multiprocessing
import os
import re
import sys
import tempfile
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from ireu_cli.cli.app import main as ireu
from ireu_cli.cli.app import run as console_script

# Commands start from a process that has imported the libraries, so that signals hit the work.
STARTED = multiprocessing.get_context("forkserver")
STARTED.set_forkserver_preload(
    [f"ireu_cli.{name}.run" for name in ("locating", "unlearning", "verifying", "exporting")]
    + ["transformers.models.clip.modeling_clip", "torchmetrics.image.kid", "torchmetrics.image.fid"]
)
LEFTOVER = re.compile(r"\..*(\.tmp|\.previous|\.ready|\.lock)")


def work(folder: Path, arguments: tuple[str, ...], log: Path, user: int | None) -> None:
    """What a started process does: one command as the console script runs it, in its folder."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    if user is not None:
        # What is imported late may lie where another user cannot look.
        ireu([arguments[0], "--help"])
        codecs.lookup("utf-8-sig")
        os.setgid(user)
        os.setuid(user)
    sys.argv = ["ireu", *arguments]
    console_script()


def start(folder: Path, arguments: tuple[str, ...], user: int | None = None) -> tuple[ForkServerProcess, Path]:
    """Start a command; what it says goes into a file."""
    descriptor, name = tempfile.mkstemp(suffix=".log")
    os.close(descriptor)
    process = STARTED.Process(target=work, args=(folder, arguments, Path(name), user))
    process.start()
    return process, Path(name)


def run(folder: Path, arguments: tuple[str, ...], user: int | None = None) -> tuple[int | None, str]:
    """Run a command to its end: exit code, and what it said."""
    process, log = start(folder, arguments, user)
    process.join()
    return process.exitcode, taken(log)


def taken(log: Path) -> str:
    """What a command said; the file is gone then."""
    text = log.read_text(errors="replace")
    log.unlink()
    return text


def content(path: Path) -> object:
    """A file's bytes; of a manifest what is in it but for when, where and its seals, which cover every digit.

    Numbers are taken to twelve digits: sums of double precision may differ in the last ones with where in memory they
    are added up.
    """
    data = path.read_bytes()
    if b'"checksum"' not in data:
        return data
    told = json.loads(data, parse_float=lambda text: f"{float(text):.12g}")
    return {key: value for key, value in told.items() if key not in {"environment", "timings", "digest", "checksum"}}


def result_at(folder: Path, output: str) -> dict[str, object]:
    """What lies at an output, by names below the folder, with its manifest."""
    place = folder / output
    paths = [*place.rglob("*")] if place.is_dir() else [place, place.with_name(f"{output}.json")]
    return {str(path.relative_to(folder)): content(path) for path in sorted(paths) if path.is_file()}


def leftovers(folder: Path) -> list[str]:
    """What lies around outside the run folders."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in {".ireu", ".other"}]
        found += [str(Path(place, name)) for name in (*folders, *names) if LEFTOVER.fullmatch(name)]
    return found


def is_between(folder: Path, output: str, old: dict[str, object], new: dict[str, object]) -> bool:
    """Whether a file is new and its manifest is still on the way, as the next run finds it."""
    found, record = result_at(folder, output), f"{output}.json"
    waiting = [path for path in folder.glob(f".{record}.ireu-*.tmp") if content(path) == new.get(record)]
    return bool(waiting) and found.get(output) == new.get(output) and found.get(record) == old.get(record)
