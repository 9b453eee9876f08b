"""The adapter of DINOv2's vision transformers: taps, pixels, edits, and the files that hold one.

`last` comes behind the layer norm of all tokens, like `last_hidden_state` of transformers, and `pooled` is its class
token. InstantCharacter reads patches at four depths, `block-9`, `block-19`, `block-29` and `last` of the giant one.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ireu_cli.encoders.clip import refuse_foreign
from ireu_cli.encoders.dinov2.tower import Dinov2, Dinov2Sizes
from ireu_cli.encoders.family import Trainable
from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.encoders.groups import groups_of_dinov2
from ireu_cli.encoders.mlp_site import joined
from ireu_cli.encoders.pixels import null_images
from ireu_cli.encoders.preprocessing import digest_of_settings, prepared
from ireu_cli.encoders.reach import DINOV2, Reach, reach_of, select_weights
from ireu_cli.errors import ConfigError
from ireu_cli.params import EncoderParams, Tap, depth_of, parts_of
from ireu_cli.values import DTYPES, RgbImage, WeightDelta

_AS_CLIP = {
    "embeddings.": "vision_model.embeddings.",
    "encoder.layer.": "vision_model.encoder.layers.",
    "layernorm.": "vision_model.post_layernorm.",
}
"""How the names of tensors begin here, and in CLIP, whose names `reach` knows."""
WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Dinov2Encoder(Trainable):
    """A loaded one.

    Attributes:
        model: a `Dinov2`.
        processor: prepares pixels.
        fingerprint: digest (hex) of its weights.
        stored: the tensors of its files, in their dtypes.
        beside: by their names, the bytes of the settings that lie beside its weights.
        side: side of the pictures that the processor makes, in pixels.
    """

    model: Any
    processor: Any
    fingerprint: str
    stored: Mapping[str, Tensor]
    beside: Mapping[str, bytes]
    side: int

    noun = "a DINOv2 vision transformer"
    whole_tap = "pooled"

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return int(self.model.sizes.blocks)

    @property
    def architecture(self) -> str:
        """Describe the transformer in short, by its sizes."""
        sizes = self.model.sizes
        gated = " gated" if sizes.is_gated else ""
        return f"dinov2-vit {sizes.width}x{sizes.blocks} patch {sizes.patch} image {self.side}{gated}"

    @property
    def settings(self) -> str:
        """SHA-256 (hex) of the settings of its computation that its weights do not tell: heads and epsilon."""
        told = [self.model.sizes.heads, self.model.sizes.epsilon]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    @property
    def scaling(self) -> tuple[Sequence[float], Sequence[float]]:
        """By which mean and which deviation values from 0 to 1 are scaled to pixels."""
        return self.processor.image_mean, self.processor.image_std

    @property
    def preprocessing(self) -> str:
        """Digest (16 hex) of the processor's settings; equal digests give equal pixels."""
        return digest_of_settings(self.processor)

    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """Preprocess with the encoder's own processor: float32 (n, 3, side, side), normalised."""
        return prepared(self.processor, images, self.side)

    def null_pixels(self) -> Tensor:
        """The zero tensor and a black picture: float32 (2, 3, side, side)."""
        return null_images(self.pixels, self.side)

    @staticmethod
    def read(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
        """Pixels (n, 3, side, side) to a tap, with gradients: (n, width) for pooled, (n, tokens, width) for others.

        Several taps come of one pass, as (n, sum of the parts' tokens, width).

        Raises:
            ConfigError: there is no such block.
        """
        depths = {part: _depth(part, model.sizes.blocks) for part in parts_of(tap)}
        states: dict[int, Tensor] = model(pixels, set(depths.values()))
        return joined([states[d][:, 0] if part == "pooled" else states[d] for part, d in depths.items()])

    def groups(self, params: EncoderParams) -> tuple[str, ...]:
        """The groups of generators that its sizes allow."""
        del params
        return groups_of_dinov2(self.model.sizes)

    def weights_for(self, layers: str, tap: Tap) -> list[str]:
        """Names of the weights that `unlearn.layers` names and that can change a tap, sorted.

        Raises:
            ConfigError: there is no such part, or none of the parts reaches the tap.
        """
        own = {_as_clip(name): name for name in self.model.state_dict()}
        return sorted(own[name] for name in select_weights(own, layers, self.blocks, tap, DINOV2))

    def reach(self, names: Iterable[str], *, class_token_only: bool = False) -> Reach:
        """The taps that change when the named tensors change."""
        return reach_of(map(_as_clip, names), self.blocks, DINOV2, class_token_only=class_token_only)

    def edited(self, delta: WeightDelta, dtype: str = "float32") -> "Dinov2Encoder":
        """An edited copy; both share the weights that stay.

        Raises:
            ArtifactError: the delta is for another encoder.
        """
        state = {name: tensor.float() for name, tensor in self.model.state_dict().items()}
        refuse_foreign(delta, state)
        for name, change in delta.tensors.items():
            state[name] = state[name] + change.to(state[name].device)
        print_of_all = fingerprint_of(state)
        return replace(self, model=filled(self.model.sizes, state, DTYPES[dtype]), fingerprint=print_of_all)

    def whole_files(self) -> Mapping[str, bytes]:
        """The weights in one file, and the settings as they lay beside the original's."""
        state = self.model.state_dict()
        kept = {name: _as_stored(old, state.get(name, old).cpu()).contiguous() for name, old in self.stored.items()}
        return {WEIGHTS: save(kept, {"format": "pt"}), **self.beside}


def filled(sizes: Dinov2Sizes, state: Mapping[str, Tensor], kind: torch.dtype) -> Dinov2:
    """A network that holds these very tensors in a dtype, in eval mode and without gradients."""
    with torch.device("meta"):
        model = Dinov2(sizes)
    model.load_state_dict({name: tensor.to(kind) for name, tensor in state.items()}, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _as_clip(name: str) -> str:
    return next((name.replace(own, there, 1) for own, there in _AS_CLIP.items() if name.startswith(own)), name)


def _depth(part: Tap, blocks: int) -> int:
    """The block whose input a part is; the number of blocks for what is read behind the last one.

    Raises:
        ConfigError: there is no such block.
    """
    if part in {"last", "pooled"}:
        return blocks
    depth = blocks - 1 if part == "penultimate" else depth_of(part)
    if depth is None or depth >= blocks:
        raise ConfigError(
            f"The encoder has no tap {part}: its blocks are block-0 to block-{blocks - 1}",
            "Name blocks that exist with --tap",
        )
    return depth


def _as_stored(old: Tensor, new: Tensor) -> Tensor:
    """The new values in the dtype of the file; the tensor of the file itself where nothing changed."""
    rounded = new.to(old.dtype)
    return old if torch.equal(rounded, old) else rounded
