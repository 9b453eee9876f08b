"""The options of each step on the command line, in the order of its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ireu_cli.cli import options as o
from ireu_cli.layouts.table import AUTO, layout_names


@dataclass(frozen=True, kw_only=True)
class Locate:
    """The options of `locate`."""

    config: o.Config = None
    set_: o.Set = None
    encoder: o.Encoder = None
    tap: o.Tap = None
    targets: o.Targets = None
    retain: o.Retain = None
    faces: o.Faces = None
    max_photos: o.MaxPhotos = None
    bad_photos: o.BadPhotos = None
    method: Annotated[
        str | None,
        o.Setting("locate.method"),
        typer.Option("--method", help="swap, variance, saliency, random or all."),
    ] = None
    top: Annotated[
        float | None,
        o.Setting("locate.top_fraction"),
        typer.Option("--top", help="Share of the features that the mask keeps."),
    ] = None
    seed: o.Seed = None
    device: o.Device = None
    dtype: o.Dtype = None
    run_dir: o.RunDir = None
    processes: o.Processes = None
    shard: o.Shard = None
    out: Annotated[Path, o.place_option("-o", "--out", help="The mask to write.")] = Path("mask.pt")
    force: o.Force = False
    as_json: o.Json = False
    quiet: o.Quiet = False
    verbose: o.Verbose = False


@dataclass(frozen=True, kw_only=True)
class Unlearn:
    """The options of `unlearn`."""

    mask: o.Mask = None
    onto: o.Onto = None
    merge: o.Merge = None
    withdraw: o.Withdraw = None
    config: o.Config = None
    set_: o.Set = None
    encoder: o.Encoder = None
    tap: o.Tap = None
    targets: o.Targets = None
    retain: o.Retain = None
    faces: o.Faces = None
    max_photos: o.MaxPhotos = None
    bad_photos: o.BadPhotos = None
    method: Annotated[
        str | None, o.Setting("unlearn.method"), typer.Option("--method", help="gated, ireu, global or block.")
    ] = None
    steps: Annotated[
        str | None, o.Setting("unlearn.steps"), typer.Option("--steps", help="Number of optimiser steps, or auto.")
    ] = None
    layers: Annotated[
        str | None,
        o.Setting("unlearn.layers"),
        typer.Option("--layers", help="Parts to train: all, or a list such as blocks:0-3,post_layernorm."),
    ] = None
    systems: Annotated[
        str | None,
        o.Setting("unlearn.systems"),
        typer.Option("--for", help="Generators that the edit must reach, by their names in `ireu inspect --systems`."),
    ] = None
    seed: o.Seed = None
    device: o.Device = None
    run_dir: o.RunDir = None
    processes: o.Processes = None
    shard: o.Shard = None
    out: Annotated[Path, o.place_option("-o", "--out", help="The delta to write.")] = Path("delta.safetensors")
    force: o.Force = False
    as_json: o.Json = False
    quiet: o.Quiet = False
    verbose: o.Verbose = False


@dataclass(frozen=True, kw_only=True)
class Verify:
    """The options of `verify`."""

    delta: o.Delta
    config: o.Config = None
    set_: o.Set = None
    encoder: o.Encoder = None
    tap: o.Tap = None
    targets: o.Targets = None
    retain: o.Retain = None
    faces: o.Faces = None
    bad_photos: o.BadPhotos = None
    seed: o.Seed = None
    device: o.Device = None
    dtype: o.Dtype = None
    run_dir: o.RunDir = None
    processes: o.Processes = None
    shard: o.Shard = None
    keep_images: Annotated[
        bool,
        o.Setting("verify.keep_images"),
        typer.Option("--keep-images", help="Put every drawn picture into the report, with an index."),
    ] = False
    with_pictures: Annotated[
        bool,
        o.Setting("verify.pictures"),
        typer.Option("--with-pictures", help="Put grids of photos and pictures into the report; they show people."),
    ] = False
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to run with a setting that is weaker than the default.")
    ] = False
    out: Annotated[Path, o.place_option("-o", "--out", help="The report folder to write.")] = Path("report")
    force: o.Force = False
    as_json: o.Json = False
    quiet: o.Quiet = False
    verbose: o.Verbose = False


@dataclass(frozen=True, kw_only=True)
class Export:
    """The options of `export`."""

    delta: o.Delta
    config: o.Config = None
    set_: o.Set = None
    encoder: o.Encoder = None
    targets: o.Targets = None
    retain: o.Retain = None
    bad_photos: o.BadPhotos = None
    format_: Annotated[
        str | None,
        o.Setting("export.format"),
        typer.Option("--format", help=f"Layout: {', '.join(layout_names())}; {AUTO} keeps it."),
    ] = None
    dtype: o.ExportDtype = None
    report: Annotated[
        Path | None, o.place_option("--report", help="Report of the delta (default: report/ beside the delta).")
    ] = None
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Export although the verification failed; the export says so.")
    ] = False
    device: o.Device = None
    run_dir: o.RunDir = None
    out: Annotated[Path, o.place_option("-o", "--out", help="The folder to write.")] = Path("encoder-unlearned")
    force: o.Force = False
    as_json: o.Json = False
    quiet: o.Quiet = False
    verbose: o.Verbose = False


Asked = Locate | Unlearn | Verify | Export


@dataclass(frozen=True, kw_only=True)
class Check:
    """The options of `check`."""

    place: Annotated[str, o.source_argument(help="An artifact or encoder (a file or folder), or a service's URL.")]
    record: Annotated[
        list[Path] | None,
        o.place_option("--record", help="An export that it may be, by its folder or ireu.json; the first is the one."),
    ] = None
    signature: Annotated[Path | None, o.place_option("--signature", help="A signature of model_signing.")] = None
    public_key: Annotated[Path | None, o.place_option("--public-key", help="The key that it should be by.")] = None
    to: o.To = None
    module: o.Module = None
    repository: o.Repository = None
    model: o.Model = None
    token_file: o.TokenFile = None
    token_header: o.TokenHeader = None
    as_json: o.Json = False
    verbose: o.Verbose = False


@dataclass(frozen=True, kw_only=True)
class Deploy:
    """The options of `deploy`."""

    export: Annotated[Path, o.place_argument(help="The folder that `ireu export` wrote.")]
    url: Annotated[
        str | None, typer.Argument(help="The service, such as http://localhost:8000; none to write files only.")
    ] = None
    to: o.To = None
    module: o.Module = None
    path: Annotated[
        str | None, typer.Option("--path-on-server", help="Where SGLang-Diffusion finds the export, if elsewhere.")
    ] = None
    before: Annotated[
        str | None,
        typer.Option("--before", help="Where SGLang-Diffusion finds what it held before the first deployment."),
    ] = None
    repository: o.Repository = None
    model: o.Model = None
    token_file: o.TokenFile = None
    token_header: o.TokenHeader = None
    check: Annotated[bool, typer.Option("--check", help="Change nothing; say whether the service holds it.")] = False
    rollback: Annotated[
        bool, typer.Option("--rollback", help="Put back what the service held before the last deployment.")
    ] = False
    digests: Annotated[
        Path | None, o.place_option("--digests", help="Write the digests that a process should have in memory.")
    ] = None
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="The precision of these digests (default: as the export has it).")
    ] = None
    run_dir: Annotated[
        Path, o.place_option("--run-dir", help="Keeps the register, and what was served before (default: .ireu).")
    ] = Path(".ireu")
    register: Annotated[
        Path | None, o.place_option("--register", help="The register to add to (default: that of the run folder).")
    ] = None
    as_json: o.Json = False
    verbose: o.Verbose = False


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """The options of `batch`."""

    requests: Annotated[
        Path,
        o.place_argument(help="A folder with a folder of photos for each case or with cases.csv, or such a table."),
    ]
    onto: o.Onto = None
    mask: o.Mask = None
    config: o.Config = None
    set_: o.Set = None
    encoder: o.Encoder = None
    tap: o.Tap = None
    retain: o.Retain = None
    faces: o.Faces = None
    bad_photos: o.BadPhotos = None
    seed: o.Seed = None
    device: o.Device = None
    run_dir: o.RunDir = None
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse to verify with a setting that is weaker than the default.")
    ] = False
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Export although the verification failed; the export says so.")
    ] = False
    out: Annotated[
        Path,
        o.place_option("-o", "--out", help="The folder of mask, deltas, report and export, for every night the same."),
    ] = Path("batch")
    as_json: o.Json = False
    quiet: o.Quiet = False
    verbose: o.Verbose = False
