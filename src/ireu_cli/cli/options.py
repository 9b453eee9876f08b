"""Flags, each declared once. Only typer and the standard library: `--help` must not start torch."""

from pathlib import Path
from typing import Annotated, Any

import typer


class EmptyValueError(ValueError):
    """Nothing where a file or folder should be named, as a shell variable that is not set leaves it."""


def _place(value: Any) -> Path:
    return Path(_stated(str(value)))


def _stated(value: str) -> str:
    # An empty path would stand for the working folder.
    if not value.strip():
        raise EmptyValueError("is empty")
    return value


def place_option(*names: str, help: str) -> Any:
    """An option that names a file or folder; empty, it is refused."""
    return typer.Option(*names, help=help, parser=_place, metavar="<path>")


def place_argument(*, help: str) -> Any:
    """The same as an argument."""
    return typer.Argument(help=help, parser=_place, metavar="folder")


def source_argument(*, help: str) -> Any:
    """An argument that names an encoder; empty, it is refused."""
    return typer.Argument(help=help, parser=_stated)


Config = Annotated[Path | None, place_option("--config", help="Configuration file (default: ireu.toml if it exists).")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any key of ireu.toml; repeatable.")
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        parser=_stated,
        metavar="<str>",
        help="portrait-mini, or folder, .safetensors, .onnx file or hub id of the image encoder.",
    ),
]
Tap = Annotated[
    str | None,
    typer.Option(
        "--tap",
        help="Tensor the generator reads: pooled, image_embeds, penultimate, last; of ArcFace networks embedding, "
        "normed_embedding.",
    ),
]
Targets = Annotated[
    Path | None, place_option("--targets", help="People to unlearn: DIR/<person>/*.jpg, or DIR/*.jpg for one.")
]
Retain = Annotated[Path | None, place_option("--retain", help="Other people, whose rendering must not change.")]
Faces = Annotated[
    str | None, typer.Option("--faces", help="aligned: photos are crops already; detect: find the face first.")
]
MaxPhotos = Annotated[int | None, typer.Option("--max-photos", help="Use at most this many photos of each target.")]
BadPhotos = Annotated[str | None, typer.Option("--bad-photos", help="error or skip.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Every random choice follows from it.")]
Device = Annotated[str | None, typer.Option("--device", help="Torch device, such as cpu or cuda.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, float16 or bfloat16.")]
RunDir = Annotated[Path | None, place_option("--run-dir", help="Private folder of the runs (default: .ireu).")]
Force = Annotated[bool, typer.Option("--force", help="Replace what ireu wrote at the output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Show every value with its source; name files and causes of errors.")
]
Mask = Annotated[Path | None, place_option("--mask", help="The mask that `ireu locate` wrote.")]
Onto = Annotated[Path | None, place_option("--onto", help="Earlier delta of the method gated whose requests are kept.")]
Merge = Annotated[
    list[Path] | None,
    place_option("--merge", help="Delta whose requests are added to those of --onto; repeatable."),
]
Withdraw = Annotated[
    list[str] | None, typer.Option("--withdraw", metavar="CASE", help="Take a request out of --onto; repeatable.")
]
Delta = Annotated[Path, place_option("--delta", help="The delta that `ireu unlearn` wrote.")]
