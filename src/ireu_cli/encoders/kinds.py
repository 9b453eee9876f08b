"""All families of encoders under one roof: which one a source and a tap name."""

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from ireu_cli.encoders import clip
from ireu_cli.encoders.clip import Encoder
from ireu_cli.encoders.face_encoder import FaceEncoder, load_face_encoder
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.clip_files import checkpoint_of
from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.reach import Reach
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.params import FACE_TAPS, EncoderParams, Tap
from ireu_cli.values import WeightDelta


def load_encoder(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> ImageEncoder:
    """Load the encoder that has the tap; a bundle may hold one of each kind.

    Args:
        params: source, tap and dtype.
        landmarks: where faces lie in the photos, as ten fractions; face-embedding networks align by them.
        device: torch device.

    Raises:
        ConfigError: the source has no such tap, or the dtype is not one that it runs in.
        ModelError: it cannot be loaded.
    """
    place = face_network(params.source)
    if params.tap not in FACE_TAPS:
        if place is not None and find_bundle(params.source) is None:
            raise ConfigError(
                f"A face-embedding network has no tap {params.tap}", f"Use --tap {' or --tap '.join(FACE_TAPS)}"
            )
        return clip.load_encoder(params, device)
    if place is None:
        raise ConfigError(
            f"Only face-embedding networks have a tap {params.tap}, and {params.source} is not an .onnx file",
            "Name an .onnx file with --encoder, or another --tap",
        )
    if params.dtype != "float32":
        raise ConfigError(
            f"An ONNX network runs in the precision that it was saved in, not in {params.dtype}", "Leave out the dtype"
        )
    return load_face_encoder(place, landmarks, device)


def face_network(source: str) -> Path | None:
    """Where the face-embedding network of a source lies: the .onnx file itself, or the one in a bundle or a pack.

    Raises:
        ModelError: the pack has none.
    """
    if source.endswith(".onnx"):
        return Path(source)
    bundle = find_bundle(source)
    if bundle is None:
        return recogniser_in(Path(source)) if is_pack(Path(source)) else None
    return None if bundle.face_encoder is None else bundle.folder / bundle.face_encoder


def with_delta(encoder: ImageEncoder, delta: WeightDelta, dtype: str = "float32") -> ImageEncoder:
    """Return an edited copy; the encoder handed in keeps every bit.

    Raises:
        ArtifactError: the delta is for another encoder.
    """
    return encoder.edited(delta, dtype)


def reach_in(encoder: ImageEncoder, names: Iterable[str], *, class_token_only: bool = False) -> Reach:
    """State which taps change when the named tensors change."""
    return encoder.reach(names, class_token_only=class_token_only)


def reach_with(encoder: ImageEncoder, delta: WeightDelta) -> Reach:
    """State which taps change with a delta of this encoder."""
    return reach_in(encoder, delta.moving, class_token_only=delta.class_token_only)


def forward(encoder: ImageEncoder, tap: Tap, pixels: Tensor) -> Tensor:
    """Encode preprocessed pixels (n, 3, side, side) on the encoder's device; float32 on the CPU."""
    return encoder.encode(pixels, tap)


def null_features(encoder: ImageEncoder, tap: Tap) -> Tensor:
    """What diffusers sends as the null image under guidance: float32 (d,) or (tokens, d), on the CPU.

    Zeros in place of the embedding for adapters that read `image_embeds` or a face embedding; the encoder's view of a
    zero tensor for all others, also of SigLIP, whose adapters get zeros from diffusers and are not drawn with here.
    """
    null = forward(encoder, tap, encoder.null_pixels()[:1])[0]
    return torch.zeros_like(null) if tap in {"image_embeds", *FACE_TAPS} else null.clone()


def need_transformer(encoder: ImageEncoder, what: str) -> Encoder:
    """The encoder, where only a vision transformer will do.

    Raises:
        ModelError: it is no transformer.
    """
    if not isinstance(encoder, Encoder):
        raise ModelError(
            f"{what} needs gradients, which an ONNX network does not give",
            "Use --method gated, with --method all or variance or swap to locate",
        )
    return encoder


def need_network(encoder: ImageEncoder, what: str) -> FaceEncoder:
    """The encoder, where only a face-embedding network will do.

    Raises:
        ModelError: it is none.
    """
    if not isinstance(encoder, FaceEncoder):
        raise ModelError(f"{what} is for face-embedding networks in ONNX", "Name an .onnx file with --encoder")
    return encoder


def lies_in_checkpoint(tap: str) -> bool:
    """Whether encoders with the tap lie in files of weights, whose names say what each tensor is; networks do not."""
    return tap not in FACE_TAPS


def checkpoint_for(params: EncoderParams) -> Checkpoint | None:
    """Where the weights of an encoder lie; None of a network, whose file is one whole."""
    return checkpoint_of(params) if lies_in_checkpoint(params.tap) else None
