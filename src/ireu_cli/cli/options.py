"""Flags, each declared once. Only typer and the standard library: `--help` must not start torch."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path | None, typer.Option("--config", help="Configuration file (default: ireu.toml if it exists).")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any key of ireu.toml; repeatable.")
]
Encoder = Annotated[
    str | None,
    typer.Option(
        "--encoder", help="portrait-mini, or folder, .safetensors, .onnx file or hub id of the image encoder."
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
    Path | None, typer.Option("--targets", help="People to unlearn: DIR/<person>/*.jpg, or DIR/*.jpg for one.")
]
Retain = Annotated[Path | None, typer.Option("--retain", help="Other people, whose rendering must not change.")]
Faces = Annotated[
    str | None, typer.Option("--faces", help="aligned: photos are crops already; detect: find the face first.")
]
MaxPhotos = Annotated[int | None, typer.Option("--max-photos", help="Use at most this many photos of each target.")]
BadPhotos = Annotated[str | None, typer.Option("--bad-photos", help="error or skip.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Every random choice follows from it.")]
Device = Annotated[str | None, typer.Option("--device", help="Torch device, such as cpu or cuda.")]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, float16 or bfloat16.")]
RunDir = Annotated[Path | None, typer.Option("--run-dir", help="Private folder of the runs (default: .ireu).")]
Force = Annotated[bool, typer.Option("--force", help="Replace what ireu wrote at the output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Show every value with its source; name files in errors.")
]
Mask = Annotated[Path | None, typer.Option("--mask", help="The mask that `ireu locate` wrote.")]
Onto = Annotated[Path | None, typer.Option("--onto", help="Earlier delta of the method gated whose requests are kept.")]
Merge = Annotated[
    list[Path] | None,
    typer.Option("--merge", help="Delta whose requests are added to those of --onto; repeatable."),
]
Withdraw = Annotated[
    list[str] | None, typer.Option("--withdraw", metavar="CASE", help="Take a request out of --onto; repeatable.")
]
Delta = Annotated[Path, typer.Option("--delta", help="The delta that `ireu unlearn` wrote.")]
