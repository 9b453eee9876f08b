"""What all parameters share: their types, the reading of lists from flags, and their base."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from ireu_cli.layouts.table import AUTO, layout_names
from ireu_cli.params.names import Names
from ireu_cli.support.bounded import ContentError, read_json

Source = Literal["flag", "environment", "file", "manifest", "default"]
"""Where the value of a setting comes from."""
FacesMode = Literal["aligned", "detect"]
LocateMethod = Literal["swap", "variance", "saliency", "random", "all"]
METHODS = Names("ireu", "global", "gated", "block")
UnlearnMethod = Annotated[str, BeforeValidator(METHODS.checked)]
FoundIn = Literal["auto", "class_token", "all_tokens"]
Swapper = Literal["blend", "insightface", "pairs"]
Scope = Literal["global", "person", "photo"]
Dtype = Literal["float32", "float16", "bfloat16"]


def _format(value: Any) -> Any:
    """The name of a layout; those that joined since count too."""
    return Names(AUTO, *layout_names()).checked(value)


ExportFormat = Annotated[str, BeforeValidator(_format)]

# (x, y) of left eye, right eye, nose, left and right mouth corner as fractions of the picture: the 112 px
# ArcFace template that insightface aligns to, seen from the viewer's left.
ARCFACE_LANDMARKS = (0.3419, 0.4616, 0.6565, 0.4598, 0.5002, 0.6405, 0.3709, 0.8247, 0.6315, 0.8232)


def comma_separated(value: Any) -> Any:
    """Turn one string from a flag or the environment into a list."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def json_list(value: Any) -> Any:
    """Turn one string of JSON from a flag or the environment into a list of tables."""
    if not isinstance(value, str):
        return value
    try:
        # Paths in it may be any bytes.
        return read_json(value.encode(errors="backslashreplace"), surrogates=True) if value.strip() else []
    except ContentError as error:
        raise ValueError(f"must be a list of tables, written as JSON in a flag; it {error.why}") from None


def _not_empty(value: Any) -> Any:
    """Refuse an empty path: it would stand for the working folder."""
    if isinstance(value, str) and not value.strip():
        raise ValueError("is empty")
    return value


def _stated(value: Any) -> Any:
    """Treat an empty text as not given."""
    return None if isinstance(value, str) and not value.strip() else value


PLACE = BeforeValidator(_not_empty)
"""Marks a setting that names a file or a folder."""
FilePath = Annotated[Path, PLACE]
OptionalPath = Annotated[Path | None, PLACE]


def _part(value: Any) -> Any:
    """Refuse what is not a part of a whole, such as 17/256."""
    if not isinstance(value, str):
        return value
    number, _, count = value.strip().partition("/")
    is_whole = number.isdecimal() and count.isdecimal()
    if not (is_whole and len(count) < 7 and len(number) < 7 and 1 <= int(number) <= int(count)):
        raise ValueError("must be NUMBER/COUNT, such as 17/256, with numbers from 1")
    return f"{int(number)}/{int(count)}"


OptionalText = Annotated[str | None, BeforeValidator(_stated)]
OptionalShard = Annotated[str | None, BeforeValidator(_part)]


Fraction = Annotated[float, Field(ge=-1, le=2)]
"""A fraction of a picture's side; in a tight crop a mouth corner may lie outside the picture."""
Landmarks = Annotated[tuple[Fraction, ...], BeforeValidator(comma_separated), Field(min_length=10, max_length=10)]
RateList = Annotated[tuple[Annotated[float, Field(gt=0, lt=0.5)], ...], BeforeValidator(comma_separated)]
NameList = Annotated[tuple[str, ...], BeforeValidator(comma_separated)]


class Params(BaseModel):
    """Base of all parameter sets: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
