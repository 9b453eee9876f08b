"""A command that is asked to stop ends soon, with 130 and one sentence, whatever it is doing."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ireu_cli.cli import signals
from ireu_cli.cli.output import Terminal

SOON = 2.0
"""Seconds in which a command ends."""
SLACK = 1.5
"""What a busy machine may add."""

# What a command may be doing. `ready()` tells the test that it has begun.
BUSY = {
    "a long call of a library": """
import torch
matrix = torch.rand(9000, 9000)
torch.set_num_threads(1)
ready()
torch.linalg.svd(matrix)
""",
    "a call of a library that never returns": """
import ctypes
libc = ctypes.CDLL(None)
mutex = ctypes.create_string_buffer(64)
libc.pthread_mutex_lock(mutex)
ready()
# Goes on when a signal comes, and never returns.
libc.pthread_mutex_lock(mutex)
""",
    "something that swallows interruptions": """
ready()
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
""",
    "an import that swallows interruptions": """
import types
ready()
try:
    time.sleep(60)
except BaseException:
    raise ImportError("cannot load module more than once per process") from None
""",
    "a loop that goes on after a swallowed interruption": """
from ireu_cli.cli.output import Terminal
with Terminal(quiet=True, verbose=False).progress("photos", 10**6) as advance:
    ready()
    try:
        time.sleep(60)
    except BaseException:
        pass
    while True:
        advance(1, "")
        time.sleep(0.01)
""",
    "waiting for a lock": """
import threading
lock = threading.Lock()
lock.acquire()
ready()
lock.acquire()
""",
    "waiting for a lock of the system": """
import fcntl, os, subprocess
with open("lock", "w") as file:
    child = subprocess.Popen([sys.executable, "-c",
        "import fcntl, time; f = open('lock', 'w'); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); time.sleep(10)"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    child.stdout.readline()
    ready()
    fcntl.flock(file, fcntl.LOCK_EX)
""",
    "a child process": """
import subprocess
ready()
subprocess.run(["sleep", "60"])
""",
    "threads that work": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(2) as threads:
    ready()
    list(threads.map(time.sleep, [60, 60]))
""",
    "something that cannot be cleaned up": """
class Stuck:
    def __del__(self):
        time.sleep(60)
def inside():
    stuck = Stuck()
    ready()
    time.sleep(60)
inside()
""",
    "a destructor": """
class Slow:
    def __del__(self):
        ready()
        time.sleep(60)
slow = Slow()
del slow
time.sleep(60)
""",
}

SCRIPT = """
import sys, time
from ireu_cli.cli import app

def ready():
    open("ready", "w").close()

def busy(*_arguments, **_more):
    {body}

import types
sys.modules["ireu_cli.locating.run"] = types.SimpleNamespace(run_locate=busy)
sys.argv = ["ireu", "locate", "--json", "--set", "seed=1"]
app.run()
"""


def hear() -> None:
    """A test runner in the background may have inherited an ignored SIGINT; a user's shell has not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(command: list[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def assert_stopped(process: subprocess.Popen[str], number: int) -> str:
    """Send the signal: it ends in time, says one sentence and leaves one object; returns stderr."""
    sent = time.monotonic()
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    took = time.monotonic() - sent
    assert process.returncode == 130, err
    assert took < SOON + SLACK
    assert "Traceback" not in err
    assert "Exception ignored" not in err
    assert [line for line in err.splitlines() if line.startswith("ireu: ")] == [
        "ireu: Interrupted. Run the same command again to go on."
    ]
    assert json.loads(out) == {"error": "Interrupted. Run the same command again to go on.", "exit_code": 130}
    return err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("what", BUSY)
def test_a_signal_ends_whatever_goes_on(what: str, number: int, tmp_path: Path) -> None:
    script = SCRIPT.format(body=BUSY[what].replace("\n", "\n    "))
    with start([sys.executable, "-c", script], tmp_path) as process:
        wait_for(tmp_path / "ready")
        time.sleep(0.1)
        assert_stopped(process, number)


def test_a_swallowed_interruption_is_raised_again_between_two_items(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that what a loop does on its way out, such as a checkpoint, is done."""
    with Terminal(quiet=True, verbose=False).progress("photos", 3) as advance:
        advance(1, "")
        monkeypatch.setitem(signals._STATE, "finished", False)
        monkeypatch.setitem(signals._STATE, "raised", True)
        with pytest.raises(KeyboardInterrupt):
            advance(1, "")


def test_an_import_is_not_interrupted(tmp_path: Path) -> None:
    """Libraries in C++ that import Python abort where that fails; what comes after the import is interrupted."""
    (tmp_path / "heavy.py").write_text(
        """
import time
open("ready", "w").close()
time.sleep(0.5)
open("imported", "w").close()
"""
    )
    body = """
    sys.path.insert(0, ".")
    try:
        import heavy
        time.sleep(60)
    finally:
        open("way out", "w").close()
"""
    with start([sys.executable, "-c", SCRIPT.format(body=body)], tmp_path) as process:
        wait_for(tmp_path / "ready")
        time.sleep(0.1)
        assert_stopped(process, signal.SIGTERM)
    assert (tmp_path / "imported").exists()
    assert (tmp_path / "way out").exists()


def test_several_signals_are_one(tmp_path: Path) -> None:
    """As timeout(1) sends them; the way out is not disturbed."""
    body = """
    try:
        ready()
        time.sleep(60)
    finally:
        time.sleep(0.4)
        open("checkpoint", "w").close()
"""
    with start([sys.executable, "-c", SCRIPT.format(body=body)], tmp_path) as process:
        wait_for(tmp_path / "ready")
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.05)
        assert_stopped(process, signal.SIGINT)
    assert (tmp_path / "checkpoint").exists()


def test_a_reader_that_stopped_reading_holds_nothing_up(tmp_path: Path) -> None:
    body = """
    from ireu_cli.cli.output import emit
    ready()
    emit("x" * 10_000_000)
"""
    with start([sys.executable, "-c", SCRIPT.format(body=body)], tmp_path) as process:
        wait_for(tmp_path / "ready")
        time.sleep(0.3)
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - sent < SOON + SLACK


def test_a_result_that_is_there_keeps_its_code(tmp_path: Path) -> None:
    """The work is done and told; what remains is Python's own end."""
    script = """
import atexit, sys, time
from ireu_cli.cli import app, streams
def last():
    open("ready", "w").close()
    time.sleep({seconds})
prepare = streams.prepare
# As libraries do: after signals are heard.
streams.prepare = lambda: (atexit.register(last), prepare())
sys.argv = ["ireu", "--version"]
app.run()
"""
    for seconds, code in ((0.5, 0), (60, 130)):
        (tmp_path / "ready").unlink(missing_ok=True)
        with start([sys.executable, "-c", script.format(seconds=seconds)], tmp_path) as process:
            wait_for(tmp_path / "ready")
            sent = time.monotonic()
            process.send_signal(signal.SIGTERM)
            _, err = process.communicate(timeout=30)
            assert process.returncode == code, err
            assert time.monotonic() - sent < SOON + SLACK
            assert "Traceback" not in err


COMMANDS = {
    "inspect": (["inspect", "encoder", "--json"], 0),
    "samples": (["samples", "s", "--force"], 0),
    "locate": (["locate", "-o", "a.pt", "--force"], 0),
    "unlearn": (["unlearn", "--mask", "mask.pt", "--steps", "100000", "-o", "a.safetensors"], 0),
    # The small delta of the fixture erases nobody.
    "verify": (["verify", "--delta", "delta.safetensors", "-o", "a", "--force"], 4),
    "export": (["export", "--delta", "delta.safetensors", "-o", "b", "--force", "--allow-failed"], 0),
}
"""The arguments, and the exit code of a run that nothing stops."""
MOMENTS = (0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.6, 0.8, 1, 1.3, 1.6, 2, 2.5, 3, 3.5, 4, 5, 6, 8)
"""Seconds after which a command is told to end."""


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_ends_at_any_moment(command: str, fresh: Path) -> None:
    """From the first line of ours on; before it, the system ends the process itself, which shells show as 143.

    Every command gets half of the moments, its neighbour the other half. `benchmarks/kill_matrix.py` has more of them.
    """
    arguments, code = COMMANDS[command]
    for after in MOMENTS[list(COMMANDS).index(command) % 2 :: 2]:
        process = start([sys.executable, "-m", "ireu_cli", *arguments], fresh)
        time.sleep(after)
        sent = time.monotonic()
        running = process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
        assert time.monotonic() - sent < SOON + SLACK, f"after {after} s"
        assert process.returncode in {130, -signal.SIGTERM, *((code,) if not running or after > 0.5 else ())}, err
        assert process.returncode != -signal.SIGTERM or after < 1.5, "the handler should be there by now"
        assert "Traceback" not in err, f"after {after} s"
        if not running:
            return


def test_the_handler_is_there_before_anything_heavy(tmp_path: Path) -> None:
    script = "import sys; from ireu_cli.cli import app; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    assert not {"typer", "pydantic", "torch", "numpy", "rich", "json"} & set(done.stdout.split())
