"""What a family of image encoders is, and what can be asked of a loaded encoder of any family.

Everything works with an `ImageEncoder` that can encode, take a delta, and say what changes with it. What a method or an
attack needs beyond that, a family offers by deriving its encoders from `Trainable`, `HasBlocks` or `TakesGates`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.mlp_site import after_attention, after_mlp
from ireu_cli.encoders.reach import Reach
from ireu_cli.errors import ModelError
from ireu_cli.layouts.layout import Layout
from ireu_cli.params import EncoderParams, Tap, unknown_parts
from ireu_cli.values import RgbImage, WeightDelta


class ImageEncoder(ABC):
    """An image encoder: a vision transformer of CLIP or SigLIP, a face-embedding network, or one of another family.

    Attributes:
        fingerprint: digest (hex) of its weights, independent of the files that hold them.
        noun: what messages call such an encoder, behind "is" or "as".
        gives_gradients: whether its weights can be trained, and its pixels searched, by gradient; see `Trainable`.
        null_is_zero: taps for which generators are sent zeros in place of the features of a null image.
    """

    fingerprint: str
    noun: str
    gives_gradients: bool = False
    null_is_zero: Collection[Tap] = ()

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Number of its blocks, or of its layers with weights."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """The dtype it runs in, such as float32."""

    @property
    @abstractmethod
    def whole_tap(self) -> Tap | None:
        """The tap that describes the whole picture in one vector; None if it has no such tap."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """A short description, by its sizes."""

    @property
    @abstractmethod
    def settings(self) -> str | None:
        """Digest (hex) of the settings of its computation that its weights do not tell; None if they tell all."""

    @property
    @abstractmethod
    def preprocessing(self) -> str:
        """Digest (16 hex) of how pixels are prepared; equal digests give equal pixels."""

    @abstractmethod
    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """Prepare pictures for the encoder: float32 (n, 3, side, side)."""

    @abstractmethod
    def null_pixels(self) -> Tensor:
        """The two null images, a zero tensor and a black picture: float32 (2, 3, side, side)."""

    @abstractmethod
    def encode(self, pixels: Tensor, tap: Tap) -> Tensor:
        """Prepared pixels (n, 3, side, side), on any device, to a tap: float32 (n, …, d), on the CPU."""

    @abstractmethod
    def edited(self, delta: WeightDelta, dtype: str = "float32") -> "ImageEncoder":
        """Return an edited copy that runs in the dtype; this one keeps every bit.

        Raises:
            ArtifactError: the delta is for another encoder.
        """

    @abstractmethod
    def reach(self, names: Iterable[str], *, class_token_only: bool = False) -> Reach:
        """The taps that change when the named tensors change; see `reach_of`."""

    def groups(self, params: EncoderParams) -> tuple[str, ...]:
        """The groups of generators that its sizes and its source admit; none that is known."""
        del params
        return ()

    def stays_on_cpu(self, device: str) -> bool:
        """Whether it runs on the CPU although you asked for another device."""
        del device
        return False

    def whole_files(self) -> Mapping[str, bytes]:
        """By their names, the files that hold it; an export writes them, and its first one is named to load it.

        Encoders in checkpoints are not asked: their weights are copied one after another.
        """
        raise NotImplementedError

    def files_in(self, layout: Layout | None) -> Mapping[str, bytes]:
        """The same in a layout of its kind; most have one form alone, whichever layout is named."""
        del layout
        return self.whole_files()

    def reached_by(self, delta: WeightDelta) -> Reach:
        """Which taps change with a delta of this encoder."""
        return self.reach(delta.moving, class_token_only=delta.class_token_only)

    def null_features(self, tap: Tap) -> Tensor:
        """What diffusers sends as the null image under guidance: float32 (d,) or (tokens, d), on the CPU.

        Zeros where adapters are sent zeros in place of the embedding; the encoder's view of a zero tensor for all
        others, also of SigLIP, whose adapters get zeros from diffusers and are not drawn with here.
        """
        null = self.encode(self.null_pixels()[:1], tap)[0]
        return torch.zeros_like(null) if tap in self.null_is_zero else null.clone()


class Trainable(ImageEncoder):
    """An encoder in torch: its weights, by name, can be trained, and its pixels searched, by gradient.

    Attributes:
        model: the network, in eval mode and without gradients; deltas call its tensors as `state_dict` does.
    """

    gives_gradients = True
    model: Any

    @staticmethod
    @abstractmethod
    def read(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
        """Pixels (n, 3, side, side) to a tap (n, …, d), with gradients.

        Args:
            model: the encoder's own, or a copy of it with other weights.
            pixels: prepared, on the model's device and in its dtype.
            tap: one that the encoder has.
        """

    @abstractmethod
    def weights_for(self, layers: str, tap: Tap) -> list[str]:
        """Names of the weights that `unlearn.layers` names and that can change a tap, sorted.

        Raises:
            ConfigError: there is no such part, or none of the parts reaches the tap.
        """

    @property
    @abstractmethod
    def scaling(self) -> tuple[Sequence[float], Sequence[float]]:
        """By which mean and which deviation values from 0 to 1 are scaled to pixels, three numbers each."""

    @property
    def dtype(self) -> str:
        """The dtype it runs in, such as float32."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @torch.inference_mode()
    def encode(self, pixels: Tensor, tap: Tap) -> Tensor:
        """Prepared pixels (n, 3, side, side), on any device, to a tap: float32 (n, …, d), on the CPU."""
        weight = next(self.model.parameters())
        return self.read(self.model, pixels.to(weight.device, weight.dtype), tap).float().cpu()


class HasBlocks(Trainable):
    """A vision transformer in whose blocks people can be found and moved.

    Where an encoder says nothing else, its `model.vision_model` is built as those of transformers' CLIP and SigLIP are:
    `encoder.layers` of attention and a hidden layer each, which `mlp_site` looks into. `model.config` states the sizes.

    Attributes:
        processor: prepares pixels, as transformers' image processors do; an export writes its settings.
        no_detectors: why `gated` cannot write detectors into its blocks, as a sentence without a full stop; empty where
            it can.
    """

    processor: Any
    no_detectors: str = ""

    @property
    @abstractmethod
    def has_class_token(self) -> bool:
        """Whether the pooled vector is that of a class token, the first; else a head makes it of all tokens."""

    @property
    def width(self) -> int:
        """How many channels a token has."""
        return int(self.model.config.hidden_size)

    @property
    def tokens(self) -> int:
        """How many tokens a picture is, one for the class or the head counted in."""
        return (int(self.model.config.image_size) // int(self.model.config.patch_size)) ** 2 + 1

    @torch.inference_mode()
    def entering(self, pixels: Tensor, block: int) -> Tensor:
        """The input of a block: prepared pixels to (n, tokens, width), on the model's device."""
        weight = next(self.model.parameters())
        return self.read(self.model, pixels.to(weight.device, weight.dtype), f"block-{block}")

    @staticmethod
    def layers(model: Any) -> Any:
        """The blocks of a model, in order."""
        return model.vision_model.encoder.layers

    @staticmethod
    def through(layer: Any, states: Tensor) -> Tensor:
        """Pass tokens (n, tokens, width) through one of `layers`."""
        return after_mlp(layer, after_attention(layer, states))

    @staticmethod
    @abstractmethod
    def behind_blocks(model: Any, states: Tensor, tap: Tap) -> Tensor:
        """Turn the output of the last block that a tap needs, (n, tokens, hidden), into the tap, (n, …, d)."""

    @staticmethod
    @abstractmethod
    def last_state(model: Any, pixels: Tensor) -> Tensor:
        """What taps of one vector are functions of: (n, hidden), behind the last block."""

    @staticmethod
    @abstractmethod
    def read_out(model: Any, states: Tensor, tap: Tap) -> Tensor:
        """From `last_state`, (n, hidden) on the CPU, to a tap of one vector: (n, k) there."""

    @staticmethod
    @abstractmethod
    def readout_inverse(model: Any, tap: Tap) -> Tensor:
        """Undo the linear part of `read_out`: float64 (hidden, k)."""


class TakesGates(ImageEncoder):
    """An encoder that gives one vector a picture, and whose `edited` takes gates behind that; see `onnx_gates`.

    Attributes:
        is_bgr: whether its pixels are BGR. A network in ONNX takes RGB.
    """

    is_bgr: bool = False

    @abstractmethod
    def in_onnx(self) -> bytes:
        """The network as an export in ONNX holds it, with its gates."""


@dataclass(frozen=True)
class InCheckpoint:
    """How encoders lie in files of weights, whose names say what each tensor is.

    Attributes:
        open: finds the weights.
        outline: an encoder of which everything is known but the weights; the fingerprint is still to be confirmed.
    """

    open: Callable[[EncoderParams], Checkpoint]
    outline: Callable[[Checkpoint, str], HasBlocks]


@dataclass(frozen=True)
class Family:
    """A kind of image encoders. To add one, write a row like those in `families`.

    Attributes:
        title: what messages call one of it, behind an "a".
        taps: what can be read of it, from the first to the last that is computed.
        sources: what messages call the files that it lies in, such as "an .onnx file".
        place: where an encoder of it lies in a source, which may be a bundle; None where the source is not its own.
        load: loads one: its source, tap and dtype, where faces lie in photos as ten fractions, and the torch device.
        card: what `ireu inspect` says of a source of its own.
        library: the library that model cards of exports name, where no layout says it.
        checkpoint: how it lies in files of weights; None where an encoder is written whole, by `whole_files`.
        held_as: how `layouts` call such encoders, where they are written whole; None: they have one form alone.
        fingerprint_of: the fingerprint that a file has as an encoder, where recognisers are such files too.
        has_depths: whether `block-N` can be read of it, and several taps at once.
    """

    title: str
    taps: tuple[Tap, ...]
    sources: str
    place: Callable[[str], Path | None]
    load: Callable[[EncoderParams, tuple[float, ...], str], ImageEncoder]
    card: Callable[[str], Card]
    library: str
    checkpoint: InCheckpoint | None = None
    held_as: str | None = None
    fingerprint_of: Callable[[Path], str] | None = None
    has_depths: bool = False

    def reads(self, tap: Tap) -> bool:
        """Whether a tap is one of this family, or joins such; how many blocks an encoder has is not looked at."""
        if not self.has_depths:
            return tap in self.taps
        return not unknown_parts(tap, self.taps)


def need_gradients(encoder: ImageEncoder, what: str) -> Trainable:
    """The encoder, where its weights or pixels are to be searched by gradient.

    Raises:
        ModelError: it gives no gradients.
    """
    if isinstance(encoder, Trainable):
        return encoder
    instead = "Use --method gated to unlearn, and --method all, variance or swap to locate"
    raise ModelError(
        f"{what} needs gradients, which {encoder.noun} does not give",
        instead if isinstance(encoder, TakesGates) else "Use another --method for this encoder",
    )


def need_blocks(encoder: ImageEncoder, what: str) -> HasBlocks:
    """The encoder, where the blocks of a vision transformer are looked into.

    Raises:
        ModelError: it gives no gradients, or has no such blocks.
    """
    trainable = need_gradients(encoder, what)
    if isinstance(trainable, HasBlocks):
        return trainable
    raise ModelError(
        f"{what} needs the blocks of a vision transformer, which {encoder.noun} does not have",
        "Use --method ireu or global for this encoder",
    )


def need_gates(encoder: ImageEncoder, what: str) -> TakesGates:
    """The encoder, where gates are to stand behind its output.

    Raises:
        ModelError: it takes none.
    """
    if isinstance(encoder, TakesGates):
        return encoder
    raise ModelError(f"{what} is for face-embedding networks", "Name an .onnx file with --encoder")
