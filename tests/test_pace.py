"""What long loops say while they run: seldom, with an estimate that rests on several items, and never on stdout."""

import ast
import io
import re
import sys
from pathlib import Path

import pytest

from ireu_cli.cli.output import Terminal
from ireu_cli.support.pace import Pace, span


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_estimate_rests_on_more_than_one_item() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    assert pace.left is None
    clock.now = 50  # what warms the libraries up takes long
    pace.advance(1)
    assert pace.left is None
    clock.now = 52
    pace.advance(1)
    assert pace.left is None
    clock.now = 54
    pace.advance(1)
    assert pace.left == 2 * 97
    clock.now = 60
    pace.advance(2)
    assert pace.left == 10 / 4 * 95


def test_what_was_there_already_is_not_timed() -> None:
    clock = Clock()
    pace = Pace(100, clock)
    pace.advance(0)
    pace.advance(80)
    clock.now = 30
    pace.advance(10)
    assert pace.left == 30


@pytest.mark.parametrize(
    ("seconds", "total", "expected"),
    [
        # A second each: 10 % is later than 30 s.
        (1, 1000, [100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]),
        # Ten seconds each of twenty: 30 s is later than 10 %.
        (10, 20, [3, 6, 9, 12, 15, 18]),
        # All in less than 30 s.
        (0.02, 1000, []),
        (100, 2, [1, 2]),
    ],
)
def test_a_line_is_due_after_30_seconds_or_a_tenth_whichever_is_later(
    seconds: float, total: int, expected: list[int]
) -> None:
    clock = Clock()
    pace = Pace(total, clock)
    told = []
    for number in range(1, total + 1):
        clock.now += seconds
        pace.advance(1)
        if pace.is_due():
            told.append(number)
    assert told == expected


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5300, "88 min"), (7260, "2 h 1 min")]
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert span(seconds) == words


@pytest.mark.parametrize("quiet", [False, True])
def test_without_a_terminal_lines_tell_how_far_it_is(monkeypatch: pytest.MonkeyPatch, quiet: bool) -> None:
    clock, out, err = Clock(), io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    terminal = Terminal(quiet=quiet, verbose=False, clock=clock)
    with terminal.progress("retained photos", 400) as advance:
        for _ in range(25):
            clock.now += 16
            advance(16, "")
    lines = err.getvalue().splitlines()
    assert out.getvalue() == ""
    if quiet:
        assert not lines
    else:
        assert lines[0] == "retained photos: 48 of 400, about 6 min left"
        assert lines[-1].startswith("retained photos: 384 of 400, about 16 s left")
        assert len(lines) == 8


def test_one_bar_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    clock, screen = Clock(), Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    terminal = Terminal(quiet=False, verbose=False, clock=clock)
    with terminal.progress("photos", 10) as outer, terminal.progress("reading weights", 4) as inner:
        for _ in range(4):
            clock.now += 60
            outer(1, "")
            inner(1, "")
    shown = screen.getvalue()
    assert "reading weights: 3 of 4, about 60 s left" in shown
    assert "4/10" in shown
    assert "about 6 min left" in shown


SOURCE = Path(__file__).parent.parent / "src" / "ireu_cli"


def test_loops_over_photos_pictures_and_steps_tell_how_far_they_are() -> None:
    """Whoever encodes, draws, looks, attacks, trains, gathers or writes does so below a `progress`."""
    long = {"stream", "run_jobs", "unlearn", "unlearn_block", "relearn", "write_weights"}
    told: set[str] = set()
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            calls = {
                node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                for node in ast.walk(function)
                if isinstance(node, ast.Call)
            }
            if "progress" in calls:
                told |= calls & long
    assert {"stream", "unlearn", "unlearn_block", "write_weights"} <= told
    # Everything that is encoded or looked at passes this loop.
    callers = [path for path in SOURCE.rglob("*.py") if re.search(r"(?<!def )\bstream\(", path.read_text())]
    assert callers == [SOURCE / "encodings" / "loop.py"]
