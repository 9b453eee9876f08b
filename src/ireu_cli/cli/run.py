"""The frame of every step: turn flags into a configuration, and the result into words and an exit code.

Heavy modules are imported inside the functions.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ireu_cli.cli.arguments import Asked
from ireu_cli.cli.exit_codes import OUTCOMES, ExitCode
from ireu_cli.cli.failures import refused
from ireu_cli.cli.options import settings_in
from ireu_cli.cli.output import Terminal
from ireu_cli.errors import PartDoneError, UsageError, UserError, WorkerDoneError, interrupted

if TYPE_CHECKING:
    from ireu_cli.config import Resolved
    from ireu_cli.opening import StepResult


@dataclass(frozen=True)
class Job:
    """A step that is about to run: its resolved configuration, its way to talk, and the path of its output."""

    resolved: "Resolved"
    terminal: Terminal
    out: Path


def run_step(
    asked: Asked,
    step: Callable[[Job], "StepResult"],
    *,
    inputs: Sequence[Path | None] = (),
    needed: Sequence[str] = (),
    check: Callable[[], None] | None = None,
) -> None:
    """Resolve the configuration, run the step, print the result; `verify` exits with its outcome's code.

    Args:
        asked: the flags.
        step: runs it; imports the heavy modules.
        inputs: files that it reads, none of which may be its output.
        needed: keys of folders that must exist; folders named by a flag always must.
        check: refuses flags that do not fit together, before anything is read.

    Raises:
        IreuError: for `main` to report.
    """
    from ireu_cli.config import settings_file

    here = working_folder()
    out = output_place(asked.out, (*inputs, settings_file(asked.config, os.environ)))
    if check is not None:
        check()
    terminal = Terminal(quiet=asked.quiet, verbose=asked.verbose)
    resolved = _resolved(asked, terminal, here, needed)
    from ireu_cli.sharding.choose import workers_ended

    try:
        with workers_ended():
            result = step(Job(resolved, terminal, out))
    except PartDoneError as part:
        terminal.part(resolved.config.run.shard or "", part.left, as_json=asked.as_json)
        return
    except WorkerDoneError:
        if resolved.config.run.shard is not None:
            terminal.part(resolved.config.run.shard, 0, as_json=asked.as_json)
        return
    except OSError as error:
        raise refused(error, _private_name(error, resolved, verbose=asked.verbose)) from error
    except KeyboardInterrupt:
        raise interrupted() from None
    if result.report is not None:
        terminal.report(result.report)
    terminal.result(result, as_json=asked.as_json)
    code = OUTCOMES[result.report.outcome] if result.report else ExitCode.DONE
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def output_place(out: Path, read: Sequence[Path | None]) -> Path:
    """The path of an output, without dots.

    Args:
        out: the path as it was given.
        read: files that are read, none of which may be the output.

    Raises:
        UsageError: it does not end in a name, or is one of those files.
    """
    out = Path(os.path.normpath(out))
    if not out.name:
        raise UsageError(f"The output {out} does not end in a name", "Name a file or folder with --out")
    if any(given is not None and out.absolute() == given.absolute() for given in read):
        raise UsageError(f"The output {out} is also an input", "Name another file with --out")
    return out


def _resolved(asked: Asked, terminal: Terminal, here: Path, needed: Sequence[str]) -> "Resolved":
    from ireu_cli.config import load_config, refuse_missing

    resolved = load_config(asked.config, os.environ, parse_sets(asked.set_ or []) | settings_in(asked))
    terminal.sources(resolved)
    if resolved.passed_over:
        terminal.note(f"These variables are not settings of ireu and are ignored: {', '.join(resolved.passed_over)}")
    # Later steps take settings that they do not state from their input.
    folders = ("data.targets", "data.retain")
    refuse_missing(resolved, [key for key in folders if key in needed or resolved.sources[key] == "flag"], here)
    return resolved


def working_folder() -> Path:
    """The working folder. If it is gone, libraries end the process without a message.

    Raises:
        UserError: somebody deleted it.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UserError("The working folder no longer exists", "Change to another folder") from None


def parse_sets(sets: Sequence[str]) -> dict[str, str]:
    """Split `section.key=value` pairs.

    Raises:
        UsageError: a pair has no equals sign.
    """
    pairs = [text.partition("=") for text in sets]
    for (key, sign, _), text in zip(pairs, sets, strict=True):
        if not sign or not key.strip():
            raise UsageError(f"--set {text} is not SECTION.KEY=VALUE", "Write it as in --set unlearn.alpha=50")
    return {key.strip(): value for key, _, value in pairs}


def _private_name(error: OSError, resolved: "Resolved", *, verbose: bool) -> str | None:
    """The words for a file among people's photos: the names stay out of logs unless -v asks for them."""
    if verbose or not isinstance(error.filename, str | bytes):
        return None
    place = Path(os.fsdecode(error.filename)).absolute()
    data, pairs = resolved.config.data, resolved.config.locate.pairs
    for key, folder in (("data.targets", data.targets), ("data.retain", data.retain), ("locate.pairs", pairs)):
        if folder is not None and place.is_relative_to(folder.absolute()) and place != folder.absolute():
            return f"A file or folder in {key} (-v names it)"
    return None
