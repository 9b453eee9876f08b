"""The adapter of vision transformers: CLIP's with projection and without, in transformers 4.57 and 5, and SigLIP's."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.clip_files import checkpoint_of, fill, from_checkpoint, outline_of
from ireu_cli.encoders.files.fingerprint import Print, fingerprint_from, fingerprint_of, prints_by
from ireu_cli.encoders.groups import groups_of
from ireu_cli.encoders.mlp_site import read_parts, refuse_missing
from ireu_cli.encoders.pixels import null_images
from ireu_cli.encoders.preprocessing import digest_of_settings, prepared, processor_beside
from ireu_cli.encoders.reach import BARE, SIGLIP, TRANSFORMER, Anatomy, Reach, reach_of, select_weights
from ireu_cli.encoders.towers import bare, siglip
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.params import EncoderParams, Tap, unknown_parts
from ireu_cli.values import DTYPES, RgbImage, WeightDelta


def read_tap(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
    """Run the encoder and return the tensor a generator reads.

    Args:
        model: a `CLIPVisionModelWithProjection`, a `BareTower` or a `SiglipTower`.
        pixels: (n, 3, side, side), normalised.
        tap: which tensor, one that the encoder has.

    Returns:
        (n, hidden) for pooled, (n, projection) for image_embeds, (n, tokens, hidden) for penultimate, last and block-N,
        (n, sum of the parts' tokens, hidden) for several, of one pass.

    Raises:
        ConfigError: the encoder has no such block, or the parts have several widths.
    """
    if isinstance(model, siglip.SiglipTower):
        return siglip.read_tap(model, pixels, tap)

    def named(part: str, output: Any) -> Tensor:
        if part == "last":
            return _tensor(output.last_hidden_state)
        return _tensor(output.pooler_output if part == "pooled" else model.visual_projection(output.pooler_output))

    return read_parts(model, pixels, tap, named)


def behind_blocks(model: Any, states: Tensor, tap: Tap) -> Tensor:
    """Turn the output of the last block that a tap needs, (n, tokens, hidden), into the tap, (n, …, d)."""
    if isinstance(model, siglip.SiglipTower):
        return siglip.behind_blocks(model, states, tap)
    if tap in {"penultimate", "last"}:
        return states
    pooled = _tensor(model.vision_model.post_layernorm(states[:, 0]))
    return pooled if tap == "pooled" else _tensor(model.visual_projection(pooled))


def last_state(model: Any, pixels: Tensor) -> Tensor:
    """The input of `pooled` and `image_embeds`: (n, hidden), the class token after the last block.

    For SigLIP it is the output of the pooling head, which is `pooled` itself.
    """
    if isinstance(model, siglip.SiglipTower):
        return siglip.read_tap(model, pixels, "pooled")
    return read_tap(model, pixels, "last")[:, 0]


def readout_inverse(model: Any, tap: Tap) -> Tensor:
    """Invert what follows the last layer norm's normalisation: float64 (d, k), for `pooled` and `image_embeds`.

    A change of the tap, times this matrix and the standard deviation of the class token's channels, is a change of that
    token. In SigLIP nothing follows, and no layer norm comes before.
    """
    if isinstance(model, siglip.SiglipTower):
        return torch.eye(model.config.hidden_size, dtype=torch.float64)
    scale = model.vision_model.post_layernorm.weight.detach().cpu().double()
    if tap == "pooled":
        return torch.diag(1 / scale)
    projection = model.visual_projection.weight.detach().cpu().double()
    inverse: Tensor = torch.linalg.pinv(projection * scale)
    return inverse


def read_out(model: Any, states: Tensor, tap: Tap) -> Tensor:
    """Turn `last_state`, (n, d) on the CPU, into `pooled` or `image_embeds`: (n, k) on the CPU."""
    if isinstance(model, siglip.SiglipTower):
        return states.float()
    weight = model.vision_model.post_layernorm.weight
    with torch.inference_mode():
        pooled = model.vision_model.post_layernorm(states.to(weight.device, weight.dtype))
        found: Tensor = pooled if tap == "pooled" else model.visual_projection(pooled)
    return found.float().cpu()


Loaded = TypeVar("Loaded", bound="Encoder")


def settings_in(config: Any) -> str:
    """SHA-256 (hex) of activation, number of heads and epsilon."""
    told = [config.hidden_act, int(config.num_attention_heads), float(config.layer_norm_eps)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


@dataclass(frozen=True)
class Encoder(HasBlocks):
    """A loaded encoder: the model in eval mode without gradients, its processor, and what identifies it."""

    model: Any
    processor: Any
    fingerprint: str

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def anatomy(self) -> Anatomy:
        """Which kind of vision transformer it is."""
        if isinstance(self.model, siglip.SiglipTower):
            return SIGLIP
        return BARE if isinstance(self.model, bare.BareTower) else TRANSFORMER

    noun = "a vision transformer"
    null_is_zero = ("image_embeds",)
    read = staticmethod(read_tap)
    behind_blocks = staticmethod(behind_blocks)
    last_state = staticmethod(last_state)
    read_out = staticmethod(read_out)
    readout_inverse = staticmethod(readout_inverse)

    @property
    def has_class_token(self) -> bool:
        """Whether the pooled vector is that of a class token."""
        return self.anatomy.has_class_token

    @property
    def scaling(self) -> tuple[Sequence[float], Sequence[float]]:
        """By which mean and which deviation values from 0 to 1 are scaled to pixels."""
        return self.processor.image_mean, self.processor.image_std

    def weights_for(self, layers: str, tap: Tap) -> list[str]:
        """`select_weights`."""
        return select_weights(self.model.state_dict(), layers, self.blocks, tap, self.anatomy)

    @property
    def whole_tap(self) -> Tap:
        """The tap that describes the whole picture."""
        return self.anatomy.whole

    def groups(self, params: EncoderParams) -> tuple[str, ...]:
        """The groups of generators that its sizes and its layout allow."""
        return groups_of(checkpoint_of(params))

    def edited(self, delta: WeightDelta, dtype: str = "float32") -> "Encoder":
        """`with_delta`."""
        return with_delta(self, delta, dtype)

    def reach(self, names: Iterable[str], *, class_token_only: bool = False) -> Reach:
        """`reach_of`."""
        return reach_of(names, self.blocks, self.anatomy, class_token_only=class_token_only)

    @property
    def architecture(self) -> str:
        """Describe the transformer in short, by its sizes."""
        c = self.model.config
        size = f"{c.hidden_size}x{c.num_hidden_layers} patch {c.patch_size} image {c.image_size}"
        if self.anatomy is SIGLIP:
            return f"siglip-vit {size}"
        return f"clip-vit {size} without proj" if self.anatomy is BARE else f"clip-vit {size} proj {c.projection_dim}"

    @property
    def settings(self) -> str:
        """SHA-256 (hex) of the settings of its computation that its weights do not tell: activation, heads, epsilon."""
        return settings_in(self.model.config)

    @property
    def preprocessing(self) -> str:
        """Digest (16 hex) of the processor's settings; equal digests give equal pixels."""
        return digest_of_settings(self.processor)

    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """Preprocess with the model's own processor: float32 (n, 3, side, side), normalised."""
        return prepared(self.processor, images, int(self.model.config.image_size))

    def null_pixels(self) -> Tensor:
        """The two null images that generators send under guidance: float32 (2, 3, side, side).

        First the zero tensor after normalisation (diffusers, official IP-Adapter), then a black picture (ComfyUI,
        FLUX).
        """
        return null_images(self.pixels, int(self.model.config.image_size))


def load_encoder(
    params: EncoderParams, device: str, kind_of: Callable[[Checkpoint], type["Encoder"]] = lambda _: Encoder
) -> Encoder:
    """Load an encoder from a folder, a file in any layout of `files.checkpoint`, a portrait bundle or the hub.

    `kind_of` says of which class it is; encoders of transformers are of this one.

    Raises:
        ModelError: it does not exist, is no vision transformer of a known kind, or its file lacks weights.
        ConfigError: it has no such tap, or no such block, or the parts of the tap have several widths.
    """
    checkpoint = checkpoint_of(params)
    _refuse_other_tap(params, checkpoint.anatomy)
    model, processor = from_checkpoint(checkpoint)
    refuse_missing(params.tap, model.config)
    model = model.to(torch.float32).eval().requires_grad_(False)
    state = model.state_dict()
    fingerprint = finite_fingerprint(params.source, prints_by(state, state.__getitem__))
    encoder = kind_of(checkpoint)(_placed(model, device, params.dtype), processor, fingerprint)
    _try_preprocessing(encoder, params.source)
    return encoder


def _try_preprocessing(encoder: Encoder, source: str) -> None:
    """Check that a square picture and a wide one are prepared in the shape that the encoder takes."""
    side = int(encoder.model.config.image_size)
    try:
        found = encoder.pixels([np.zeros((side, side, 3), np.uint8), np.zeros((side, 2 * side + 1, 3), np.uint8)])
        is_right = found.shape == (2, 3, side, side) and bool(torch.isfinite(found).all())
        is_right = is_right and [len(part) for part in encoder.scaling] == [3, 3]
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - settings that do not go together end in errors of every kind
        is_right = False
    if not is_right:
        raise ModelError(
            f"The preprocessor_config.json beside {source} is not for pictures of {side} px",
            "Put the right one beside it, or remove it",
        )


def _refuse_other_tap(params: EncoderParams, anatomy: Anatomy) -> None:
    if missing := unknown_parts(params.tap, anatomy.taps):
        raise ConfigError(
            f"{params.source} has no tap {missing[0]}: it is a {anatomy.kind}",
            f"Use --tap {' or '.join(anatomy.taps)}",
        )


def outline_encoder(checkpoint: Checkpoint, fingerprint: str, kind: type[Encoder] = Encoder) -> Encoder:
    """Make an encoder whose weights stay in their file; everything else is known, and its model is on no device.

    Args:
        checkpoint: its weights.
        fingerprint: the one that the weights should have; confirm it later, as reading all weights takes time.
        kind: the class that it is of.

    Raises:
        ModelError: not a complete vision transformer.
    """
    model = outline_of(checkpoint)
    return kind(model, processor_beside(checkpoint, model.config.image_size), fingerprint)


def finite_fingerprint(source: str, prints: Mapping[str, Print]) -> str:
    """`fingerprint_from`, for weights that are all finite.

    Raises:
        ModelError: a weight is not finite.
    """
    if not all(one.is_finite for one in prints.values()):
        raise ModelError(f"The encoder {source} holds values that are not finite numbers", "Use an undamaged copy")
    return fingerprint_from(prints)


def with_delta(encoder: Loaded, delta: WeightDelta, dtype: str = "float32") -> Loaded:
    """Return an edited encoder; the one passed in keeps every bit.

    Both share the weights that do not change, so you may train neither of them in place.

    Raises:
        ArtifactError: the delta names tensors that the encoder does not have, or of another shape.
    """
    refuse_foreign(delta, encoder.model.state_dict())
    state = {name: tensor.detach().float() for name, tensor in encoder.model.state_dict().items()}
    for name, change in delta.tensors.items():
        state[name] = state[name] + change.to(state[name].device)
    with torch.device("meta"):
        model = type(encoder.model)(encoder.model.config)
    fill(model, state)
    device = str(next(encoder.model.parameters()).device)
    edited = _placed(model.eval().requires_grad_(False), device, dtype)
    return replace(encoder, model=edited, fingerprint=fingerprint_of(edited.state_dict()))


def refuse_foreign(delta: WeightDelta, state: Mapping[str, Tensor]) -> None:
    """Refuse a delta that does not fit the tensors.

    Raises:
        ArtifactError: it names tensors that do not exist or have another shape.
    """
    for name, change in delta.tensors.items():
        if name not in state or state[name].shape != change.shape:
            raise ArtifactError(
                f"The delta changes {name}, which this encoder does not have in that shape",
                "Name the encoder that the delta was made for",
            )


def _tensor(value: Tensor) -> Tensor:
    return value


def _placed(model: Any, device: str, dtype: str) -> Any:
    if device.startswith("meta"):
        raise ModelError("The device meta cannot compute", "Name a real one with --device")
    try:
        return model.to(device=torch.device(device), dtype=DTYPES[dtype])
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The device {device} cannot be used ({str(error).splitlines()[0]:.80})", "Correct --device"
        ) from None
