"""A portrait bundle: an encoder with the generators that share it, a recogniser and a face check, in one folder.

`portrait-mini` is the bundle that comes with the package; every folder with a `portrait.json` is a bundle too.
"""

import unicodedata
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ireu_cli.errors import ModelError
from ireu_cli.params import LONGEST_TAP, TAP_PATTERN, Dtype, Landmarks, Tap, check_joined
from ireu_cli.support.bounded import ContentError, inside, leads_inside, printable, read_json, relative_path, safe_name

EMBEDDED = "portrait-mini"
"""The name of the package's bundle in `encoder.source`."""
INDEX = "portrait.json"
_REMEDY = "Correct it, or name another encoder"
_MOST_PROMPT = 2000
_SHARED = ("vae", "text_encoder", "tokenizer", "scheduler")
"""Folders of a bundle that its index does not name and that all its U-Nets share."""


def _named(text: str) -> str:
    try:
        return safe_name(text, what="")
    except ContentError as error:
        raise ValueError(error.why) from None


def _downwards(text: str) -> str:
    try:
        return relative_path(text, what="")
    except ContentError as error:
        raise ValueError(error.why) from None


Name = Annotated[str, AfterValidator(_named)]
"""A name for reports, folders of pictures and the terminal; see `bounded.safe_name`."""
Below = Annotated[str, AfterValidator(_downwards)]
"""A path inside the bundle."""


class _Part(BaseModel):
    # Later versions of the index may say more; what is not read here does not decide a picture.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class GeneratorEntry(_Part):
    """One generator: the tap that it reads, the path of its weights in the bundle, and its settings for drawing.

    `unet` names its own U-Net; the bundle's generators share the other parts. `pipeline` names a folder with a whole
    pipeline, saved by diffusers. `side` is in pixels; the default is the pipeline's own.
    """

    name: Name
    tap: Annotated[str, AfterValidator(check_joined), Field(pattern=TAP_PATTERN, max_length=LONGEST_TAP)]
    unet: Below | None = None
    pipeline: Below | None = None
    adapter: Below
    steps: int = Field(ge=1, le=1000)
    guidance: float = Field(ge=0, le=100)
    scale: float = Field(ge=0, le=10)
    side: int | None = Field(None, ge=8, le=4096, multiple_of=8)
    dtype: Dtype = "float32"

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if (self.unet is None) == (self.pipeline is None):
            raise ValueError("a generator has a unet or a pipeline")
        if self.pipeline is None and self.dtype != "float32":
            raise ValueError("a unet runs in float32")
        return self


class Bundle(_Part):
    """The content of `portrait.json`, and its folder.

    `landmarks` are ten fractions: where eyes, nose and mouth corners lie in the photos that the encoder expects. Edits
    are appended to `prompt`, after a comma. `people` is a folder with the sample people.
    """

    folder: Path = Path()
    schema_version: Literal[1]
    image_encoder: Below
    recogniser: Below
    face_encoder: Below | None = None
    face_check: Below
    landmarks: Landmarks
    generators: tuple[GeneratorEntry, ...] = Field(max_length=64)
    prompt: str = Field(max_length=_MOST_PROMPT)
    people: Below | None = None

    @field_validator("generators")
    @classmethod
    def _tells_apart(cls, generators: tuple[GeneratorEntry, ...]) -> tuple[GeneratorEntry, ...]:
        # As file systems that fold case and accents would: a report has a file for each.
        names = [unicodedata.normalize("NFKC", entry.name).casefold() for entry in generators]
        if len(set(names)) != len(names):
            raise ValueError("two generators have one name")
        return generators

    @field_validator("prompt")
    @classmethod
    def _one_line(cls, prompt: str) -> str:
        if not prompt.isprintable():
            raise ValueError("holds a character that does not print")
        return prompt

    def entries(self, reads: Callable[[Tap], bool]) -> tuple[GeneratorEntry, ...]:
        """The generators whose tap is wanted, such as those that read a family (`Family.reads`)."""
        return tuple(entry for entry in self.generators if reads(entry.tap))

    @property
    def encoder_folder(self) -> Path:
        """The path of the image encoder."""
        return self.folder / self.image_encoder


def find_bundle(source: str, embedded: Path | None = None) -> Bundle | None:
    """The bundle that an encoder's source names; None if the source is only an encoder.

    Args:
        source: `encoder.source`: `portrait-mini`, or a folder with a `portrait.json`.
        embedded: used in place of the package's own folder.

    Raises:
        ModelError: the bundle does not exist, or its index cannot be used.
    """
    path = Path(source)
    if source == EMBEDDED and not path.exists():
        path = embedded or embedded_folder()
    elif not (path / INDEX).is_file():
        return None
    try:
        told = read_json(path / INDEX)
        bundle = Bundle.model_validate(told).model_copy(update={"folder": path})
        _stay_inside(bundle)
    except OSError:
        raise ModelError(
            f"The embedded encoder {EMBEDDED} is not part of this installation", "Name an encoder with --encoder"
        ) from None
    except ContentError as error:
        raise ModelError(f"The {INDEX} of {source} cannot be used: {error.fact}", _REMEDY) from None
    except ValidationError as error:
        raise ModelError(f"The {INDEX} of {source} cannot be used: {_mistake(error)}", _REMEDY) from None
    return bundle


def _stay_inside(bundle: Bundle) -> None:
    """Refuse a bundle if one of its own paths leads out of it, as written or through links.

    Raises:
        ContentError: one does.
    """
    for path in _paths(bundle):
        inside(bundle.folder, path, f"the path in {INDEX}")
    for name in _SHARED:
        if not leads_inside(bundle.folder, bundle.folder / name):
            raise ContentError(name, "is a link that leads out of the bundle")


def _paths(bundle: Bundle) -> Iterator[str]:
    yield from (bundle.image_encoder, bundle.recogniser, bundle.face_check)
    yield from (path for path in (bundle.face_encoder, bundle.people) if path is not None)
    for entry in bundle.generators:
        yield from (path for path in (entry.unet, entry.pipeline, entry.adapter) if path is not None)


def _mistake(error: ValidationError) -> str:
    """The first mistake: where it is and what it is, without the wrong value."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(printable(part, 40) for part in first["loc"])
    return f"{place or 'it'}: {printable(first['msg'].removeprefix('Value error, '), 120)}"


def embedded_folder() -> Path:
    """The package's own folder of `portrait-mini`."""
    return Path(str(resources.files("ireu_cli") / "portrait_mini"))
