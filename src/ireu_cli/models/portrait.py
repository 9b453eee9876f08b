"""A portrait bundle: an encoder with the generators that share it, a recogniser and a face check, in one folder.

`portrait-mini` is the bundle that comes with the package; a folder that holds a `portrait.json` is another one.
"""

from importlib import resources
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ireu_cli.errors import ModelError
from ireu_cli.params import FACE_TAPS, Dtype, Landmarks, Tap

EMBEDDED = "portrait-mini"
"""What `encoder.source` calls the bundle of the package."""
INDEX = "portrait.json"


class _Part(BaseModel):
    # Later versions of the index may say more; what is not read here does not decide a picture.
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class GeneratorEntry(_Part):
    """One generator: the tap it reads, where its weights lie in the bundle, and the settings it draws with.

    `unet` is a U-Net of its own beside the parts that the bundle's generators share; `pipeline` is a folder that
    diffusers saved a whole pipeline in. `side` is in pixels, by default the pipeline's own.
    """

    name: str
    tap: str
    unet: str | None = None
    pipeline: str | None = None
    adapter: str
    steps: int
    guidance: float
    scale: float
    side: int | None = Field(None, ge=8, multiple_of=8)
    dtype: Dtype = "float32"

    @model_validator(mode="after")
    def _one_body(self) -> Self:
        if (self.unet is None) == (self.pipeline is None):
            raise ValueError("a generator has a unet or a pipeline")
        if self.pipeline is None and self.dtype != "float32":
            raise ValueError("a unet runs in float32")
        return self


class Bundle(_Part):
    """The content of `portrait.json`, and the folder it lies in.

    `landmarks` are ten fractions: where eyes, nose and mouth corners lie in the photos that the encoder expects.
    `prompt` is what the edits are appended to, after a comma; `people` a folder with the sample people.
    """

    folder: Path = Path()
    schema_version: Literal[1]
    image_encoder: str
    recogniser: str
    face_encoder: str | None = None
    face_check: str
    landmarks: Landmarks
    generators: tuple[GeneratorEntry, ...]
    prompt: str
    people: str | None = None

    def entries(self, beside: Tap = "image_embeds") -> tuple[tuple[GeneratorEntry, Tap], ...]:
        """The generators that read a tap of the same encoder as one that reads `beside`; others are passed over."""
        is_face = beside in FACE_TAPS
        taps: dict[str, Tap] = {tap: tap for tap in get_args(Tap) if (tap in FACE_TAPS) == is_face}
        return tuple((entry, taps[entry.tap]) for entry in self.generators if entry.tap in taps)

    @property
    def encoder_folder(self) -> Path:
        """Where the image encoder lies."""
        return self.folder / self.image_encoder


def find_bundle(source: str, embedded: Path | None = None) -> Bundle | None:
    """The bundle that an encoder's source names; None when the source is an encoder alone.

    Args:
        source: `encoder.source`: `portrait-mini`, or a folder with a `portrait.json`.
        embedded: stands in for the package's own folder.

    Raises:
        ModelError: the bundle is not there, or its index cannot be used.
    """
    path = Path(source)
    if source == EMBEDDED and not path.exists():
        path = embedded or embedded_folder()
    elif not (path / INDEX).is_file():
        return None
    try:
        text = (path / INDEX).read_text(encoding="utf-8")
    except OSError:
        raise ModelError(
            f"The embedded encoder {EMBEDDED} is not part of this installation", "Name an encoder with --encoder"
        ) from None
    try:
        return Bundle.model_validate_json(text).model_copy(update={"folder": path})
    except (ValidationError, ValueError):
        raise ModelError(
            f"The {INDEX} of {source} cannot be used", "Install the package again, or name another encoder"
        ) from None


def embedded_folder() -> Path:
    """Where the package keeps `portrait-mini`."""
    return Path(str(resources.files("ireu_cli") / "portrait_mini"))
