"""Parameters of `verify`: who judges, what is drawn and tried, and what is asked of it."""

from datetime import date
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from ireu_cli.params.base import FilePath, NameList, OptionalPath, Params, RateList, json_list


class RecogniserParams(Params):
    """A face recogniser that measures: an ONNX network that maps aligned faces to vectors, or an insightface pack.

    Pixels 0 to 255 enter as (x - mean) / std. Faces are aligned to ArcFace's template, `margin` of its side as room.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,40}$", description="what the report calls it")
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
    """Who measures identity in `verify`."""

    embedded: bool = Field(True, description="use the recognisers that come with the encoder, or with portrait-mini")
    recognisers: RecogniserList = Field(
        (), description="more of them: tables of name, kind, model, size, colour, mean, std, layout, margin"
    )
    min_recognisers: int = Field(2, ge=1, description="with fewer that may judge, verify refuses to run")
    min_accept_rate: float = Field(
        0.3,
        ge=0,
        le=1,
        description="control: pairs of photos of one retained person that a recogniser has to match at "
        "verify.false_match_rate, or it cannot tell people apart",
    )
    image_model: OptionalPath = Field(
        None,
        examples=["path/to/network.onnx"],
        description="an .onnx network of pictures (RGB, 224 px, 0 to 255) whose output serves for KID and FID beside "
        "the original encoder's features",
    )


class VerifyParams(Params):
    """Thresholds and sizes of the evidence, fixed before the run."""

    false_match_rate: float = Field(0.01, gt=0, lt=0.5, description="rate at which other people match a target")
    further_rates: RateList = Field(
        (0.001,), description="lower rates at which matches are counted too, where there are photos enough"
    )
    max_match_seen: float = Field(0.10, ge=0, le=1, description="target photos used in unlearning that still match")
    max_match_unseen: float = Field(0.10, ge=0, le=1, description="other photos of the targets that still match")
    min_retained_similarity: float = Field(0.95, ge=-1, le=1, description="cosine of retained features, before/after")
    min_lookalike_similarity: float = Field(0.90, ge=-1, le=1, description="the same for the nearest retained people")
    max_retained_change: float = Field(
        0.4, ge=0, description="change of retained features over their deviation from the mean of people"
    )
    max_lookalike_change: float = Field(0.5, ge=0, description="the same for the nearest retained people")
    max_null_change: float = Field(0.05, ge=0, description="relative change of the null images' features")
    min_original_match: float = Field(0.5, ge=0, le=1, description="control: photos that match before the edit")
    min_gallery_people: int = Field(20, ge=2, description="retained people needed to say anything")
    min_impostors_per_error: float = Field(
        2.0,
        gt=0,
        description="retained photos times false_match_rate must reach this, and pairs of retained people times it 1, "
        "or the rate is not resolved",
    )
    max_reidentified_seen: float = Field(
        0.10, ge=0, le=1, description="pictures drawn from photos used in unlearning that the recogniser still matches"
    )
    max_reidentified_unseen: float = Field(
        0.10, ge=0, le=1, description="pictures drawn from other photos of the targets that it still matches"
    )
    min_delta_id: float = Field(
        0.4, ge=-2, le=2, description="similarity before/after of retained pictures less that of the targets'"
    )
    min_retained_id: float = Field(
        0.8, ge=-1, le=1, description="recogniser similarity of retained pictures, before/after"
    )
    min_lookalike_id: float = Field(0.7, ge=-1, le=1, description="the same for the look-alikes' pictures")
    min_retained_psnr: float = Field(25.0, ge=0, description="PSNR in dB of retained pictures, before/after")
    min_retained_ssim: float = Field(0.85, ge=-1, le=1, description="SSIM of retained pictures, before/after")
    min_faces: float = Field(
        0.9, ge=0, le=1, description="share of pictures with a face; before the edit a control, after it a criterion"
    )
    max_adherence_drop: float = Field(
        0.1, ge=0, le=1, description="share of retained pictures that stop showing the edit asked for"
    )
    min_original_reidentified: float = Field(
        0.5, ge=0, le=1, description="control: pictures of the targets that the recogniser matches before the edit"
    )
    max_attack_success: float = Field(
        0.25,
        ge=0,
        le=1,
        description="attempts that the most successful attack may win; attacks that need the original encoder are "
        "reported and not judged",
    )
    max_others_removed: float = Field(
        0.05, ge=0, le=1, description="control: retained people whom the criteria on targets would call removed"
    )
    pictures: bool = Field(
        False,
        description="put grids of photos and drawn pictures into the report (--with-pictures); they show people",
    )
    keep_images: bool = Field(False, description="leave every drawn picture under images/ in the report, with an index")
    require_unseen: bool = Field(True, description="without other photos of the targets the run is inconclusive")
    min_unseen_photos: int = Field(
        3,
        ge=1,
        description="control: photos of the targets that unlearning did not use, nor copies of those that it used",
    )
    lookalike_share: float = Field(0.1, gt=0, le=1, description="share of retained people reported as look-alikes")
    bootstrap: int = Field(1000, ge=100, le=100_000, description="resamples behind each interval")


class PicturesParams(Params):
    """Which pictures `verify` draws with each generator of the encoder, before and after the edit."""

    generators: NameList = Field(("all",), description="generators to draw with: all, none, or names such as A,B")
    target_photos: int = Field(5, ge=1, description="photos of each target: at most so many seen, and so many unseen")
    people: int = Field(30, ge=2, description="retained people, beside the look-alikes")
    look_alikes: int = Field(10, ge=1, description="retained people whom the recogniser finds nearest to a target")
    photos: int = Field(2, ge=1, description="photos of each retained person and look-alike")
    seeds: int = Field(2, ge=1, le=1000, description="pictures of each photo with the base prompt, each of other noise")
    edits: NameList = Field(
        ("dark", "black and white", "blurred", "close-up", "facing left", "blue background"),
        description="edits that prompts ask for, taken in turn; empty for none",
    )
    edits_per_photo: int = Field(1, ge=0, description="pictures of each photo with an edit")

    @property
    def drawn_edits(self) -> int:
        """How many edits are drawn of each photo."""
        return min(self.edits_per_photo, len(self.edits))


class AttacksParams(Params):
    """What `verify` tries in order to bring the targets back."""

    suite: NameList = Field(("all",), description="attacks to try: all, none, or names")
    people: int = Field(5, ge=1, description="targets that are attacked")
    photos: int = Field(4, ge=1, description="photos of each that are attacked, unseen ones first")
    drawn: int = Field(2, ge=0, description="of them, photos of each that generators draw from under attack; 0: none")
    seeds: int = Field(8, ge=2, le=1000, description="pictures of which the attacker takes the best, attack seeds")
    pgd_steps: int = Field(20, ge=1, description="gradient steps of adversarial noise against the encoder")
    generator_steps: int = Field(8, ge=1, description="gradient steps of adversarial noise through a generator")
    relearn_steps: int = Field(60, ge=0, description="steps of fine-tuning the edited encoder; 0: none")
    relearn_photos: int = Field(5, ge=1, description="photos of the target that it is fine-tuned on")
    relearn_rate: float = Field(1e-4, gt=0, description="Adam's learning rate in it")


class RecordParams(Params):
    """What the operator states for the erasure record; none of it changes a result."""

    case_id: str | None = Field(None, examples=["2026-017"], description="the operator's number of the case")
    request_date: str | None = Field(None, examples=["2026-01-31"], description="when the person asked, as YYYY-MM-DD")
    legal_basis: str | None = Field(None, examples=["GDPR Art. 17(1)(c)"], description="such as GDPR Art. 17(1)(c)")
    requester_verified_by: str | None = Field(
        None, examples=["identity document"], description="how the requester was verified; no personal data"
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
    supersedes: str | None = Field(None, examples=["2026-009"], description="case that this one replaces")
    superseded_by: str | None = Field(None, examples=["2026-021"], description="case that replaces this one")

    @field_validator("request_date", "photos_deleted_by", mode="before")
    @classmethod
    def _date_as_text(cls, value: Any) -> Any:
        """TOML has dates of its own, which come without quotes."""
        return value.isoformat() if isinstance(value, date) else value

    @field_validator("*")
    @classmethod
    def _stated(cls, value: Any) -> Any:
        """An empty text states nothing."""
        return value.strip() or None if isinstance(value, str) else value

    @field_validator("request_date", "photos_deleted_by")
    @classmethod
    def _is_date(cls, value: str | None) -> str | None:
        try:
            # Back and forth, since weeks and dates without hyphens are ISO dates too.
            if value is None or date.fromisoformat(value).isoformat() == value:
                return value
        except ValueError:
            pass
        raise ValueError("must be a date as YYYY-MM-DD")
