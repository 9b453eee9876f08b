"""From parsed flags to a workflow call and back. Everything heavy is imported here, inside the functions."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import typer

from ireu_cli.cli.exit_codes import OUTCOMES, ExitCode
from ireu_cli.cli.failures import refused
from ireu_cli.cli.output import Terminal
from ireu_cli.errors import UsageError, UserError, interrupted

if TYPE_CHECKING:
    from ireu_cli.config import Resolved
    from ireu_cli.session import StepResult

Command = Literal["locate", "unlearn", "verify", "export"]


def execute(
    command: Command,
    parent: Path | None,
    out: Path,
    config: Path | None,
    sets: Sequence[str] | None,
    flags: Mapping[str, Any],
    *,
    force: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
    onto: Path | None = None,
    merge: Sequence[Path] = (),
    withdraw: Sequence[str] = (),
    more: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Resolve the configuration, run the step, print the result; `verify` exits with its outcome's code.

    `more` is what `verify` or `export` alone is asked.

    Raises:
        IreuError: for `main` to report.
    """
    from ireu_cli.config import load_config, refuse_missing, settings_file

    here = working_folder()
    out = Path(os.path.normpath(out))
    if not out.name:
        raise UsageError(f"The output {out} has no name of its own", "Name a file or folder with --out")
    inputs = (parent, onto, *merge, settings_file(config, os.environ))
    if any(given is not None and out.absolute() == given.absolute() for given in inputs):
        raise UsageError(f"The output {out} is read as input", "Name another file with --out")
    if command == "unlearn":
        _check_unlearn(parent, onto, merge, withdraw)
    terminal = Terminal(quiet=quiet, verbose=verbose)
    resolved = load_config(
        config, os.environ, parse_sets(sets or []) | {k: v for k, v in flags.items() if v is not None}
    )
    terminal.sources(resolved)
    if resolved.passed_over:
        terminal.note(f"Variables that are no settings of ireu, and are passed over: {', '.join(resolved.passed_over)}")
    # What the steps after it do not say comes from their input.
    folders = ("data.targets", "data.retain")
    refuse_missing(resolved, [key for key in folders if command == "locate" or resolved.sources[key] == "flag"], here)
    try:
        result = _workflow(command, resolved, terminal, parent, out, force, onto, merge, withdraw, more)()
    except OSError as error:
        raise refused(error, _private_name(error, resolved, verbose=verbose)) from error
    except KeyboardInterrupt:
        raise interrupted() from None
    if result.report is not None:
        terminal.report(result.report)
    terminal.result(result, as_json=as_json)
    code = OUTCOMES[result.report.outcome] if result.report else ExitCode.DONE
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def working_folder() -> Path:
    """Where relative paths begin; libraries end the process without a word where it is gone.

    Raises:
        UserError: somebody deleted it.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UserError("The working folder does not exist any more", "Change to another one") from None


def parse_sets(sets: Sequence[str]) -> dict[str, str]:
    """Split `section.key=value` pairs.

    Raises:
        UsageError: a pair without an equals sign.
    """
    pairs = [text.partition("=") for text in sets]
    for (key, sign, _), text in zip(pairs, sets, strict=True):
        if not sign or not key.strip():
            raise UsageError(f"--set {text} is not SECTION.KEY=VALUE", "Write it as in --set unlearn.alpha=50")
    return {key.strip(): value for key, _, value in pairs}


def _private_name(error: OSError, resolved: "Resolved", *, verbose: bool) -> str | None:
    """How a file among people's photos is called: their names stay out of logs, unless -v asks for them."""
    if verbose or not isinstance(error.filename, str | bytes):
        return None
    place = Path(os.fsdecode(error.filename)).absolute()
    data, pairs = resolved.config.data, resolved.config.locate.pairs
    for key, folder in (("data.targets", data.targets), ("data.retain", data.retain), ("locate.pairs", pairs)):
        if folder is not None and place.is_relative_to(folder.absolute()) and place != folder.absolute():
            return f"A file or folder in {key} (-v names it)"
    return None


def _check_unlearn(mask: Path | None, onto: Path | None, merge: Sequence[Path], withdraw: Sequence[str]) -> None:
    """`unlearn` needs a mask, or a delta to merge with others or to withdraw from, and one of the three."""
    if withdraw and merge:
        raise UsageError("--merge and --withdraw are two steps", "Give one of them at a time")
    for flag, words, given in (("--withdraw", "takes a request out of", withdraw), ("--merge", "adds to", merge)):
        if given and (onto is None or mask is not None):
            raise UsageError(f"{flag} {words} a delta", "Name the delta with --onto, and no --mask")
    if not withdraw and not merge and mask is None:
        raise UsageError("No mask is given", "Name the one that `ireu locate` wrote with --mask")


def _workflow(
    command: Command,
    resolved: "Resolved",
    terminal: Terminal,
    parent: Path | None,
    out: Path,
    force: bool,
    onto: Path | None,
    merge: Sequence[Path],
    withdraw: Sequence[str],
    more: Mapping[str, Any],
) -> Callable[[], "StepResult"]:
    if withdraw and onto is not None:
        from ireu_cli.unlearning.requests import run_withdraw

        return lambda: run_withdraw(resolved, terminal, onto, withdraw, out, force=force)
    if merge and onto is not None:
        from ireu_cli.unlearning.requests import run_merge

        return lambda: run_merge(resolved, terminal, onto, merge, out, force=force)
    if command == "locate" or parent is None:
        from ireu_cli.locating.run import run_locate

        return lambda: run_locate(resolved, terminal, out, force=force)
    if command == "unlearn":
        from ireu_cli.unlearning.run import run_unlearn

        return lambda: run_unlearn(resolved, terminal, parent, out, force=force, onto=onto)
    if command == "verify":
        from ireu_cli.verifying.run import run_verify

        return lambda: run_verify(resolved, terminal, parent, out, force=force, **more)
    from ireu_cli.exporting.run import run_export

    return lambda: run_export(resolved, terminal, parent, out, force=force, **more)
