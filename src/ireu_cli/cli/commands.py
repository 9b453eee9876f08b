"""The commands: each takes its flags, calls the step's `run` once, and prints the result."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ireu_cli.cli import options as o
from ireu_cli.cli.arguments import Export, Locate, Unlearn, Verify
from ireu_cli.cli.run import Job, output_place, run_step, working_folder
from ireu_cli.errors import UsageError

if TYPE_CHECKING:
    from ireu_cli.opening import StepResult


def samples(
    folder: Annotated[Path, o.place_argument(help="The folder to write.")],
    seed: Annotated[int, typer.Option("--seed", help="Seed that chooses the person to unlearn.")] = 0,
    force: o.Force = False,
    verbose: o.Verbose = False,
) -> None:
    """Write photos of people who do not exist, so that you can try the whole job."""
    working_folder()
    from ireu_cli.cli.output import Terminal
    from ireu_cli.samples import write_samples

    write_samples(folder, seed, force=force)
    Terminal(quiet=False, verbose=verbose).path(folder)


def inspect(
    source: Annotated[str | None, o.source_argument(help="A file or folder of an encoder, or a pack.")] = None,
    systems: Annotated[
        bool, typer.Option("--systems", help="List the generators and what each of them reads.")
    ] = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Say which encoder a file holds, which generators read it and which edits reach them, or list the systems."""
    working_folder()
    from ireu_cli.cli.output import Terminal
    from ireu_cli.inspecting.systems import list_systems

    if systems == (source is not None):
        raise UsageError(
            "`ireu inspect` needs either an encoder or --systems, and only one of them",
            "Name a file or folder, or give --systems",
        )
    terminal = Terminal(quiet=False, verbose=verbose)
    if source is None:
        terminal.systems(list_systems(), as_json=as_json)
    else:
        from ireu_cli.inspecting.run import inspect_encoder

        terminal.card(inspect_encoder(source), as_json=as_json)


@o.takes(Locate)
def locate(asked: Locate) -> None:
    """Find the features that carry identity and write them as a mask."""

    def step(job: Job) -> "StepResult":
        from ireu_cli.locating.run import run_locate

        return run_locate(job.resolved, job.terminal, job.out, force=asked.force)

    run_step(asked, step, needed=("data.targets", "data.retain"))


@o.takes(Unlearn)
def unlearn(asked: Unlearn) -> None:
    """Remove the targets from the encoder and write the change of its weights as a delta.

    With --merge or --withdraw you need no mask and no photos, but the run folder that the deltas were made in. The
    result is the delta of --onto with the requests of others added, or with some of its own taken out.
    """

    def step(job: Job) -> "StepResult":
        if asked.withdraw and asked.onto is not None:
            from ireu_cli.unlearning.change_requests import run_withdraw

            return run_withdraw(job.resolved, job.terminal, asked.onto, asked.withdraw, job.out, force=asked.force)
        if asked.merge and asked.onto is not None:
            from ireu_cli.unlearning.change_requests import run_merge

            return run_merge(job.resolved, job.terminal, asked.onto, asked.merge, job.out, force=asked.force)
        from ireu_cli.unlearning.run import run_unlearn

        return run_unlearn(job.resolved, job.terminal, _mask(asked), job.out, force=asked.force, onto=asked.onto)

    run_step(asked, step, inputs=(asked.mask, asked.onto, *(asked.merge or ())), check=lambda: _check_unlearn(asked))


@o.takes(Verify)
def verify(asked: Verify) -> None:
    """Measure whether the targets are gone and everybody else is unchanged (exit 0 pass, 4 fail, 5 inconclusive)."""

    def step(job: Job) -> "StepResult":
        from ireu_cli.verifying.run import run_verify

        return run_verify(job.resolved, job.terminal, asked.delta, job.out, force=asked.force, strict=asked.strict)

    run_step(asked, step, inputs=(asked.delta,))


@o.takes(Export)
def export(asked: Export) -> None:
    """Write the edited encoder as a folder that replaces the original in every generator that shares it."""

    def step(job: Job) -> "StepResult":
        from ireu_cli.exporting.run import run_export

        return run_export(
            job.resolved, job.terminal, asked.delta, job.out, force=asked.force, report=asked.report,
            allow_failed=asked.allow_failed,
        )  # fmt: skip

    run_step(asked, step, inputs=(asked.delta,))


def apply(
    delta: o.Delta,
    embeddings: Annotated[
        Path, o.place_option("--embeddings", help="Embeddings that were stored earlier: .safetensors or .npy.")
    ],
    out: Annotated[Path, o.place_option("-o", "--out", help="The file to write, of the same kind.")],
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Pass embeddings of an ArcFace network that were stored earlier through the gates of a delta."""
    working_folder()
    from ireu_cli.applying.run import run_apply
    from ireu_cli.cli.output import Terminal

    place = output_place(out, (delta, embeddings))
    terminal = Terminal(quiet=quiet, verbose=verbose)
    applied = run_apply(delta, embeddings, place, force=force, note=terminal.note)
    terminal.applied(applied, as_json=as_json)


def _check_unlearn(asked: Unlearn) -> None:
    """Check that `unlearn` got exactly one of: a mask, deltas to merge, or a request to withdraw."""
    if asked.withdraw and asked.merge:
        raise UsageError("--merge and --withdraw cannot be given together", "Run the command once for each")
    for flag, words, given in (
        ("--withdraw", "takes a request out of", asked.withdraw),
        ("--merge", "adds to", asked.merge),
    ):
        if given and (asked.onto is None or asked.mask is not None):
            raise UsageError(
                f"{flag} {words} a delta, which --onto has to name", "Name the delta with --onto, and leave out --mask"
            )
    if not asked.withdraw and not asked.merge:
        _mask(asked)


def _mask(asked: Unlearn) -> Path:
    if asked.mask is None:
        raise UsageError("No mask was given", "Name the mask that `ireu locate` wrote, with --mask")
    return asked.mask
