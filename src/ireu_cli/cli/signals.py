"""Handle SIGTERM and SIGINT: they end a command at any moment, if possible after a checkpoint.

The main thread is interrupted, writes what it has and ends. If it does not (because it is inside a long library call,
or something swallowed the interruption), another thread ends the process; the system wakes that thread through a pipe.
"""

import atexit
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, NoReturn

CODE = 130
GRACE = 1.2
"""Seconds that the main thread has to end on its own."""
_AGAIN = 0.05
"""Seconds after which the main thread is interrupted again if it could not be the first time."""
_IMPORTER = "<frozen importlib._bootstrap>"
_MAIN = threading.main_thread().ident or 0
_HEARD = threading.Event()
_TOLD = threading.Lock()
_STATE = {"listening": False, "raised": False, "finished": False, "json": False}
_SENTENCE = "Interrupted. Run the same command again to go on."


def listen(*, as_json: bool) -> None:
    """Handle SIGTERM and SIGINT from now on; `as_json` decides what is printed on stdout at the end."""
    _STATE["json"], _STATE["listening"] = as_json, True
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    numbers = [signal.SIGTERM]
    # A background job of a script ignores SIGINT, and should.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        numbers.append(signal.SIGINT)
    threading.Thread(target=_watch, args=(reader, frozenset(numbers)), daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, _interrupt)
    # What is registered first runs last. The interpreter would take the handlers back at its very end, and a signal
    # would then kill a process whose work is done.
    atexit.register(lambda: [signal.signal(number, signal.SIG_IGN) for number in numbers])
    sys.unraisablehook = _unless_heard(sys.unraisablehook)
    threading.excepthook = _unless_heard(threading.excepthook)


def heard() -> bool:
    """Whether the command was asked to stop."""
    return _HEARD.is_set()


def check() -> None:
    """Stop here if the command was asked to stop and something swallowed the interruption.

    Raises:
        KeyboardInterrupt: the command was asked to stop.
    """
    if _STATE["raised"] and not _STATE["finished"] and threading.current_thread() is threading.main_thread():
        raise KeyboardInterrupt


def may_tell() -> bool:
    """Whether the interruption has not been reported yet; the first caller gets True and reports it."""
    return not _STATE["listening"] or _TOLD.acquire(blocking=False)


def finish() -> None:
    """The work is over: a signal no longer changes the exit code; it only limits how long the end may take."""
    _STATE["finished"] = True


def end() -> NoReturn:
    """End the process as interrupted, whatever its threads do."""
    if may_tell():
        # The reader may have stopped reading.
        telling = threading.Thread(target=_tell, daemon=True)
        telling.start()
        telling.join(0.3)
    os._exit(CODE)


def _interrupt(_signal: int, frame: FrameType | None) -> None:
    if _STATE["finished"]:
        return
    _HEARD.set()
    # A second signal, such as the one that timeout(1) sends to the group, must not disturb the way out.
    if not _STATE["raised"] and not _importing(frame):
        _STATE["raised"] = True
        raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: C++ code that imports Python ends the process if an import is interrupted."""
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTER:
            return True
        frame = frame.f_back
    return False


def _watch(reader: int, numbers: frozenset[int]) -> None:
    while not (number := min(numbers & set(os.read(reader, 64)), default=0)):
        pass
    if not _STATE["finished"]:
        _HEARD.set()
    # The thread dies with the process.
    deadline = time.monotonic() + GRACE
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, _AGAIN))
        if not _STATE["raised"] and not _STATE["finished"]:
            signal.pthread_kill(_MAIN, number)
    end()


def _tell() -> None:
    from ireu_cli.cli.output import Terminal

    Terminal(quiet=False, verbose=False).error(_SENTENCE, as_json=_STATE["json"], code=CODE)


def _unless_heard(hook: Any) -> Any:
    """Ignore failures in the background while the command ends."""

    def quiet(problem: Any) -> None:
        if not heard():
            hook(problem)

    return quiet
