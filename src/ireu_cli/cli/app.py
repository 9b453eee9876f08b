"""`run`, the console script, and `main`, which turns every error into one sentence and one exit code.

It imports almost nothing, so that signals are handled before the rest is imported.
"""

import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from ireu_cli.cli import signals

if TYPE_CHECKING:
    from ireu_cli.cli.output import Terminal

_SPINS = "10000"
"""How often a thread of torch looks for new work before it sleeps: some microseconds instead of milliseconds.

With the default of GNU's OpenMP, threads that wait take the cores from other processes, and everybody is slower.
"""
_NEW_OBJECTS = 10_000
"""The number of new objects after which Python looks for cycles among them.

Modules, and the records of very many photos, make objects that stay. With Python's own number, looking at them again
and again takes a tenth of a command's time.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Raises:
        Exception: a bug of ireu.
    """
    gc.set_threshold(_NEW_OBJECTS)
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    from ireu_cli.cli.output import Terminal

    terminal = Terminal(quiet=False, verbose=bool({"-v", "--verbose"} & set(arguments)))
    as_json = "--json" in arguments
    try:
        from ireu_cli.cli.program import app
        from ireu_cli.support.invocation import invoked

        with invoked(arguments):
            code = app(arguments, standalone_mode=False, prog_name="ireu")
        if code == 130 or signals.heard():
            raise KeyboardInterrupt
    except SystemExit as exit_:
        # If the reader of our help or version has gone away, Typer replaces stdout and ends.
        gone = type(sys.stdout).__name__ == "PacifyFlushWrapper"
        return 0 if gone or exit_.code is None else exit_.code if isinstance(exit_.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the one place where errors become exit codes
        return _failed(error, terminal, as_json=as_json)
    return code if isinstance(code, int) else 0


def run() -> NoReturn:
    """The console script: SIGTERM counts as an interruption, like SIGINT, and ends the process in any case."""
    code, can_tell = 1, False
    # From here on a signal may interrupt any line, and the end is always the same.
    try:
        try:
            _hold_places()
            _wait_shortly()
            signals.listen(as_json="--json" in sys.argv)
            from ireu_cli.cli import streams

            streams.prepare()
            can_tell = True
            code = main()
        except BaseException:
            # This is a bug, or a signal while an error was told.
            if not signals.heard():
                if not can_tell:
                    # Our own modules cannot be imported; Python says why.
                    raise
                streams.show_traceback()
        if not signals.heard():
            code = streams.close(code)
            signals.finish()
    except BaseException:
        if not signals.heard():
            raise
    if signals.heard():
        signals.end()
    sys.exit(code)


def _hold_places() -> None:
    """Open those of stdin, stdout and stderr that are closed; otherwise the next opened file takes their place."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _wait_shortly() -> None:
    """Let torch's threads sleep soon when they wait, unless the user says how they wait."""
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        # OpenMP reads it when torch is imported.
        os.environ["GOMP_SPINCOUNT"] = _SPINS


def _failed(error: BaseException, terminal: "Terminal", *, as_json: bool) -> int:
    """Say what went wrong.

    Raises:
        BaseException: a bug.
    """
    from ireu_cli.cli.exit_codes import ExitCode, code_of
    from ireu_cli.cli.failures import causes, told_of, usage_of
    from ireu_cli.errors import InterruptedRunError, interrupted

    # Libraries that are stopped while they are imported or load a file may report another error, and then we do too.
    if signals.heard() and not isinstance(error, InterruptedRunError):
        error = interrupted()
    if (usage := usage_of(error)) is not None:
        return terminal.usage(usage, as_json=as_json, code=ExitCode.USAGE)
    if (told := told_of(error)) is None:
        if as_json:
            terminal.json_error(f"A bug of ireu ({type(error).__name__}); stderr has more", code=ExitCode.BUG)
        raise error
    code = code_of(told)
    if code is not ExitCode.INTERRUPTED or signals.may_tell():
        terminal.error(str(told), as_json=as_json, code=code)
        for line in causes(error) if terminal.verbose else ():
            terminal.note(line)
    return code
