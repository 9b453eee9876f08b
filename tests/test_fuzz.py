"""A small, fixed part of what `scripts/fuzz.py` does at size; and that it finds what it looks for."""

import contextlib
import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ireu_cli.encoders.clip import Encoder
from ireu_cli.errors import UserError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.manifest import parse_manifest
from tests.fuzzing import drive, mutate, readers, watch
from tests.fuzzing.kinds import KINDS
from tests.fuzzing.seeds import write_seeds

SEED = 11
INPUTS = 30
"""Of each kind, for those that get the usual share of a whole run."""
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_seeds(tmp_path_factory.mktemp("fuzz") / "sound")


@pytest.fixture
def bench(sound: Path, tmp_path: Path) -> Iterator[Callable[[str], drive.Bench]]:
    made: list[drive.Bench] = []

    def make(name: str) -> drive.Bench:
        made.append(drive.Bench(name, sound, tmp_path / "work"))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("name", list(KINDS))
def test_whatever_comes_is_read_or_refused(bench: Callable[[str], drive.Bench], name: str) -> None:
    one = bench(name)
    found = [one.examine(SEED, number) for number in range(max(8, int(INPUTS * min(KINDS[name].share, 2))))]
    assert [outcome for outcome in found if outcome.state == "failure"] == []
    assert any(outcome.state != "same" for outcome in found), "nothing of it was noticed"


class TestFailuresAreFound:
    """Each is a reader that does what none may do."""

    def examined(self, bench: Callable[[str], drive.Bench], read: Callable[[Path], Any], **more: Any) -> drive.Outcome:
        one = self.one = getattr(self, "one", None) or bench("settings")
        one.kind = replace(one.kind, read=read, **more)
        return one.examine(SEED, 0)

    @pytest.mark.parametrize(
        ("error", "words"),
        [
            (ValueError("bug"), "ValueError: bug"),
            (RecursionError(), "RecursionError"),
            (MemoryError(), "MemoryError"),
            (OSError(36, "File name too long"), "OSError"),
            (UserWarning("odd"), "UserWarning"),
            (UserError("x" * 6000, "y"), "an error of 60"),
            (UserError("", ""), "no fact"),
        ],
    )
    def test_errors_that_are_not_ours(self, bench: Callable[[str], drive.Bench], error: Exception, words: str) -> None:
        def read(_path: Path) -> None:
            if isinstance(error, Warning):
                warnings.warn(error, stacklevel=1)
            raise error

        found = self.examined(bench, read)
        assert found.state == "failure"
        assert words in found.why

    @pytest.mark.parametrize("error", [UserError("A fact", "A remedy"), BadPhotoError("is odd")])
    def test_errors_of_ours_are_none(self, bench: Callable[[str], drive.Bench], error: Exception) -> None:
        def read(_path: Path) -> None:
            raise error

        assert self.examined(bench, read).state == "refused"

    def test_lack_of_memory_behind_an_error_of_ours(self, bench: Callable[[str], drive.Bench]) -> None:
        def read(_path: Path) -> None:
            try:
                raise MemoryError
            except MemoryError:
                raise UserError("A fact", "A remedy") from None

        assert "too much memory" in self.examined(bench, read).why

    def test_files_elsewhere(self, bench: Callable[[str], drive.Bench], tmp_path: Path) -> None:
        secret = tmp_path / "work" / "outside" / "secret"
        assert "outside" in self.examined(bench, lambda _path: secret.read_bytes()).why
        assert "outside" in self.examined(bench, lambda path: (path.parent / mutate.OUTSIDE).write_text("x")).why

    def test_files_that_are_changed(self, bench: Callable[[str], drive.Bench]) -> None:
        assert self.examined(bench, lambda path: path.write_text("x")).why == "files were changed"
        assert self.examined(bench, lambda path: (path.parent / "new").touch()).why == "files were changed"

    def test_programs(self, bench: Callable[[str], drive.Bench]) -> None:
        found = self.examined(bench, lambda _path: subprocess.run([sys.executable, "-V"], check=False))
        assert "subprocess.Popen" in found.why

    def test_a_hang(self, bench: Callable[[str], drive.Bench], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(watch, "SECONDS", 0.2)

        def read(_path: Path) -> None:
            while True:
                # No reader may take it for damage.
                with contextlib.suppress(Exception):
                    sum(range(1000))

        assert "LateError" in self.examined(bench, read).why

    def test_what_is_accepted_and_may_not_be(self, bench: Callable[[str], drive.Bench]) -> None:
        found = self.examined(bench, lambda _path: "x", wrong=lambda _before, after: f"{after} is accepted")
        assert found.why == "x is accepted"


@pytest.mark.parametrize("name", ["mask, recorded", "record of a delta", "record of a delta, resealed", "config"])
def test_wrong_acceptance_is_found(
    bench: Callable[[str], drive.Bench], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the check that refuses them, changed files are accepted, and the kind calls that a failure."""
    if name == "config":
        monkeypatch.setattr(Encoder, "settings", "one and the same")
    one = bench(name)
    monkeypatch.setattr(readers, "refuse_strange", lambda *_: None)
    monkeypatch.setattr(readers, "read_manifest", lambda path: parse_manifest(path.read_bytes(), path.name))
    if name == "record of a delta":
        one.kind = replace(one.kind, read=lambda path: path.read_bytes())
    assert any(one.examine(SEED, number).state == "failure" for number in range(300))


def test_children_that_die_are_replaced(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sane, whole = KINDS["settings"].read, (sound / "texts" / "ireu.toml").read_bytes()

    def read(path: Path) -> Any:
        data = path.read_bytes()
        if data != whole and len(data) % 2:
            os._exit(7)
        return sane(path)

    monkeypatch.setitem(KINDS, "settings", replace(KINDS["settings"], read=read))
    found = list(drive.run("settings", sound, tmp_path, SEED, 25))
    assert [outcome.number for outcome in found] == list(range(25))
    died = [outcome for outcome in found if outcome.state == "failure"]
    assert died
    assert all(outcome.why == "the process died (7)" for outcome in died)


def test_the_memory_of_children_is_bounded(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = (sound / "texts" / "ireu.toml").read_bytes()

    def read(path: Path) -> int:
        return len(bytes(3 << 30)) if path.read_bytes() != whole else 0

    monkeypatch.setitem(KINDS, "settings", replace(KINDS["settings"], read=read))
    assert [outcome.why[:11] for outcome in drive.run("settings", sound, tmp_path, SEED, 2)] == ["MemoryError"] * 2


def test_the_same_seed_changes_the_same_bytes(bench: Callable[[str], drive.Bench]) -> None:
    one = bench("photo")
    assert [one.changed(3, number) for number in range(20)] == [one.changed(3, number) for number in range(20)]
    assert one.changed(3, 0) != one.changed(4, 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(told=st.dictionaries(st.text(max_size=5), JSON, min_size=1, max_size=4), seed=st.integers(0, 2**32))
def test_any_tree_can_be_changed_and_stays_as_it_was(told: dict[str, Any], seed: int) -> None:
    before = repr(told)
    data = mutate.text_of(told)
    for number in range(5):
        mutate.tree_of(told, random.Random(seed + number))
        assert isinstance(mutate.json_of(data, random.Random(seed + number)), bytes)
    assert repr(told) == before
