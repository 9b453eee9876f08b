"""The command `batch`: every step for many requests."""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from ireu_cli.cli import options as o
from ireu_cli.cli.arguments import BatchOptions
from ireu_cli.cli.exit_codes import OUTCOMES, ExitCode
from ireu_cli.cli.options import settings_in
from ireu_cli.cli.output import Terminal
from ireu_cli.cli.run import output_place, parse_sets, working_folder
from ireu_cli.errors import ConfigError, UsageError

if TYPE_CHECKING:
    from ireu_cli.batching.run import Batch
    from ireu_cli.config import Resolved


@o.takes(BatchOptions)
def batch(asked: BatchOptions) -> None:
    """Take many requests through all four steps; a case that fails stops no other, and a repeated command goes on."""
    from ireu_cli.batching.plan import Plan
    from ireu_cli.batching.requests_in import read_batch
    from ireu_cli.batching.run import run_batch
    from ireu_cli.sharding.choose import workers_ended

    working_folder()
    out = output_place(asked.out, (asked.requests, asked.onto, asked.mask))
    terminal = Terminal(quiet=asked.quiet, verbose=asked.verbose)
    if out.absolute().is_relative_to(asked.requests.absolute()):
        raise UsageError("The results would lie among the requests", "Name another folder with --out")
    found = read_batch(asked.requests)
    if found.passed_over:
        what = "folders that the table does not name" if found.in_table else "files that lie in no case's folder"
        terminal.note(f"passed over: {found.passed_over} {what}")
    plan = Plan(
        found.requests, out, found.in_table, asked.onto, asked.mask,
        strict=asked.strict, allow_failed=asked.allow_failed,
    )  # fmt: skip
    with workers_ended():
        done = run_batch(plan, _resolver(asked), terminal)
    terminal.batch(done.told() | {"passed_over": found.passed_over}, as_json=asked.as_json)
    if (code := _code(done)) is not ExitCode.DONE:
        raise typer.Exit(code)


def _resolver(asked: BatchOptions) -> "Any":
    """What makes the configuration of a step: that of the flags, with what is the step's own."""
    from ireu_cli.config import load_config, refuse_missing

    flags = parse_sets(asked.set_ or []) | settings_in(asked)

    def resolve(own: Mapping[str, Any]) -> "Resolved":
        # The cases follow one another, so that a batch is one process.
        alone = {"run.processes": 1, "run.executor": "local"}
        resolved = load_config(asked.config, os.environ, flags | dict(own) | alone)
        if resolved.config.run.shard is not None:
            raise ConfigError("A batch has no shards", "Leave out run.shard")
        refuse_missing(resolved, ["data.retain"], working_folder())
        return resolved

    # Settings that cannot be used are refused once, and not by every case.
    resolve({})
    return resolve


def _code(found: "Batch") -> ExitCode:
    if found.outcome == "fail":
        return ExitCode.FAILED
    if found.is_settled and not found.failed:
        return ExitCode.DONE
    if found.failed or (found.why is not None and found.outcome is None) or found.delta is None:
        return ExitCode.USER_ERROR
    if found.outcome == "pass" and found.export is None:
        return ExitCode.USER_ERROR
    return OUTCOMES[found.outcome or "inconclusive"]
