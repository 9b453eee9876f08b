"""The commands: flags in, one workflow call, result out."""

from pathlib import Path
from typing import Annotated

import typer

from ireu_cli.cli import options as o
from ireu_cli.cli.run import execute, working_folder


def samples(
    folder: Annotated[Path, o.place_argument(help="The folder to write.")],
    seed: Annotated[int, typer.Option("--seed", help="Decides which of the people is to be unlearned.")] = 0,
    force: o.Force = False,
    verbose: o.Verbose = False,
) -> None:
    """Write photos of people who do not exist, to try the whole job on."""
    working_folder()
    from ireu_cli.cli.output import Terminal
    from ireu_cli.samples import write_samples

    write_samples(folder, seed, force=force)
    Terminal(quiet=False, verbose=verbose).path(folder)


def inspect(
    source: Annotated[str | None, o.source_argument(help="A file or folder of an encoder, or a pack.")] = None,
    systems: Annotated[bool, typer.Option("--systems", help="List the generators, and what each reads.")] = False,
    as_json: o.Json = False,
    verbose: o.Verbose = False,
) -> None:
    """Say which encoder a file holds, who reads it and which edits reach whom, or list the systems."""
    working_folder()
    from ireu_cli.cli.output import Terminal
    from ireu_cli.errors import UsageError
    from ireu_cli.inspecting.run import inspect_encoder, list_systems

    if systems == (source is not None):
        raise UsageError("Either an encoder or --systems is to be shown", "Name a file or folder, or give --systems")
    terminal = Terminal(quiet=False, verbose=verbose)
    if source is None:
        terminal.systems(list_systems(), as_json=as_json)
    else:
        terminal.card(inspect_encoder(source), as_json=as_json)


def locate(
    config: o.Config = None,
    set_: o.Set = None,
    encoder: o.Encoder = None,
    tap: o.Tap = None,
    targets: o.Targets = None,
    retain: o.Retain = None,
    faces: o.Faces = None,
    max_photos: o.MaxPhotos = None,
    bad_photos: o.BadPhotos = None,
    method: Annotated[str | None, typer.Option("--method", help="swap, variance, saliency, random or all.")] = None,
    top: Annotated[float | None, typer.Option("--top", help="Share of the features that the mask keeps.")] = None,
    seed: o.Seed = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    run_dir: o.RunDir = None,
    out: Annotated[Path, o.place_option("-o", "--out", help="The mask to write.")] = Path("mask.pt"),
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Find the features that carry identity and write them as a mask."""
    flags = (
        _data(targets, retain, faces, max_photos, bad_photos)
        | _run(seed, device, run_dir)
        | {
            "encoder.source": encoder,
            "encoder.tap": tap,
            "encoder.dtype": dtype,
            "locate.method": method,
            "locate.top_fraction": top,
        }
    )
    execute("locate", None, out, config, set_, flags, force=force, as_json=as_json, quiet=quiet, verbose=verbose)


def unlearn(
    mask: o.Mask = None,
    onto: o.Onto = None,
    merge: o.Merge = None,
    withdraw: o.Withdraw = None,
    config: o.Config = None,
    set_: o.Set = None,
    encoder: o.Encoder = None,
    tap: o.Tap = None,
    targets: o.Targets = None,
    retain: o.Retain = None,
    faces: o.Faces = None,
    max_photos: o.MaxPhotos = None,
    bad_photos: o.BadPhotos = None,
    method: Annotated[str | None, typer.Option("--method", help="gated, ireu, global or block.")] = None,
    steps: Annotated[str | None, typer.Option("--steps", help="Optimiser steps, or auto.")] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="Trained parts: all, or such as blocks:0-3,post_layernorm.")
    ] = None,
    systems: Annotated[
        str | None, typer.Option("--for", help="Generators that the edit has to reach, of `ireu inspect --systems`.")
    ] = None,
    seed: o.Seed = None,
    device: o.Device = None,
    run_dir: o.RunDir = None,
    out: Annotated[Path, o.place_option("-o", "--out", help="The delta to write.")] = Path("delta.safetensors"),
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Remove the targets from the encoder and write the change of its weights as a delta.

    With --merge or --withdraw, no mask and no photos are needed, but the run folder that the deltas were made in: the
    delta is that of --onto with the requests of others, or without some of its own.
    """
    flags = (
        _data(targets, retain, faces, max_photos, bad_photos)
        | _run(seed, device, run_dir)
        | {
            "encoder.source": encoder,
            "encoder.tap": tap,
            "unlearn.method": method,
            "unlearn.steps": steps,
            "unlearn.layers": layers,
            "unlearn.systems": systems,
        }
    )
    execute(
        "unlearn", mask, out, config, set_, flags, force=force, as_json=as_json, quiet=quiet, verbose=verbose,
        onto=onto, merge=merge or (), withdraw=withdraw or (),
    )  # fmt: skip


def verify(
    delta: o.Delta,
    config: o.Config = None,
    set_: o.Set = None,
    encoder: o.Encoder = None,
    tap: o.Tap = None,
    targets: o.Targets = None,
    retain: o.Retain = None,
    faces: o.Faces = None,
    bad_photos: o.BadPhotos = None,
    seed: o.Seed = None,
    device: o.Device = None,
    dtype: o.Dtype = None,
    run_dir: o.RunDir = None,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Leave every drawn picture in the report, with an index.")
    ] = False,
    with_pictures: Annotated[
        bool,
        typer.Option("--with-pictures", help="Put grids of photos and pictures into the report; they show people."),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to run with a setting that is weaker than the default.")
    ] = False,
    out: Annotated[Path, o.place_option("-o", "--out", help="The report folder to write.")] = Path("report"),
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Measure whether the targets are gone and everybody else is still there (exit 0 pass, 4 fail, 5 inconclusive)."""
    flags = (
        _data(targets, retain, faces, None, bad_photos)
        | _run(seed, device, run_dir)
        | {
            "encoder.source": encoder,
            "encoder.tap": tap,
            "encoder.dtype": dtype,
            "verify.keep_images": keep_images or None,
            "verify.pictures": with_pictures or None,
        }
    )
    execute(
        "verify", delta, out, config, set_, flags, force=force, as_json=as_json, quiet=quiet, verbose=verbose,
        more={"strict": strict},
    )  # fmt: skip


def export(
    delta: o.Delta,
    config: o.Config = None,
    set_: o.Set = None,
    encoder: o.Encoder = None,
    targets: o.Targets = None,
    retain: o.Retain = None,
    bad_photos: o.BadPhotos = None,
    format_: Annotated[
        str | None, typer.Option("--format", help="Layout, such as clip-folder, photomaker or onnx; auto keeps it.")
    ] = None,
    dtype: o.Dtype = None,
    report: Annotated[
        Path | None, o.place_option("--report", help="Report of the delta (default: report/ beside the delta).")
    ] = None,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Export although the verification failed; the export says so.")
    ] = False,
    device: o.Device = None,
    run_dir: o.RunDir = None,
    out: Annotated[Path, o.place_option("-o", "--out", help="The folder to write.")] = Path("encoder-unlearned"),
    force: o.Force = False,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Write the edited encoder as a folder that replaces the original in every generator that shares it."""
    flags = (
        _data(targets, retain, None, None, bad_photos)
        | _run(None, device, run_dir)
        | {
            "encoder.source": encoder,
            "export.format": format_,
            "export.dtype": dtype,
        }
    )
    execute(
        "export", delta, out, config, set_, flags, force=force, as_json=as_json, quiet=quiet, verbose=verbose,
        more={"report": report, "allow_failed": allow_failed},
    )  # fmt: skip


def _data(
    targets: Path | None, retain: Path | None, faces: str | None, max_photos: int | None, bad: str | None
) -> dict[str, object]:
    return {
        "data.targets": targets,
        "data.retain": retain,
        "data.faces": faces,
        "data.max_photos": max_photos,
        "data.bad_photos": bad,
    }


def _run(seed: int | None, device: str | None, run_dir: Path | None) -> dict[str, object]:
    return {"seed": seed, "run.device": device, "run.run_dir": run_dir}
