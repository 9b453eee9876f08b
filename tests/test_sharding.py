"""Shared work: whoever does which shard, in whatever order, after whatever accident, the bytes are the same."""

import contextlib
import importlib.util
import io
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
import safetensors.torch
import torch

from ireu_cli.errors import ArtifactError, ConfigError, PartDoneError, WorkerDoneError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.read import PhotoReader
from ireu_cli.params import RunParams
from ireu_cli.sharding import choose
from ireu_cli.sharding.board import Board
from ireu_cli.sharding.choose import executor_for
from ireu_cli.sharding.claims import Claims
from ireu_cli.sharding.executor import Alone, Executor, Outcome, Positions, Shard, Stage, cut
from ireu_cli.sharding.processes import WORKER, Processes
from ireu_cli.sharding.shared import Fixed, Shared
from ireu_cli.values import Photo, RgbImage
from tests.conftest import run_ireu
from tests.test_kill import start

COMMANDS: tuple[tuple[str, ...], ...] = (
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


@pytest.mark.parametrize(
    ("count", "size", "head", "ends"),
    [(7, 3, 0, [3, 6, 7]), (7, 3, 1, [1, 4, 7]), (2, 3, 2, [2]), (2, 3, 3, [2]), (0, 3, 1, [])],
)
def test_shards_follow_each_other(count: int, size: int, head: int, ends: list[int]) -> None:
    shards = cut(count, size, head)
    assert [shard.end for shard in shards] == ends
    assert [shard.first for shard in shards] == [0, *ends][: len(ends)]
    assert [shard.number for shard in shards] == list(range(len(ends)))


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
    (damaged,) = (tmp_path / "s").rglob("000002-*.tensors")
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
            part.go(shared(tmp_path / "s", fixed=Fixed(index, 3, 0)), stage(30, name="0" * 64))
        did.append((part.did, left.value.left))
    assert did == [([2, 5, 8], 7), ([0, 3, 6, 9], 3)]
    again = Sums(30)
    with pytest.raises(PartDoneError):
        again.go(shared(tmp_path / "s", fixed=Fixed(0, 3, 0)), stage(30, name="0" * 64))
    assert not again.did
    last, alone = Sums(30), Sums(30)
    last.go(shared(tmp_path / "s", fixed=Fixed(1, 3, 0)), stage(30, name="0" * 64))
    alone.go(Alone(), stage(30, name="0" * 64))
    assert last.total == alone.total


def test_stages_of_one_shard_fall_to_different_parts(tmp_path: Path) -> None:
    found = []
    for name in "0123456789abcdef":
        part = Sums(1)
        with contextlib.suppress(PartDoneError):
            part.go(shared(tmp_path / "s", fixed=Fixed(0, 4, 0)), stage(1, name=name * 64))
        found.append(bool(part.did))
    assert 0 < sum(found) < len(found)


def test_a_worker_leaves_before_it_would_write(tmp_path: Path) -> None:
    with pytest.raises(WorkerDoneError):
        Shared(tmp_path, is_worker=True, stale=1).leave()
    shared(tmp_path).leave()
    Alone().leave()


def test_workers_need_a_command_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="command line"):
        executor_for(RunParams(processes=2), tmp_path / "s", print)


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

    def idle(self: Shared, board: Board, stage: Stage) -> Iterator[Shard]:
        assert time.monotonic() - began < 200, "the workers do nothing"
        yield from free(self, board, stage) if len(board.shards) == 1 else ()

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
        return run_ireu(*command, *SMALL[:2], "--set", "run.processes=2", cwd=folder).code

    assert results(folder, run) == expected
    assert killed == [-signal.SIGKILL] * len(killed)
    assert len(killed) >= 3
    assert not any((folder / ".ireu" / "shards").iterdir())


def test_eight_parts_in_any_order_two_of_them_killed(before: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    folder = begin(before, tmp_path / "demo")
    draw = random.Random(3)

    def run(command: Sequence[str]) -> int:
        order = draw.sample(range(1, 9), 8)
        for number in (*order[:2], *order) if command[0] != "export" else ():
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


def test_when_all_parts_are_done_nothing_is_left_to_encode(
    before: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin(before, tmp_path / "demo")
    left = [1]
    while left:
        parts = [run_ireu("locate", *SMALL, "--json", "--shard", f"{number}/3", cwd=folder) for number in (2, 3, 1)]
        left = [part.json["shards_left"] for part in parts if part.json["shards_left"]]

    def nothing(_self: Shared, board: Board, _stage: Stage) -> Iterator[Shard]:
        assert board.done() == {shard.number for shard in board.shards}
        yield from ()

    monkeypatch.setattr(Shared, "_free", nothing)
    assert run_ireu("locate", *SMALL, cwd=folder).code == 0
    assert (folder / "mask.pt").read_bytes() == expected["mask.pt"]


@pytest.mark.parametrize("accident", ["removed", "damaged"])
def test_features_that_others_made_and_somebody_removed_are_made_again(
    before: Path, expected: dict[str, bytes], tmp_path: Path, accident: str
) -> None:
    folder = begin(before, tmp_path / "demo")
    for number in (1, 2, 1, 2):
        run_ireu("locate", *SMALL, "--shard", f"{number}/2", cwd=folder)
    features = folder / ".ireu" / "features"
    if accident == "removed":
        shutil.rmtree(features)
    else:
        for path in features.rglob("*.safetensors"):
            path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    done = run_ireu("locate", *SMALL, cwd=folder)
    assert done.code == 0, done.err
    assert (folder / "mask.pt").read_bytes() == expected["mask.pt"]


def test_photos_that_another_process_could_not_read_are_tried_again(
    before: Path, expected: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin(before, tmp_path / "demo")

    def broken(self: PhotoReader, photo: Photo) -> RgbImage:
        if photo.person % 7 == 3:
            raise BadPhotoError("cannot be opened (Input/output error)")
        return image(self, photo)

    image = PhotoReader.image
    commands = (("locate", *SMALL), (*COMMANDS[1], *SMALL))
    for command in commands:
        with monkeypatch.context() as patch:
            patch.setattr(PhotoReader, "image", broken)
            for _ in range(4):
                run_ireu(*command, "--shard", "1/1", "--bad-photos", "skip", cwd=folder)
        assert run_ireu(*command, "--bad-photos", "skip", cwd=folder).code == 0
    for name in ("mask.pt", "delta.safetensors"):
        assert_same_tensors(folder / name, expected[name])


def assert_same_tensors(path: Path, expected: bytes) -> None:
    if path.suffix == ".pt":
        ours, theirs = torch.load(path, weights_only=True), torch.load(io.BytesIO(expected), weights_only=True)
    else:
        ours, theirs = safetensors.torch.load(path.read_bytes()), safetensors.torch.load(expected)
    assert ours.keys() == theirs.keys()
    # Cases are named after the identity of the run, which another setting changes.
    for name in ours.keys() - {"ledger.cases"}:
        tensor = ours[name]
        assert not isinstance(tensor, torch.Tensor) or torch.equal(tensor, theirs[name]), name


def test_what_is_not_shared_is_left_to_the_driver(
    before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin(before, tmp_path / "demo")
    assert run_ireu("locate", cwd=folder).code == 0
    monkeypatch.setenv(WORKER, "x")
    training = ("--method", "ireu", "--steps", "5", "--set", "run.checkpoint_seconds=0")
    assert run_ireu("unlearn", "--mask", "mask.pt", *training, cwd=folder).code == 0
    assert not any((folder / ".ireu" / "running").glob("*/checkpoint.safetensors"))


def test_a_stage_of_an_earlier_plan_is_not_taken_for_this_one(tmp_path: Path) -> None:
    late = Board(tmp_path / "s" / ("a" * 32), stage(12))
    shutil.rmtree(tmp_path / "s")
    late.finish(late.shards[0], Outcome({}, {"sum": torch.tensor(1e9)}))
    fresh, alone = Sums(12), Sums(12)
    fresh.go(shared(tmp_path / "s"), Stage(lambda: "a" * 64, np.arange(12)[::-1].copy(), 3))
    alone.go(Alone(), Stage(lambda: "", np.arange(12)[::-1].copy(), 3))
    assert fresh.total == alone.total


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
        on_ray = ("--set", "run.executor=ray", "--set", "run.processes=1")
        return run_ireu(*command, *SMALL, *on_ray, cwd=folder).code

    assert results(folder, run) == expected
