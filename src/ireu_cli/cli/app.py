"""The Typer application, and `main`, which turns our errors into one sentence and one exit code."""

import io
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from ireu_cli import __version__
from ireu_cli.cli import commands
from ireu_cli.cli.exit_codes import ExitCode, code_of
from ireu_cli.cli.output import Terminal
from ireu_cli.errors import InterruptedRunError, IreuError, interrupted

# Rich help is switched off: it would triple the time of `--help`, and tracebacks with locals would print face data.
app = typer.Typer(
    name="ireu",
    help="Make image generators unable to draw a particular person, by editing their image encoder.",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _command in (
    commands.inspect,
    commands.locate,
    commands.unlearn,
    commands.verify,
    commands.export,
    commands.samples,
):
    app.command()(_command)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"ireu {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Make image generators unable to draw a particular person, by editing their image encoder."""


_STOPPED = threading.Event()
"""Set by a signal that asks to stop."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    as_json = "--json" in arguments
    terminal = Terminal(quiet=False, verbose=False)
    try:
        app(arguments, standalone_mode=True, prog_name="ireu")
    except SystemExit as exit_:
        code = int(exit_.code or 0)
        if as_json and code == ExitCode.USAGE:
            terminal.json_error("The command line cannot be read; stderr says why", code=code)
        return code
    except Exception as error:
        # Libraries that are stopped while they are imported or load a file tell of something else, and so do we then.
        if _STOPPED.is_set() and not isinstance(error, InterruptedRunError):
            error = interrupted()
        if not isinstance(error, IreuError):
            raise
        code = code_of(error)
        terminal.error(str(error), as_json=as_json, code=code)
        return code
    return ExitCode.DONE


def run() -> None:
    """The console script: SIGTERM counts as an interruption as SIGINT does, so that checkpoints are written."""
    signal.signal(signal.SIGTERM, _interrupt)
    # A job in the background of a script does not hear SIGINT, and should not.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    for stream in (sys.stdout, sys.stderr):
        # File names need not be text; printing one must not fail.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    sys.exit(main())


def _interrupt(_signal: int, _frame: Any) -> None:
    _STOPPED.set()
    raise KeyboardInterrupt
