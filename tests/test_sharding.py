"""Shared work: whoever does which shard, in whatever order, after whatever accident, the bytes are the same."""

import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from ireu_cli.errors import ArtifactError, ConfigError, PartDoneError, WorkerDoneError
from ireu_cli.params import RunParams
from ireu_cli.sharding import choose
from ireu_cli.sharding.board import Board
from ireu_cli.sharding.choose import executor_for
from ireu_cli.sharding.claims import Claims
from ireu_cli.sharding.executor import Alone, Executor, Outcome, Positions, Shard, Stage, cut
from ireu_cli.sharding.processes import WORKER, Processes
from ireu_cli.sharding.shared import Fixed, Shared
from tests.conftest import run_ireu
from tests.test_kill import start

COMMANDS = (
    ("locate",),
    ("unlearn", "--mask", "mask.pt", "--method", "gated"),
    ("verify", "--delta", "delta.safetensors"),
    ("export", "--delta", "delta.safetensors", "--allow-failed"),
)
SMALL = ("--set", "run.shard_batches=2", "--quiet")
RESULTS = ("mask.pt", "delta.safetensors", "report/report.json", "encoder-unlearned/model.safetensors")


def stage(count: int, size: int = 3, name: str = "a" * 64) -> Stage:
    return Stage(lambda: name, np.arange(count), size)


class Sums:
    """Adds up random numbers by shards; the order of the sum decides its last bits."""

    def __init__(self, count: int, pause: float = 0.0) -> None:
        self.numbers = torch.randn(count, generator=torch.Generator().manual_seed(0)) * 1e3
        self.pause = pause
        self.total = torch.zeros(())
        self.did: list[int] = []
        self.bad: dict[str, str] = {}

    def compute(self, positions: Positions, shards: Iterator[Shard]) -> Iterator[tuple[Shard, Outcome]]:
        for shard in shards:
            time.sleep(self.pause)
            self.did.append(shard.number)
            part = self.numbers[positions[shard.first : shard.end]].sum()
            yield shard, Outcome({f"bad {shard.number}": "no"}, {"sum": part})

    def collect(self, outcome: Outcome) -> None:
        self.total = self.total + outcome.tensors["sum"]
        self.bad |= outcome.unusable

    def go(self, executor: Executor, stage: Stage) -> bool:
        return executor.go_through(stage, self.compute, self.collect, lambda _count: None)


def shared(folder: Path, *, stale: float = 30.0, fixed: Fixed | None = None) -> Shared:
    return Shared(folder, is_worker=False, stale=stale, fixed=fixed)


def test_several_share_a_stage_and_each_shard_is_done_once(tmp_path: Path) -> None:
    alone = Sums(100)
    assert not alone.go(Alone(), stage(100))
    everyone = [Sums(100, 0.005) for _ in range(4)]
    threads = [threading.Thread(target=one.go, args=(shared(tmp_path / "s"), stage(100))) for one in everyone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(number for one in everyone for number in one.did) == list(range(34))
    assert sum(bool(one.did) for one in everyone) > 1
    for one in everyone:
        assert one.total == alone.total
        assert one.bad == alone.bad
        assert len(one.bad) == 34


def test_the_order_of_the_sum_decides_its_bits() -> None:
    """Otherwise the test above could not fail."""
    sums = Sums(100)
    parts = [sums.numbers[shard.first : shard.end].sum() for shard in cut(100, 3)]
    orders = [random.Random(seed).sample(parts, len(parts)) for seed in range(20)]
    assert len({float(sum(order, torch.zeros(()))) for order in orders}) > 1


def test_the_first_view_of_what_is_left_counts_for_all(tmp_path: Path) -> None:
    first, later = Sums(10), Sums(10)
    first.go(shared(tmp_path / "s"), stage(10))
    # By now nothing is left to do, as this one sees it.
    assert later.go(shared(tmp_path / "s"), Stage(lambda: "a" * 64, np.arange(0), 3))
    assert (later.total, later.did) == (first.total, [])


def test_a_claim_that_nobody_touches_is_free_again(tmp_path: Path) -> None:
    path = tmp_path / "000000.claim"
    assert Claims(30).take(path)
    assert not Claims(30).take(path)
    os.utime(path, (time.time() - 60,) * 2)
    assert Claims(30).take(path)


def test_a_claim_is_touched_for_as_long_as_the_work_takes(tmp_path: Path) -> None:
    path, claims = tmp_path / "000000.claim", Claims(0.2)
    claims.take(path)
    time.sleep(0.6)
    assert not Claims(0.2).take(path)
    claims.end()
    assert not path.exists()


def test_the_shard_of_a_process_that_died_is_done_by_another(tmp_path: Path) -> None:
    board = Board(tmp_path / "s" / ("a" * 32), stage(10))
    board.claim(board.shards[1]).touch()
    alone, left = Sums(10), Sums(10)
    alone.go(Alone(), stage(10))
    left.go(shared(tmp_path / "s", stale=0.3), stage(10))
    assert left.did == [0, 2, 3, 1]
    assert left.total == alone.total


def test_a_damaged_result_is_named_and_made_again(tmp_path: Path) -> None:
    Sums(10).go(shared(tmp_path / "s"), stage(10))
    damaged = tmp_path / "s" / ("a" * 32) / "000002.tensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\x00\x01")
    again = Sums(10)
    with pytest.raises(ArtifactError, match="damaged"):
        again.go(shared(tmp_path / "s"), stage(10))
    once_more = Sums(10)
    once_more.go(shared(tmp_path / "s"), stage(10))
    assert once_more.did == [2]


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    Board(tmp_path / "s" / ("a" * 32), stage(10))
    (tmp_path / "s" / ("a" * 32) / "plan.safetensors").write_bytes(b"nothing")
    with pytest.raises(ArtifactError, match="plan"):
        Sums(10).go(shared(tmp_path / "s"), stage(10))


def test_fixed_parts_do_their_own_shards_and_say_what_is_left(tmp_path: Path) -> None:
    did = []
    for index in (2, 0):
        part = Sums(30)
        with pytest.raises(PartDoneError) as left:
            part.go(shared(tmp_path / "s", fixed=Fixed(index, 3, 0)), stage(30))
        did.append((part.did, left.value.left))
    assert did == [([2, 5, 8], 7), ([0, 3, 6, 9], 3)]
    last, alone = Sums(30), Sums(30)
    last.go(shared(tmp_path / "s", fixed=Fixed(1, 3, 0)), stage(30))
    alone.go(Alone(), stage(30))
    assert last.total == alone.total


def test_a_worker_leaves_before_it_would_write(tmp_path: Path) -> None:
    with pytest.raises(WorkerDoneError):
        Shared(tmp_path, is_worker=True, stale=1).leave()
    shared(tmp_path).leave()
    Alone().leave()


def test_workers_need_a_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="command line"):
        executor_for(RunParams(processes=2), tmp_path / "s", lambda _count: 1, print)


@pytest.mark.parametrize("wrong", ["0/4", "5/4", "1", "a/b", "1/4/2", "-1/4", ""])
def test_a_part_is_a_number_and_a_count(wrong: str, samples: Path) -> None:
    done = run_ireu("locate", "--shard", wrong, cwd=samples)
    assert done.code in {2, 3}, done.err
    assert "Traceback" not in done.err


def begin(job: Path, folder: Path) -> Path:
    """A folder for the same job, with the same key: keyed digests are part of the result."""
    shutil.copytree(job, folder, ignore=shutil.ignore_patterns("features", "pictures", "shards"))
    return folder


@pytest.fixture(scope="module")
def before(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job that has a key and nothing else; tests must not change it."""
    folder = tmp_path_factory.mktemp("shards") / "before" / "demo"
    shutil.copytree(samples, folder)
    (folder / ".ireu").mkdir(mode=0o700)
    (folder / ".ireu" / "key").write_text("5e" * 32)
    return folder


@pytest.fixture(scope="module")
def expected(before: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process makes."""
    folder = begin(before, tmp_path_factory.mktemp("shards") / "alone" / "demo")
    return results(folder, lambda command: run_ireu(*command, *SMALL, cwd=folder).code)


def results(folder: Path, run: Callable[[Sequence[str]], int | None]) -> dict[str, bytes]:
    """Run all commands; returns what they made. Reports say when they were made, and of what."""
    codes = [run(command) for command in COMMANDS]
    assert codes == [0, 0, codes[2], 0]
    assert codes[2] in {0, 4, 5}
    return {name: (folder / name).read_bytes() for name in RESULTS}


@pytest.fixture
def workers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process does no shard of stages that have several, so that workers have to do all of them."""

    def idle(self: Shared, board: Board) -> Iterator[Shard]:
        assert time.monotonic() - began < 200, "the workers do nothing"
        yield from free(self, board) if len(board.shards) == 1 else ()

    began, free = time.monotonic(), Shared._free
    monkeypatch.setattr(Shared, "_free", idle)


@pytest.mark.usefixtures("workers_alone")
def test_processes_make_the_same_bytes_also_when_killed(
    before: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin(before, tmp_path / "demo")
    killed: list[int] = []

    class Killed(Processes):
        """The first worker of each step is killed as soon as it has said anything."""

        def _start(self) -> "subprocess.Popen[bytes]":
            process = super()._start()
            if not hasattr(self, "killer"):
                self.killer = threading.Thread(target=self.kill, args=(process,))
                self.killer.start()
            return process

        def kill(self, process: "subprocess.Popen[bytes]") -> None:
            while not self._log.stat().st_size and process.poll() is None:
                time.sleep(0.01)
            process.kill()
            killed.append(process.wait())

    monkeypatch.setattr(choose, "Processes", Killed)

    def run(command: Sequence[str]) -> int:
        return run_ireu(*command, *SMALL[:2], "--processes", "2", cwd=folder).code

    assert results(folder, run) == expected
    assert killed == [-signal.SIGKILL] * len(killed)
    assert len(killed) >= 3
    assert not any((folder / ".ireu" / "shards").iterdir())


def test_eight_parts_in_any_order_two_of_them_killed(before: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    folder = begin(before, tmp_path / "demo")
    draw = random.Random(3)

    def run(command: Sequence[str]) -> int:
        order = draw.sample(range(1, 9), 8)
        for number in (*order[:2], *order):
            part = (*command, *SMALL, "--json", "--shard", f"{number}/8")
            if number in order[:2]:
                process = start(folder, part)
                process.join(draw.uniform(1, 4))
                process.kill()
                process.join()
            else:
                done = run_ireu(*part, cwd=folder)
                assert done.code == 0, done.err
                assert done.json["state"] == "partial"
        return run_ireu(*command, *SMALL, cwd=folder).code

    assert results(folder, run) == expected


def test_parts_write_no_artifact(before: Path, tmp_path: Path) -> None:
    folder = begin(before, tmp_path / "demo")
    for _ in range(4):
        done = run_ireu("locate", "--shard", "1/1", "--json", cwd=folder)
        assert done.code == 0
        assert json.loads(done.out) == {"state": "partial", "shard": "1/1", "shards_left": 0}
    assert not (folder / "mask.pt").exists()
    assert run_ireu("locate", cwd=folder).code == 0


def test_a_worker_only_helps(before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = begin(before, tmp_path / "demo")
    monkeypatch.setenv(WORKER, "x")
    assert run_ireu("locate", cwd=folder).code == 0
    assert not (folder / "mask.pt").exists()
    assert list((folder / ".ireu" / "features").iterdir())


@pytest.mark.usefixtures("workers_alone")
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_ray_makes_the_same_bytes(before: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    folder = begin(before, tmp_path / "demo")

    def run(command: Sequence[str]) -> int:
        on_ray = ("--set", "run.executor=ray", "--processes", "1")
        return run_ireu(*command, *SMALL, *on_ray, cwd=folder).code

    assert results(folder, run) == expected
