"""Parameters of making an edit: run, encoder, photos, locate, unlearn, export."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ireu_cli.layouts.table import AUTO, layout_names
from ireu_cli.params.base import (
    ARCFACE_LANDMARKS,
    PLACE,
    Dtype,
    ExportFormat,
    FacesMode,
    FilePath,
    FoundIn,
    Landmarks,
    LocateMethod,
    NameList,
    OptionalPath,
    OptionalShard,
    OptionalText,
    Params,
    Scope,
    Swapper,
    UnlearnMethod,
)
from ireu_cli.params.taps import Tap

_PICTURES_TOGETHER = 8
"""How many pictures are drawn at once where nobody says and there is a GPU."""
_READERS = 2
"""The number of photos read at once beside an encoder on the CPU; decoding releases the interpreter lock."""


class RunParams(Params):
    """How a run behaves.

    Of these, only `device`, `batch_size`, `picture_batch` and `shard_batches` change results, in last digits.
    """

    run_dir: FilePath = Field(Path(".ireu"), description="private folder for runs: key, cached features, checkpoints")
    register_file: OptionalPath = Field(
        None, examples=["cases/register.jsonl"], description="register of cases; unset: register.jsonl in run_dir"
    )
    device: str = Field("cpu", min_length=1, max_length=64, description="torch device: cpu, cuda, cuda:1, mps")
    batch_size: int = Field(16, ge=1, description="photos encoded at once")
    picture_batch: Annotated[int, Field(ge=1, le=4096)] | Literal["auto"] = Field(
        "auto", description="pictures drawn at once by one call of a generator; auto: 1 on a CPU, 8 elsewhere"
    )
    readers: Annotated[int, Field(ge=1, le=256)] | Literal["auto"] = Field(
        "auto", description="photos read at once; auto: 2 for an encoder on a CPU, else as many as there are cores"
    )
    executor: Literal["local", "ray"] = Field(
        "local", description="who does the work: local (this machine) or ray (a cluster, or a local one)"
    )
    processes: int = Field(1, ge=1, le=1024, description="processes, or workers on ray, that share the work")
    ray_address: OptionalText = Field(
        None, examples=["auto"], description="ray: address of the cluster; unset: a local one"
    )
    worker_gpus: float = Field(0.0, ge=0, description="ray: GPUs of a worker")
    shard: OptionalShard = Field(
        None, examples=["17/256"], description="do only this part of the work, for job arrays; no artifact is written"
    )
    shard_batches: int = Field(8, ge=1, description="batches in a shard, which is done by one process at a time")
    patience_seconds: float = Field(
        0.0, ge=0, description="with shard: wait so long for other parts that make no progress"
    )
    stale_seconds: float = Field(
        30.0, gt=0, description="a shard whose process has not been heard of for so long is done again"
    )
    checkpoint_seconds: float = Field(
        30.0, ge=0, description="time between checkpoints: a killed run loses at most this much work"
    )

    @property
    def pictures_together(self) -> int:
        """How many pictures a generator draws in one call."""
        if self.picture_batch != "auto":
            return self.picture_batch
        return 1 if self.is_on_cpu else _PICTURES_TOGETHER

    @property
    def photos_at_once(self) -> int:
        """How many photos are read at once, by threads."""
        if self.readers != "auto":
            return self.readers
        return _READERS if self.is_on_cpu else max(_READERS, os.cpu_count() or 1)

    @property
    def is_on_cpu(self) -> bool:
        """Whether networks run on the CPU."""
        return self.device.startswith("cpu")


class EncoderParams(Params):
    """The encoder, and the tensor of it that the generator reads."""

    source: Annotated[str, PLACE] = Field(
        "portrait-mini",
        description="portrait-mini (embedded), a folder of a CLIPVisionModelWithProjection or of SigLIP, a file of "
        "weights, owner/model or owner/model:folder of the hub, or an ArcFace network (.onnx file, insightface pack)",
    )
    revision: OptionalText = Field(None, examples=["main"], description="revision of a hub id")
    tap: Tap = Field(
        "image_embeds",
        description="tensor that the generator reads; embedding and normed_embedding are for ArcFace networks; block-N "
        "is what enters block N, and + joins several, such as block-2+block-4+pooled",
    )
    dtype: Dtype = Field("float32", description="dtype that the encoder runs in")
    groups: NameList = Field(
        (),
        description="groups of `ireu inspect --systems` that this file belongs to; none: all that its sizes and layout "
        "allow",
    )


class DataParams(Params):
    """The photos, and how they are read."""

    targets: OptionalPath = Field(
        None, examples=["path/to/faces"], description="people to unlearn: DIR/<person>/*.jpg, or DIR/*.jpg for one"
    )
    retain: OptionalPath = Field(
        None, examples=["path/to/others"], description="other people, whose pictures must not change; same layout"
    )
    max_photos: int | None = Field(
        None, examples=[5], ge=1, description="use at most this many photos of each target (seeded choice)"
    )
    retain_holdout: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of retained people that unlearning never sees, so that verify can measure them",
    )
    bad_photos: Literal["error", "skip"] = Field(
        "error", description="whether an unreadable photo ends the run or is skipped"
    )
    labels: OptionalPath = Field(
        None,
        examples=["path/to/labels.csv"],
        description="CSV file: the first column is the folder name of a person, the other columns are labels; "
        "results on retained people are split by each label",
    )
    faces: FacesMode = Field(
        "aligned",
        description="aligned: the encoder sees the photos as they are; detect: find and crop the face first",
    )
    landmarks: Landmarks | None = Field(
        None,
        examples=[ARCFACE_LANDMARKS],
        description="aligned photos: x, y of eyes, nose, mouth corners as fractions of the picture; unset: the "
        "positions that portrait-mini expects, and ArcFace's for every other encoder",
    )
    face_models: OptionalPath = Field(
        None, examples=["path/to/insightface"], description="detect: root folder of insightface (holds models/<pack>/)"
    )
    face_pack: str = Field("buffalo_l", min_length=1, max_length=64, description="detect: name of the insightface pack")
    crop_size: int = Field(224, ge=32, le=4096, description="detect: side of the aligned crop in pixels")
    crop_margin: float = Field(
        0.6, ge=0, le=4, description="detect: room around the ArcFace template, as a share of it"
    )
    max_megapixels: float = Field(64.0, gt=0, description="larger pictures are refused before they are decoded")


class LocateParams(Params):
    """How identity-related features are found."""

    method: LocateMethod = Field(
        "swap", description="swap (as in the paper), variance, saliency, or the controls random and all"
    )
    top_fraction: float = Field(0.4, gt=0, le=1, description="share k of the features that the mask keeps")
    swapper: Swapper = Field("blend", description="swap: built-in blend, an insightface inswapper, or your own pairs")
    swapper_model: OptionalPath = Field(
        None, examples=["path/to/inswapper_128.onnx"], description="swap: the inswapper .onnx for swapper = insightface"
    )
    pairs: OptionalPath = Field(
        None,
        examples=["path/to/pairs"],
        description="swap: your pairs, DIR/<person>/<photo name>/*.jpg, for swapper = pairs",
    )
    partners: int = Field(10, ge=1, description="swap: number of other people whose face is put into each photo")
    saliency_steps: int = Field(4, ge=1, le=1000, description="saliency: denoising steps for each sketch")
    saliency_draws: int = Field(
        4, ge=1, le=1000, description="saliency: sketches for each photo, each from different noise"
    )
    interchange_pairs: int = Field(
        8, ge=0, description="pairs of people whose masked features are exchanged and drawn, as evidence; 0: none"
    )


class UnlearnParams(Params):
    """How the encoder is edited. For training, values are the paper's if it states them."""

    method: UnlearnMethod = Field(
        "gated",
        description="gated (closed form; see [gated]), ireu (the paper's method: masked, by gradient), global (the "
        "paper's baseline: no mask), or block (ireu's losses on one block, towards the average of people)",
    )
    alpha: float = Field(
        100.0, gt=0, description="length of the step from the photo's features to its virtual identity"
    )
    forget_weight: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="weight of the forget loss (the paper's lambda 1); auto: 0.1 as published, for block 1"
    )
    learning_rate: Annotated[float, Field(gt=0)] | Literal["auto"] = Field(
        "auto", description="Adam's learning rate; auto: 1e-5 as published, for block 3e-4"
    )
    steps: Annotated[int, Field(ge=1, le=10_000_000)] | Literal["auto"] = Field(
        "auto",
        description="optimiser steps; auto: 1000 for one person, 2400 a person for more (12,000 for five); for block "
        "at most 1000",
    )
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="number of target photos, and of retained photos, in one step; auto: 1 as published, for block 8",
    )
    systems: NameList = Field(
        (),
        description="generators that the edit must reach, by their names in `ireu inspect --systems`; none: those that "
        "read the tap",
    )
    layers: str = Field(
        "all",
        description="parts to train: all, or a list of embeddings, pre_layernorm, block:N, blocks:A-B, "
        "post_layernorm, projection; for SigLIP also head",
    )
    direction: Literal["away", "toward"] = Field(
        "away", description="direction of the step: away from the swapped face, as in the paper, or toward it"
    )
    mask_scope: Scope = Field(
        "global", description="one mask for all, or one with the top features of each person or photo"
    )
    average_partners: bool = Field(
        True, description="whether the shift is averaged over all partners, or is that of the first partner only"
    )
    null_share: float = Field(
        0.1, ge=0, lt=1, description="share of retained samples that are one of the two null images"
    )
    divergence_factor: float = Field(
        2.0,
        gt=1,
        description="stop when a loss exceeds this multiple of the largest value that it may have at the start",
    )


class GatedParams(Params):
    """How the method `gated` finds and changes people; `block` also reads its copies, gain and number of photos."""

    people: int = Field(
        10,
        ge=1,
        description="total number of people that this encoder may have to unlearn; each gets an equal share of "
        "false_alarms",
    )
    false_alarms: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="share of other people's photos that may be changed, for all unlearned people together",
    )
    max_false_alarm: float = Field(0.01, gt=0, lt=0.5, description="largest such share for one person")
    copies: NameList = Field(
        ("flip", "crop-0.9", "crop-0.8", "zoom-out-0.8", "brightness-0.5", "grey"),
        description="disguises: each photo is also learnt from in copies that are changed this way",
    )
    confine: bool = Field(
        False,
        description="change only the features of the mask: less of the target's picture changes, and more of the "
        "target's identity stays",
    )
    gain: float = Field(
        2.0,
        gt=0,
        le=4,
        description="other taps: how far features are moved; 1 moves the person's mean to the average of people",
    )
    found_in: FoundIn = Field(
        "auto",
        description="where people are found: class_token, or all_tokens, averaged by attention heads; auto: the class "
        "token, and all tokens where taps of many tokens are read and the encoder has none",
    )
    rank: int = Field(128, ge=1, description="token taps: number of hidden units that erase; all people share them")
    erase_gain: float = Field(
        2.0,
        gt=0,
        le=4,
        description="token taps: strength; 1 erases what tells people apart, 2 turns it into its opposite",
    )
    erase_photos: int = Field(
        1024, ge=100, description="token taps: number of retained photos that erasing is learnt from"
    )
    shrinkage: float = Field(
        0.5,
        gt=0,
        le=10,
        description="how strongly the covariance within people is shrunk towards equal variances; use more with few "
        "photos. A tenth of it is used where people are found in all tokens",
    )
    rise: float = Field(
        0.25,
        gt=0,
        le=2,
        description="width of the step from no change to the whole change, in standard deviations of one "
        "person's photos",
    )
    sharpness: float = Field(8.0, ge=4, le=64, description="sharpness of the corners of that step")


class ExportParams(Params):
    """What the drop-in encoder looks like."""

    format: ExportFormat = Field(
        AUTO,
        description=f"layout of the exported encoder: {', '.join(layout_names())}, or {AUTO} for the one that it has",
    )
    dtype: Dtype | Literal["auto"] = Field(
        "auto",
        description="dtype of the exported weights, also used when the export is verified again; auto: the dtype of "
        "the source",
    )
    min_edit_kept: float = Field(0.5, gt=0, le=1, description="share of the edit that must survive rounding")
