"""Parameters of `verify`: the judges, the pictures, the attacks, and the limits."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from ireu_cli.params.base import FilePath, NameList, OptionalPath, Params, RateList, json_list


class RecogniserParams(Params):
    """A face recogniser that judges: an ONNX network that maps aligned faces to vectors, or an insightface pack.

    Pixels 0 to 255 enter as (x - mean) / std. Faces are aligned to ArcFace's template, with `margin` of its side as
    room around it.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,40}$", description="its name in the report")
    kind: Literal["onnx", "insightface"] = Field("onnx", description="an .onnx file, or a pack read by insightface")
    model: FilePath = Field(description="the .onnx file, or the folder of the pack (ROOT/models/PACK)")
    size: int = Field(112, ge=16, le=1024, description="side of the aligned face in pixels")
    colour: Literal["rgb", "bgr"] = Field("rgb", description="order of the channels")
    mean: tuple[float, float, float] = Field((127.5, 127.5, 127.5), description="subtracted from each channel")
    std: tuple[float, float, float] = Field((127.5, 127.5, 127.5), description="each channel is divided by")
    layout: Literal["nchw", "nhwc"] = Field("nchw", description="order of the input's axes")
    margin: float = Field(0.0, ge=-0.5, le=4, description="room around ArcFace's template, as a share of its side")


RecogniserList = Annotated[tuple[RecogniserParams, ...], BeforeValidator(json_list)]


class JudgesParams(Params):
    """The judges of identity in `verify`."""

    embedded: bool = Field(True, description="use the recognisers that come with the encoder, or with portrait-mini")
    recognisers: RecogniserList = Field(
        (), description="further recognisers: tables of name, kind, model, size, colour, mean, std, layout, margin"
    )
    min_recognisers: int = Field(2, ge=1, description="verify refuses to run if fewer recognisers than this may judge")
    min_accept_rate: float = Field(
        0.3,
        ge=0,
        le=1,
        description="control: share of pairs of photos of one retained person that a recogniser must match at "
        "verify.false_match_rate; with less it cannot tell people apart",
    )
    image_model: OptionalPath = Field(
        None,
        examples=["path/to/network.onnx"],
        description="an .onnx network for pictures (RGB, 224 px, 0 to 255); KID and FID are computed from its output "
        "too, beside the original encoder's features",
    )


class VerifyParams(Params):
    """Limits and sizes of the evidence, fixed before the run."""

    false_match_rate: float = Field(0.01, gt=0, lt=0.5, description="rate at which other people match a target")
    further_rates: RateList = Field(
        (0.001,), description="lower rates at which matches are counted too, if there are enough photos"
    )
    max_match_seen: float = Field(
        0.10, ge=0, le=1, description="largest share of target photos used in unlearning that may still match"
    )
    max_match_unseen: float = Field(
        0.10, ge=0, le=1, description="largest share of other target photos that may still match"
    )
    min_retained_similarity: float = Field(
        0.95, ge=-1, le=1, description="smallest cosine of retained features, before against after"
    )
    min_lookalike_similarity: float = Field(0.90, ge=-1, le=1, description="the same for the nearest retained people")
    max_retained_change: float = Field(
        0.4, ge=0, description="largest change of retained features, divided by their deviation from the mean of people"
    )
    max_lookalike_change: float = Field(0.5, ge=0, description="the same for the nearest retained people")
    max_null_change: float = Field(0.05, ge=0, description="largest relative change of the null images' features")
    min_original_match: float = Field(
        0.5, ge=0, le=1, description="control: smallest share of target photos that must match before the edit"
    )
    min_gallery_people: int = Field(20, ge=2, description="fewest retained people that a verdict needs")
    min_impostors_per_error: float = Field(
        2.0,
        gt=0,
        description="retained photos times false_match_rate must reach this number, and pairs of retained people "
        "times false_match_rate must reach 1; otherwise there are too few to measure the rate",
    )
    max_reidentified_seen: float = Field(
        0.10,
        ge=0,
        le=1,
        description="largest share of pictures from photos used in unlearning that the recogniser may still match",
    )
    max_reidentified_unseen: float = Field(
        0.10, ge=0, le=1, description="largest share of pictures from other target photos that it may still match"
    )
    min_delta_id: float = Field(
        0.4,
        ge=-2,
        le=2,
        description="smallest value of this difference: similarity of retained pictures, before against after, minus "
        "that of the targets' pictures",
    )
    min_retained_id: float = Field(
        0.8, ge=-1, le=1, description="smallest recogniser similarity of retained pictures, before against after"
    )
    min_lookalike_id: float = Field(0.7, ge=-1, le=1, description="the same for the look-alikes' pictures")
    min_retained_psnr: float = Field(
        25.0, ge=0, description="smallest PSNR in dB of retained pictures, before against after"
    )
    min_retained_ssim: float = Field(
        0.85, ge=-1, le=1, description="smallest SSIM of retained pictures, before against after"
    )
    min_faces: float = Field(
        0.9,
        ge=0,
        le=1,
        description="smallest share of pictures with a face; a control before the edit, a criterion after it",
    )
    max_adherence_drop: float = Field(
        0.1,
        ge=0,
        le=1,
        description="largest share of retained pictures that may no longer show the edit in their prompt",
    )
    min_original_reidentified: float = Field(
        0.5,
        ge=0,
        le=1,
        description="control: smallest share of the targets' pictures that the recogniser must match before the edit",
    )
    max_attack_success: float = Field(
        0.25,
        ge=0,
        le=1,
        description="largest share of attempts that the most successful attack may win; attacks that need the "
        "original encoder are reported but not judged",
    )
    max_others_removed: float = Field(
        0.05,
        ge=0,
        le=1,
        description="control: largest share of retained people that the criteria for targets may call removed",
    )
    pictures: bool = Field(
        False,
        description="put grids of photos and drawn pictures into the report (--with-pictures); they show people",
    )
    keep_images: bool = Field(False, description="put every drawn picture under images/ in the report, with an index")
    require_unseen: bool = Field(
        True, description="whether the run is inconclusive without other photos of the targets"
    )
    min_unseen_photos: int = Field(
        3,
        ge=1,
        description="control: fewest target photos that unlearning did not use and that are not copies of "
        "photos it used",
    )
    lookalike_share: float = Field(0.1, gt=0, le=1, description="share of retained people that count as look-alikes")
    bootstrap: int = Field(1000, ge=100, le=100_000, description="number of resamples for each interval")


class PicturesParams(Params):
    """Which pictures `verify` draws with each generator of the encoder, before and after the edit."""

    generators: NameList = Field(("all",), description="generators to draw with: all, none, or names such as A,B")
    target_photos: int = Field(5, ge=1, description="photos of each target: at most so many seen, and so many unseen")
    people: int = Field(30, ge=2, description="number of retained people, besides the look-alikes")
    look_alikes: int = Field(
        10, ge=1, description="number of look-alikes: the retained people whom the recogniser finds nearest to a target"
    )
    photos: int = Field(2, ge=1, description="photos of each retained person and look-alike")
    seeds: int = Field(
        2, ge=1, le=1000, description="pictures of each photo with the base prompt, each from different noise"
    )
    edits: NameList = Field(
        ("dark", "black and white", "blurred", "close-up", "facing left", "blue background"),
        description="edits that prompts ask for, used in turn; empty for none",
    )
    edits_per_photo: int = Field(1, ge=0, description="pictures of each photo with an edit")

    @property
    def drawn_edits(self) -> int:
        """The number of edits drawn from each photo."""
        return min(self.edits_per_photo, len(self.edits))


class AttacksParams(Params):
    """The attacks of `verify`, which try to bring the targets back."""

    suite: NameList = Field(("all",), description="attacks to try: all, none, or names")
    people: int = Field(5, ge=1, description="number of targets that are attacked")
    photos: int = Field(4, ge=1, description="photos of each target that are attacked, unseen ones first")
    drawn: int = Field(2, ge=0, description="how many of these photos generators draw from under attack; 0: none")
    seeds: int = Field(
        8, ge=2, le=1000, description="number of pictures from which the attacker takes the best, for the attack seeds"
    )
    pgd_steps: int = Field(20, ge=1, description="gradient steps of adversarial noise against the encoder")
    generator_steps: int = Field(8, ge=1, description="gradient steps of adversarial noise through a generator")
    relearn_steps: int = Field(60, ge=0, description="steps of fine-tuning the edited encoder; 0: none")
    relearn_photos: int = Field(5, ge=1, description="photos of the target for the fine-tuning")
    relearn_rate: float = Field(1e-4, gt=0, description="Adam's learning rate for the fine-tuning")


class RecordParams(Params):
    """Entries of the operator for the erasure record; they never change a result."""

    case_id: str | None = Field(None, examples=["2026-017"], description="the operator's number for the case")
    request_date: str | None = Field(None, examples=["2026-01-31"], description="when the person asked, as YYYY-MM-DD")
    legal_basis: str | None = Field(None, examples=["GDPR Art. 17(1)(c)"], description="such as GDPR Art. 17(1)(c)")
    requester_verified_by: str | None = Field(
        None, examples=["identity document"], description="how the requester's identity was verified; no personal data"
    )
    photos_deleted_by: str | None = Field(
        None, examples=["2026-03-31"], description="when the person's photos are deleted, as YYYY-MM-DD"
    )
    encoder_source: str | None = Field(
        None, examples=["https://example.com/encoder"], description="where the encoder came from"
    )
    encoder_licence: str | None = Field(None, examples=["Apache-2.0"], description="its licence")
    approved_by: str | None = Field(None, examples=["data protection officer"], description="who approved the erasure")
    recipients: NameList = Field((), description="who received the exported encoder")
    supersedes: str | None = Field(None, examples=["2026-009"], description="the case that this one replaces")
    superseded_by: str | None = Field(None, examples=["2026-021"], description="the case that replaces this one")

    @field_validator("request_date", "photos_deleted_by", mode="before")
    @classmethod
    def _date_as_text(cls, value: Any) -> Any:
        """Accept TOML's own dates, which come without quotes."""
        return value.isoformat() if isinstance(value, date) else value

    @field_validator("*")
    @classmethod
    def _stated(cls, value: Any) -> Any:
        """Treat an empty text as no entry."""
        return value.strip() or None if isinstance(value, str) else value

    @field_validator("request_date", "photos_deleted_by")
    @classmethod
    def _is_date(cls, value: str | None) -> str | None:
        try:
            # Convert and convert back, because weeks and dates without hyphens are ISO dates too.
            if value is None or date.fromisoformat(value).isoformat() == value:
                return value
        except ValueError:
            pass
        raise ValueError("must be a date as YYYY-MM-DD")
