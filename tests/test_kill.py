"""kill -9 at random moments over the four steps, then the same commands again: the bytes of an uninterrupted run."""

import json
import multiprocessing
import os
import random
import shutil
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import NamedTuple

import pytest

from ireu_cli.cli.app import main

# Steps start from a process that has imported the libraries, so that kills hit the work and not the start of Python.
STARTED = multiprocessing.get_context("forkserver")
STARTED.set_forkserver_preload(
    [f"ireu_cli.{name}.run" for name in ("locating", "unlearning", "verifying", "exporting")]
    + ["transformers.models.clip.modeling_clip", "torchmetrics.image.kid", "torchmetrics.image.fid"]
)
ROUNDS = int(os.environ.get("TEST_KILLS", "8"))


class Step(NamedTuple):
    """A step of the pipeline: its command line, and how the names of its outputs begin."""

    arguments: tuple[str, ...]
    output: str


PIPELINE = (
    Step(("locate",), "mask"),
    Step(("unlearn", "--mask", "mask.pt", "--steps", "100", "--set", "run.checkpoint_seconds=0.1"), "delta"),
    Step(("verify", "--delta", "delta.safetensors"), "report"),
    Step(("export", "--allow-failed", "--delta", "delta.safetensors", "--dtype", "float16"), "encoder-unlearned"),
)


def work(folder: Path, arguments: tuple[str, ...]) -> None:
    """What a started process does: one step, in its folder."""
    os.chdir(folder)
    raise SystemExit(main([*arguments, "--quiet"]))


def start(folder: Path, arguments: tuple[str, ...]) -> ForkServerProcess:
    process = STARTED.Process(target=work, args=(folder, arguments))
    process.start()
    return process


def run(folder: Path, arguments: tuple[str, ...]) -> tuple[int | None, float]:
    started = time.monotonic()
    process = start(folder, arguments)
    process.join()
    return process.exitcode, time.monotonic() - started


def kill(process: ForkServerProcess, codes: set[int]) -> bool:
    """Kill a step that else ends with one of these codes; returns whether it was still running."""
    running = process.is_alive()
    process.kill()
    process.join()
    assert running or process.exitcode in codes
    return running


def kill_after(folder: Path, arguments: tuple[str, ...], seconds: float) -> bool:
    """Start a step and kill it; returns whether it was still running."""
    process = start(folder, arguments)
    process.join(seconds)
    return kill(process, {0, 4})


def forget(folder: Path, output: str) -> None:
    """Take away what a step wrote, so that the next run of it has something to do."""
    for path in folder.glob(f"{output}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def kill_often(folder: Path, step: Step, seconds: float, times: int, rng: random.Random) -> int:
    """Kill a step so many times while it runs; returns how many of them hit.

    A kill that comes too late shows a machine that became faster, or a step that went on from where the last one
    fell: the step starts anew and the next kills come sooner.
    """
    hits = 0
    for _ in range(5 * times):
        if kill_after(folder, step.arguments, seconds * rng.uniform(0.0, 1.0)):
            hits += 1
        else:
            forget(folder, step.output)
            seconds *= 0.8
        if hits == times:
            break
    return hits


def snapshot(folder: Path) -> dict[str, object]:
    """Every artifact by its bytes; manifests without when and where."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or name.startswith((".ireu", "faces", "others", "encoder/")):
            continue
        data = path.read_bytes()
        found[name] = json.loads(data)["digest"] if b'"checksum"' in data else data
    return found


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(samples: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shutil.copytree(samples, whole)
    run(whole, ("locate", "-o", "warm-up.pt"))
    for leftover in whole.glob("warm-up*"):
        leftover.unlink()
    shutil.rmtree(whole / ".ireu" / "features")
    shutil.copytree(samples, killed)
    (killed / ".ireu").mkdir()
    # The key of the photo digests is part of what a run starts from.
    shutil.copy(whole / ".ireu" / "key", killed / ".ireu" / "key")
    durations = []
    for step in PIPELINE:
        code, seconds = run(whole, step.arguments)
        assert code in {0, 4}
        durations.append(seconds)
    rng = random.Random(0)
    times = max(1, ROUNDS // len(PIPELINE))
    for step, seconds in zip(PIPELINE, durations, strict=True):
        assert kill_often(killed, step, seconds, times, rng) == times, "most kills came too late to hit anything"
        code, _ = run(killed, step.arguments)
        assert code in {0, 4}
    assert snapshot(killed) == snapshot(whole)
    leftovers = [path.name for path in killed.rglob(".*") if ".tmp" in path.name or ".previous" in path.name]
    assert not [name for name in leftovers if not name.startswith(".key")], leftovers


def kill_while_drawing(folder: Path, arguments: tuple[str, ...], pictures: int, pause: float) -> bool:
    """Start a step and kill it shortly after so many pictures are there; returns whether it was still running."""
    process = start(folder, arguments)
    while process.is_alive() and len(list((folder / ".ireu" / "pictures").rglob("*.png"))) < pictures:
        time.sleep(0.01)
    time.sleep(pause)
    return kill(process, {4, 5})


@pytest.mark.slow
def test_a_killed_verification_goes_on_drawing(samples: Path, portrait: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    shutil.copytree(samples, whole)
    where = ("--encoder", str(portrait), "--tap", "penultimate")
    assert run(whole, ("locate", *where, "--set", "locate.interchange_pairs=0"))[0] == 0
    assert run(whole, ("unlearn", "--mask", "mask.pt", "--steps", "3"))[0] == 0
    shutil.copytree(whole, killed)
    few = [part for size in ("people", "look_alikes", "target_photos") for part in ("--set", f"pictures.{size}=2")]
    few += [part for text in ("drawn=1", "suite=flip,pgd") for part in ("--set", f"attacks.{text}")]
    step = ("verify", "--delta", "delta.safetensors", "--keep-images", *few)
    code, _ = run(whole, step)
    assert code in {4, 5}
    total = len(list((whole / ".ireu" / "pictures").rglob("*.png")))
    assert total > 30
    rng = random.Random(1)
    moments = sorted(rng.sample(range(total), max(3, ROUNDS // 4)))
    hits = sum(kill_while_drawing(killed, step, moment, rng.uniform(0, 0.1)) for moment in moments)
    assert hits >= len(moments) // 2, "most kills came too late to hit anything"
    assert run(killed, step)[0] == code
    assert snapshot(killed) == snapshot(whole)
    kept = [sorted(path.name for path in (place / ".ireu" / "pictures").rglob("*.png")) for place in (whole, killed)]
    assert kept[0] == kept[1]
