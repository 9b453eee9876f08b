"""Flags, each declared once. It imports only typer and the standard library: `--help` must not start torch."""

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Options = TypeVar("Options")


class Setting(str):
    """The key of the setting that a flag sets, such as `encoder.tap`."""


def takes(options: type[Options]) -> Callable[[Callable[[Options], None]], Callable[..., None]]:
    """Pass a command its options as one value, an `options` dataclass, instead of one by one.

    Typer reads the fields as it reads parameters: in their order, with their types and defaults.
    """
    hints = get_type_hints(options, include_extras=True)

    def parameter(name: str, default: Any) -> inspect.Parameter:
        kept = inspect.Parameter.empty if default is MISSING else default
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=kept, annotation=hints[name])

    def wrap(command: Callable[[Options], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def called(**given: Any) -> None:
            command(options(**given))

        listed = [parameter(each.name, each.default) for each in fields(options)]  # type: ignore[arg-type]
        called.__signature__ = inspect.Signature(listed)  # type: ignore[attr-defined]
        called.__annotations__ = hints
        return called

    return wrap


def settings_in(options: Any) -> dict[str, Any]:
    """The settings that flags set, by their keys; flags that were not given are left out."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(type(options), include_extras=True).items():
        value = getattr(options, name)
        if value is not None and value is not False:
            found |= {str(key): value for key in getattr(hint, "__metadata__", ()) if isinstance(key, Setting)}
    return found


class EmptyValueError(ValueError):
    """Refuse an empty name of a file or folder, which an unset shell variable leaves behind."""


def _place(value: Any) -> Path:
    return Path(_stated(str(value)))


def _stated(value: str) -> str:
    # An empty path would mean the working folder.
    if not value.strip():
        raise EmptyValueError("is empty")
    return value


def place_option(*names: str, help: str) -> Any:
    """An option that names a file or folder; an empty one is refused."""
    return typer.Option(*names, help=help, parser=_place, metavar="<path>")


def place_argument(*, help: str) -> Any:
    """The same for an argument."""
    return typer.Argument(help=help, parser=_place, metavar="folder")


def source_argument(*, help: str) -> Any:
    """An argument that names an encoder; an empty one is refused."""
    return typer.Argument(help=help, parser=_stated)


Config = Annotated[Path | None, place_option("--config", help="Configuration file (default: ireu.toml if it exists).")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any key of ireu.toml; repeatable.")
]
Encoder = Annotated[
    str | None,
    Setting("encoder.source"),
    typer.Option(
        "--encoder",
        parser=_stated,
        metavar="<str>",
        help="The image encoder: portrait-mini, a folder, .safetensors or .onnx file, or the hub's owner/model:folder.",
    ),
]
Tap = Annotated[
    str | None,
    Setting("encoder.tap"),
    typer.Option(
        "--tap",
        help="Tensor that the generator reads: pooled, image_embeds, penultimate, last; block-N for what enters block "
        "N; several joined by +, such as block-2+block-4+pooled; for ArcFace networks embedding, normed_embedding.",
    ),
]
Targets = Annotated[
    Path | None,
    Setting("data.targets"),
    place_option("--targets", help="People to unlearn: DIR/<person>/*.jpg, or DIR/*.jpg for one."),
]
Retain = Annotated[
    Path | None, Setting("data.retain"), place_option("--retain", help="Other people, whose pictures must not change.")
]
Faces = Annotated[
    str | None,
    Setting("data.faces"),
    typer.Option("--faces", help="aligned: the photos are face crops; detect: find the face first."),
]
MaxPhotos = Annotated[
    int | None,
    Setting("data.max_photos"),
    typer.Option("--max-photos", help="Use at most this many photos of each target."),
]
BadPhotos = Annotated[
    str | None,
    Setting("data.bad_photos"),
    typer.Option("--bad-photos", help="What an unreadable photo does: error or skip."),
]
Seed = Annotated[int | None, Setting("seed"), typer.Option("--seed", help="Seed of every random choice.")]
Device = Annotated[
    str | None, Setting("run.device"), typer.Option("--device", help="Torch device, such as cpu or cuda.")
]
_DTYPE = typer.Option("--dtype", help="float32, float16 or bfloat16.")
Dtype = Annotated[str | None, Setting("encoder.dtype"), _DTYPE]
ExportDtype = Annotated[str | None, Setting("export.dtype"), _DTYPE]
RunDir = Annotated[
    Path | None, Setting("run.run_dir"), place_option("--run-dir", help="Private folder for runs (default: .ireu).")
]
Processes = Annotated[
    int | None,
    Setting("run.processes"),
    typer.Option("--processes", help="Processes, or workers on Ray, that share the work."),
]
Shard = Annotated[
    str | None,
    Setting("run.shard"),
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Do part I of N of the work only, for job arrays; afterwards run the command once without it.",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output that ireu wrote.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print only errors.")]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Show every setting with its source; name files and causes of errors.")
]
Mask = Annotated[Path | None, place_option("--mask", help="The mask that `ireu locate` wrote.")]
Onto = Annotated[Path | None, place_option("--onto", help="Earlier delta of the method gated; its requests are kept.")]
Merge = Annotated[
    list[Path] | None,
    place_option("--merge", help="Delta whose requests are added to those of --onto; repeatable."),
]
Withdraw = Annotated[
    list[str] | None, typer.Option("--withdraw", metavar="CASE", help="Take a request out of --onto; repeatable.")
]
Delta = Annotated[Path, place_option("--delta", help="The delta that `ireu unlearn` wrote.")]
To = Annotated[
    str | None, typer.Option("--to", help="The kind of service: sglang or triton (default: found out by asking).")
]
Module = Annotated[
    str | None, typer.Option("--module", help="The module of SGLang-Diffusion's pipeline (default: image_encoder).")
]
Repository = Annotated[
    Path | None, place_option("--repository", help="Triton's model repository, as it is seen from here.")
]
Model = Annotated[str | None, typer.Option("--model", help="The model in Triton's repository.")]
TokenFile = Annotated[
    Path | None, place_option("--token-file", help="A file with the administrator's token of the service.")
]
TokenHeader = Annotated[
    str | None, typer.Option("--token-header", help="The header for the token (default: Authorization, as a bearer).")
]
