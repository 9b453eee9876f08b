"""Every setting of every step: what was asked for, nothing about how it went.

One frozen model serves as the section of `ireu.toml`, as the argument of the step, and as the record in the
manifest. Descriptions become the comments of `ireu.toml.example`.
"""

from pydantic import Field

from ireu_cli.params.base import (
    ARCFACE_LANDMARKS,
    METHODS,
    Dtype,
    ExportFormat,
    FacesMode,
    FoundIn,
    Landmarks,
    LocateMethod,
    NameList,
    Params,
    RateList,
    Scope,
    Source,
    Swapper,
    UnlearnMethod,
)
from ireu_cli.params.evidence import (
    AttacksParams,
    JudgesParams,
    PicturesParams,
    RecogniserParams,
    RecordParams,
    VerifyParams,
)
from ireu_cli.params.steps import (
    DataParams,
    EncoderParams,
    ExportParams,
    GatedParams,
    LocateParams,
    RunParams,
    UnlearnParams,
)
from ireu_cli.params.taps import (
    LONGEST_TAP,
    TAP_PATTERN,
    TAPS,
    Tap,
    check_joined,
    depth_of,
    has_depths,
    parts_of,
    unknown_parts,
)

__all__ = [
    "ARCFACE_LANDMARKS",
    "LONGEST_TAP",
    "METHODS",
    "TAPS",
    "TAP_PATTERN",
    "AttacksParams",
    "Config",
    "DataParams",
    "Dtype",
    "EncoderParams",
    "ExportFormat",
    "ExportParams",
    "FacesMode",
    "FoundIn",
    "GatedParams",
    "JudgesParams",
    "Landmarks",
    "LocateMethod",
    "LocateParams",
    "NameList",
    "Params",
    "PicturesParams",
    "RateList",
    "RecogniserParams",
    "RecordParams",
    "RunParams",
    "Scope",
    "Source",
    "Swapper",
    "Tap",
    "UnlearnMethod",
    "UnlearnParams",
    "VerifyParams",
    "check_joined",
    "depth_of",
    "has_depths",
    "parts_of",
    "unknown_parts",
]


class Config(Params):
    """The whole of `ireu.toml`."""

    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random choice")
    run: RunParams = RunParams()
    encoder: EncoderParams = EncoderParams()
    data: DataParams = DataParams()
    locate: LocateParams = LocateParams()
    unlearn: UnlearnParams = UnlearnParams()
    gated: GatedParams = GatedParams()
    verify: VerifyParams = VerifyParams()
    pictures: PicturesParams = PicturesParams()
    judges: JudgesParams = JudgesParams()
    attacks: AttacksParams = AttacksParams()
    record: RecordParams = RecordParams()
    export: ExportParams = ExportParams()
