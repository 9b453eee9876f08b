"""Whatever stdout and stderr are: closed, full, gone, ASCII. And nothing out of a file acts on a terminal."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import pytest

from ireu_cli.cli.output import Terminal
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import escaped
from tests.conftest import run_ireu

WILD = "a\x1b[2J\x1b]0;title\x07b\rc\nd\x08\x7f\x9b31m\u202egnp\u2066x\u2028y\u200fz\udcff"
"""Clears the screen, sets a title, goes back, turns the direction of reading, and is no UTF-8."""


def is_tame(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_wild_text_is_escaped_and_tame_text_is_left() -> None:
    assert escaped("Müller 🙂 [bold]x[/] 50 % – ok") == "Müller 🙂 [bold]x[/] 50 % – ok"
    assert escaped(WILD).isprintable()
    assert escaped("\x1b\n\u202e\udcfc") == r"\x1b\n\u202e\xfc"


class _Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(monkeypatch: pytest.MonkeyPatch, tell: Any, screen: io.StringIO | None = None) -> str:
    out, err = screen or io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    tell(Terminal(quiet=False, verbose=True))
    monkeypatch.undo()
    return out.getvalue() + err.getvalue()


class _Result:
    reused = True
    artifact = Path(WILD.replace("\0", ""))
    report = None


class _Criterion:
    name = generator = outcome = sense = WILD
    found, threshold = 0.5, 0.5


class _Control:
    name = generator = measure = WILD
    met, found, needed = False, 0.5, 1.0


class _Departure:
    key = words = usual = source = effect = WILD


class _Report:
    outcome = reason = standing = summary = WILD
    next_steps = (WILD,)
    departures = (_Departure(),)
    controls = (_Control(),)
    criteria = (_Criterion(),)
    not_measured = (WILD,)


WAYS = {
    "note": lambda terminal: terminal.note(WILD),
    "error": lambda terminal: terminal.error(WILD, as_json=False, code=3),
    "error in JSON": lambda terminal: terminal.error(WILD, as_json=True, code=3),
    "usage": lambda terminal: terminal.usage(WILD, as_json=True, code=2),
    "card": lambda terminal: terminal.card({WILD: WILD, "taps": {WILD: [WILD]}}, as_json=False),
    "card in JSON": lambda terminal: terminal.card({WILD: WILD}, as_json=True),
    "systems": lambda terminal: terminal.systems(
        [
            {"system": WILD, "within_reach": WILD, "title": WILD, "reads": [{"what": WILD}], "enters": ""},
            {"system": WILD, "within_reach": WILD, "title": WILD, "reads": [], "enters": WILD},
        ],
        as_json=False,
    ),
    "systems in JSON": lambda terminal: terminal.systems([{"system": WILD}], as_json=True),
    "report": lambda terminal: terminal.report(cast(Any, _Report())),
    "result on a terminal": lambda terminal: terminal.result(cast(Any, _Result()), as_json=False),
    "path on a terminal": lambda terminal: terminal.path(Path(WILD)),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_out_acts_on_a_terminal(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    text = said(monkeypatch, WAYS[way], _Screen())
    assert "title" in text
    assert is_tame(text), text


def test_a_path_for_a_script_is_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    assert said(monkeypatch, lambda terminal: terminal.path(Path("a\x1bb"))) == "a\x1bb\n"


def test_a_bar_shows_words_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = _Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    with Terminal(quiet=False, verbose=False).progress("[red]photos\x1b[2J", 3) as advance:
        advance(1, "[bold]name\x1b]0;title\x07\u202e")
    shown = screen.getvalue()
    assert "[red]photos" in shown
    assert "[bold]name" in shown
    assert "\x1b[2J" not in shown
    assert "\x1b]0;" not in shown
    assert "\u202e" not in shown


def test_a_line_of_progress_is_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    err = io.StringIO()
    monkeypatch.setattr(sys, "stderr", err)
    moments = iter(range(0, 10_000, 40))
    terminal = Terminal(quiet=False, verbose=False, clock=lambda: float(next(moments)))
    with terminal.progress(WILD, 2) as advance:
        advance(1, WILD)
    assert "title" in err.getvalue()
    assert is_tame(err.getvalue())


LIBRARY = """
import sys, warnings, logging
from ireu_cli.cli import app
from ireu_cli.locating import run
WILD = {wild!r}
def tell(*_arguments, **_more):
    warnings.warn(WILD)
    logging.getLogger("library").warning("%s", WILD)
    raise {kind}(WILD)
run.run_locate = tell
sys.argv = ["ireu", "locate", "-v", "--json"]
app.run()
"""


@pytest.mark.parametrize("kind", ["RuntimeError", "OSError", "ModuleNotFoundError", "KeyError"])
def test_libraries_say_nothing_wild_either(kind: str, tmp_path: Path) -> None:
    """Warnings, logs, exceptions that we do not expect, and their causes."""
    script = LIBRARY.format(wild=WILD, kind=kind)
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=False)
    text = (done.stdout + done.stderr).decode()
    assert text.count("title") >= 3
    assert is_tame(text), text
    assert json.loads(done.stdout)["exit_code"] == done.returncode


def test_names_on_the_command_line_are_cleaned(tmp_path: Path) -> None:
    for arguments in (
        ["unlearn", "--mask", WILD],
        ["inspect", WILD],
        ["locate", f"--{WILD}"],
        [WILD],
        ["locate", "--set", WILD],
        ["locate", "--set", f"{WILD}=1"],
        ["locate", "--config", WILD],
        ["locate", "--targets", WILD],
        ["locate", "-o", f"/proc/{WILD}"],
        ["locate", "--max-photos", WILD],
        ["samples", f"/proc/{WILD}"],
    ):
        for more in ([], ["--json"]):
            if more and arguments[0] not in {"locate", "unlearn", "inspect"}:
                continue
            found = run_ireu(*arguments, *more, cwd=tmp_path)
            assert found.code in {2, 3}, found.err
            assert is_tame(found.err), found.err
            assert is_tame(found.out), found.out


IREU = (sys.executable, "-m", "ireu_cli")


def shell(command: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        ["bash", "-c", command.replace("ireu ", " ".join(IREU) + " ")],
        cwd=cwd, capture_output=True, check=False, env={**os.environ, **variables},
    )  # fmt: skip
    assert b"Traceback" not in done.stderr, done.stderr
    assert b"Exception ignored" not in done.stderr, done.stderr
    return done


@pytest.mark.parametrize("command", ["--help", "--version", "inspect --systems", "inspect --systems --json"])
def test_a_reader_may_go_away_and_a_disk_be_full(command: str, tmp_path: Path) -> None:
    for unbuffered in ("", "1"):
        gone = shell(f"ireu {command} | true; exit ${{PIPESTATUS[0]}}", tmp_path, PYTHONUNBUFFERED=unbuffered)
        assert (gone.returncode, gone.stderr) == (0, b"")
        full = shell(f"ireu {command} > /dev/full", tmp_path, PYTHONUNBUFFERED=unbuffered)
        assert full.returncode == 3
        assert b"No space left" in full.stderr
        assert full.stderr.count(b"\n") == 1


def test_streams_may_be_closed(tmp_path: Path) -> None:
    assert shell("ireu --version >&-", tmp_path).returncode == 0
    closed = shell("ireu samples s 2>&-", tmp_path)
    assert (closed.returncode, closed.stdout) == (0, b"s\n")
    quiet = shell("ireu locate --json --mask-is-no-flag 2>&-", tmp_path)
    assert json.loads(quiet.stdout)["exit_code"] == 2
    nothing = shell("ireu samples t <&- >&- 2>&-", tmp_path)
    assert nothing.returncode == 0
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["faces", "ireu.toml", "others"]
    # Nothing that was said went into a file that took the place of a closed stream.
    assert {path.suffix for path in (tmp_path / "t").rglob("*") if path.is_file()} == {".jpg", ".toml"}
    assert shell("ireu samples u 2>/dev/full", tmp_path).stdout == b"u\n"


@pytest.mark.parametrize(
    "variables",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"PYTHONIOENCODING": "utf-16"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_stream_of_another_encoding_still_gets_the_path(variables: dict[str, str], tmp_path: Path) -> None:
    for name in ("ü-🙂".encode(), b"M\xfcller"):
        done = subprocess.run([*IREU, "samples", name], cwd=tmp_path, capture_output=True, env=os.environ | variables)
        assert done.returncode == 0, done.stderr
        assert (Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))).exists()
        if variables.get("PYTHONIOENCODING", "ascii") == "ascii":
            assert done.stdout == name + b"\n"
        again = subprocess.run([*IREU, "samples", name], cwd=tmp_path, capture_output=True, env=os.environ | variables)
        assert again.returncode == 3, again.stderr
        assert b"Traceback" not in again.stderr


def test_warnings_of_libraries_reach_stderr_only(capsys: pytest.CaptureFixture[str]) -> None:
    from ireu_cli.cli import streams

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        before, factory = warnings.showwarning, logging.getLogRecordFactory()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as err:
                streams.prepare()
                warnings.warn("odd \x1b[2J", stacklevel=1)
        finally:
            warnings.showwarning = before
            logging.setLogRecordFactory(factory)
    assert "UserWarning: odd \\x1b[2J" in err.getvalue()
    assert str(ModelError("a", "b")) == "a. b."
