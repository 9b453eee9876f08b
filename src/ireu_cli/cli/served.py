"""The commands about what is served: `check`, `deploy` and `cases`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ireu_cli.cli import options as o
from ireu_cli.cli.arguments import Check, Deploy
from ireu_cli.cli.exit_codes import ExitCode
from ireu_cli.cli.run import working_folder
from ireu_cli.errors import UsageError

if TYPE_CHECKING:
    from ireu_cli.serving.stack import Stack


@o.takes(Check)
def check(asked: Check) -> None:
    """Say whether a file, folder or running service holds what its record says, and which traps stand there."""
    working_folder()
    if _is_url(asked.place):
        if asked.signature or asked.public_key:
            raise UsageError("A service has no signature", "Leave out --signature, or check the files")
        if not asked.record:
            raise UsageError("No export is named that the service should hold", "Name its folder with --record")
        from ireu_cli.serving.run import check_service

        found = check_service(_stack(asked, asked.place), asked.record or ())
        _end(found.told, found.verdict, as_json=asked.as_json)
        return
    given = ("to", "module", "repository", "model", "token_file", "token_header")
    if named := [name for name in given if getattr(asked, name) is not None]:
        raise UsageError(f"--{named[0].replace('_', '-')} is about a service", "Name the service by its URL")
    from ireu_cli.checking.run import Signed
    from ireu_cli.checking.run import check as look_at

    if (asked.signature is None) != (asked.public_key is None):
        raise UsageError("--signature and --public-key belong together", "Give both, or neither")
    signed = None
    if asked.signature is not None and asked.public_key is not None:
        signed = Signed(asked.signature, asked.public_key)
    checked = look_at(Path(asked.place), asked.record or (), signed)
    _end(checked.told, checked.verdict, as_json=asked.as_json)


@o.takes(Deploy)
def deploy(asked: Deploy) -> None:
    """Put an export into a running service, see that it is loaded, and put back what was there if you ask for it."""
    working_folder()
    _refuse_mixed(asked)
    if asked.url is None:
        _write_only(asked)
        return
    from ireu_cli.cli.output import Terminal
    from ireu_cli.serving import run
    from ireu_cli.serving.sglang import sendable
    from ireu_cli.store.rundir import RunDir

    stack = _stack(asked, asked.url)
    before = None if asked.before is None else sendable(asked.before, "--before")
    if asked.check:
        found = run.check_service(stack, [asked.export], _register(asked))
        _end(found.told, found.verdict, as_json=asked.as_json)
        return
    terminal = Terminal(quiet=False, verbose=asked.verbose)
    kept = RunDir(asked.run_dir, terminal.note)
    known, add = kept.deployments(run.name_of(stack)), kept.register(asked.register).add
    if asked.rollback:
        told = run.roll_back(stack, known, add, before)
    else:
        told = run.deploy(asked.export, stack, known, add, before)
    terminal.card(told, as_json=asked.as_json)


def cases(
    register: Annotated[
        Path | None, o.place_option("--register", help="The register (default: that of the run folder).")
    ] = None,
    run_dir: Annotated[
        Path, o.place_option("--run-dir", help="The run folder, whose key verifies seals (default: .ireu).")
    ] = Path(".ireu"),
    photos_deleted: Annotated[
        list[str] | None, typer.Option("--photos-deleted", metavar="CASE", help="Note that its photos were deleted.")
    ] = None,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Verify the register, and list for every case since when it is removed from what, and what is due."""
    working_folder()
    from ireu_cli.cases.run import list_cases
    from ireu_cli.cli.output import Terminal

    found = list_cases(register, run_dir, photos_deleted or ())
    Terminal(quiet=False, verbose=verbose).cases(found.told, as_json=as_json)
    if found.trust != "whole":
        raise typer.Exit(ExitCode.FAILED if found.trust == "NOT WHOLE" else ExitCode.INCONCLUSIVE)


def _is_url(place: str) -> bool:
    return place.lower().startswith(("http://", "https://"))


def _stack(asked: Check | Deploy, url: str) -> "Stack":
    from ireu_cli.serving.kinds import Where, open_stack

    path = asked.path if isinstance(asked, Deploy) else None
    return open_stack(
        Where(
            url, asked.to, asked.module, path, asked.repository, asked.model, asked.token_file, asked.token_header
        )
    )  # fmt: skip


def _refuse_mixed(asked: Deploy) -> None:
    """Refuse flags that do not go together.

    Raises:
        UsageError: they do not.
    """
    if asked.check and asked.rollback:
        raise UsageError("--check changes nothing, and --rollback does", "Give one of them")
    if (asked.digests is None) != (asked.url is not None or asked.model is not None):
        raise UsageError("It is not clear what to do", "Name the service by its URL, or files to write (see --help)")
    if asked.dtype is not None and asked.digests is None:
        raise UsageError("--dtype is of the digests that --digests writes", "Give both, or neither")
    if asked.url is None and (asked.check or asked.rollback):
        raise UsageError("No service is named", "Name it by its URL")
    if asked.url is None and asked.digests is None and asked.repository is None:
        raise UsageError("--model is a model in a repository", "Name the repository with --repository")


def _write_only(asked: Deploy) -> None:
    """Write what a server is going to load or compare, without asking one."""
    from ireu_cli.cli.output import Terminal
    from ireu_cli.serving.files import write_digests, write_version

    place = asked.digests
    if asked.digests is not None:
        write_digests(asked.export, asked.digests, asked.dtype)
    elif asked.repository is not None and asked.model is not None:
        place = write_version(asked.export, asked.repository, asked.model)
    terminal = Terminal(quiet=False, verbose=asked.verbose)
    if asked.as_json:
        terminal.card({"written": str(place)}, as_json=True)
    elif place is not None:
        terminal.path(place)


def _register(asked: Deploy) -> Any:
    """What adds an event to the register; None where there is neither a register nor a run folder."""
    from ireu_cli.store.rundir import RunDir

    is_there = asked.register is not None or asked.run_dir.is_dir()
    return RunDir(asked.run_dir).register(asked.register).add if is_there else None


def _end(told: dict[str, Any], verdict: str, *, as_json: bool) -> None:
    """Print what was found, and end with the exit code of the verdict."""
    from ireu_cli.cli.output import Terminal

    Terminal(quiet=False, verbose=False).card(told, as_json=as_json)
    if verdict != "as recorded":
        raise typer.Exit(ExitCode.FAILED if verdict == "not as recorded" else ExitCode.INCONCLUSIVE)
