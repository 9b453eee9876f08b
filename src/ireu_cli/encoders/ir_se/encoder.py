"""The adapter of facexlib's `ir_se50` and of networks built like it, prepared as InfiniteYou and ID-Patch do.

Both align a face with insightface's `norm_crop` at 112 px, and hand it over as BGR from -1 to 1
(`pipelines/pipeline_infu_flux.py`, `demo.py`). Both read the network's only output, which has length one.
"""

import hashlib
import io
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.family import TakesGates, Trainable
from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.encoders.groups import groups_of_ir_se
from ireu_cli.encoders.ir_se.backbone import UNTOLD, IrSe
from ireu_cli.encoders.ir_se.in_onnx import network_from
from ireu_cli.encoders.onnx_gates import GATE_TENSORS, Gates, add_gates
from ireu_cli.encoders.pixels import aligned_pixels, null_images
from ireu_cli.encoders.reach import Reach, block_range
from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.layouts.layout import Layout
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.values import DTYPES, RgbImage, WeightDelta

IR_SE_TAPS: tuple[Tap, ...] = ("normed_embedding",)
"""What can be read of such a network."""
_PARTS = {"input": "input_layer.", "output": "output_layer."}
_MIDDLE = 127.5


@dataclass(frozen=True)
class IrSeEncoder(Trainable, TakesGates):
    """A loaded network.

    Attributes:
        model: an `IrSe`, whose gates are those of the edit.
        stored: the tensors of the file that it comes from, in their order and dtypes.
        own: the fingerprint of the weights, without gates.
        landmarks: ten fractions that say where eyes, nose and mouth corners lie in its photos.
    """

    model: Any
    stored: Mapping[str, Tensor]
    own: str
    landmarks: tuple[float, ...]

    noun = "a network of facexlib"
    whole_tap = None
    settings = None
    null_is_zero = IR_SE_TAPS
    is_bgr = True

    @cached_property
    def fingerprint(self) -> str:  # type: ignore[override]
        """Digest (hex) of its weights, and of the gates where it has some."""
        if self.model.gates is None:
            return self.own
        return hashlib.sha256(f"{self.own} {fingerprint_of(self.model.gates.tensors())}".encode()).hexdigest()

    @property
    def blocks(self) -> int:
        """Number of its units."""
        return len(self.model.sizes.units)

    @property
    def architecture(self) -> str:
        """Describe the network in short, by its sizes."""
        sizes = self.model.sizes
        return f"ir_se {len(sizes.units)} units {sizes.units[-1].leave} channels {sizes.side} px to {sizes.width}"

    @property
    def scaling(self) -> tuple[Sequence[float], Sequence[float]]:
        """By which mean and which deviation values from 0 to 1 are scaled to pixels."""
        return (0.5,) * 3, (0.5,) * 3

    @property
    def preprocessing(self) -> str:
        """Digest (16 hex) of how pixels are prepared; equal digests give equal pixels."""
        settings = ["bgr", self.model.sizes.side, _MIDDLE, self.landmarks]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """Align and scale: float32 (n, 3, side, side), BGR."""
        return aligned_pixels(images, self.landmarks, self.model.sizes.side, _MIDDLE, _MIDDLE, bgr=True)

    def null_pixels(self) -> Tensor:
        """The zero tensor and a black picture: float32 (2, 3, side, side)."""
        return null_images(self.pixels, self.model.sizes.side)

    @staticmethod
    def read(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
        """Pixels (n, 3, side, side) to embeddings at length one (n, width), with gradients."""
        del tap
        found: Tensor = model(pixels)
        return found

    @torch.inference_mode()
    def encode(self, pixels: Tensor, tap: Tap) -> Tensor:
        """Prepared pixels to a tap: float32 (n, width), on the CPU; a CPU takes one picture at a time."""
        weight = next(self.model.parameters())
        if weight.device.type != "cpu":
            return super().encode(pixels, tap)
        rows = [self.read(self.model, row[None].to(weight.device, weight.dtype), tap).float().cpu() for row in pixels]
        return torch.cat(rows) if rows else torch.empty(0, self.model.sizes.width)

    def groups(self, params: EncoderParams) -> tuple[str, ...]:
        """The group of generators that its sizes allow."""
        del params
        return groups_of_ir_se(self.model.sizes)

    def weights_for(self, layers: str, tap: Tap) -> list[str]:
        """Names of the weights that `all`, `input`, `output`, `block:N` and `blocks:A-B` stand for; all reach the tap.

        Raises:
            ConfigError: there is no such part.
        """
        del tap
        names, chosen = [name for name, _ in self.model.named_parameters()], set()
        for part in (piece.strip() for piece in layers.split(",")):
            starts = ("",) if part == "all" else self._starts(part)
            chosen |= {name for name in names if name.startswith(starts)}
        return sorted(chosen)

    def _starts(self, part: str) -> tuple[str, ...]:
        if part in _PARTS:
            return (_PARTS[part],)
        units = block_range(part, self.blocks, _PARTS, "network", "units")
        return tuple(f"body.{number}." for number in units)

    def reach(self, names: Iterable[str], *, class_token_only: bool = False) -> Reach:
        """Its only tap, which everything changes."""
        del names, class_token_only
        return Reach(IR_SE_TAPS, ())

    def edited(self, delta: WeightDelta, dtype: str = "float32") -> "IrSeEncoder":
        """An edited copy, with gates or with changed weights; both share the weights that stay.

        Raises:
            ArtifactError: the delta is for another encoder.
        """
        state = dict(self.model.state_dict())
        gates = self.model.gates
        if set(delta.tensors) == set(GATE_TENSORS):
            gates = Gates.from_tensors(delta.tensors)
            if gates.weights.shape[1] != self.model.sizes.width:
                raise _foreign(
                    f"is for {gates.weights.shape[1]} features, and the network has {self.model.sizes.width}"
                )
        else:
            for name, change in delta.tensors.items():
                if name not in state or state[name].shape != change.shape or not state[name].is_floating_point():
                    raise _foreign(f"changes {name}, which this network does not have in that shape")
                state[name] = state[name].float() + change.to(state[name].device)
        model = filled(self.model.sizes, state, DTYPES[dtype])
        model.gates = gates if gates is None or len(gates.weights) else None
        own = self.own if gates is not self.model.gates else fingerprint_of(weights_in(state))
        return replace(self, model=model, own=own)

    def in_onnx(self) -> bytes:
        """See `TakesGates`."""
        state = {name: tensor.float() for name, tensor in self._state().items()}
        network = network_from(state, self.model.sizes)
        if self.model.gates is not None:
            add_gates(network, self.model.gates)
        content: bytes = network.SerializeToString()
        return content

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}

    def whole_files(self) -> Mapping[str, bytes]:
        """The file that facexlib loads, under the name that it looks for; see `files_in`."""
        return self.files_in(None)

    def files_in(self, layout: Layout | None) -> Mapping[str, bytes]:
        """The file of a layout: a `.pth` for facexlib, or the same network in ONNX.

        Raises:
            ModelError: the edit is gates, which facexlib's network has no place for.
        """
        if layout is not None and layout.library == "onnx":
            return {"recognition_arcface_ir_se50.onnx": self.in_onnx()}
        state = self._state()
        if self.model.gates is not None:
            raise ModelError(
                "facexlib's network ends in a linear layer and has no place for gates behind it, so a .pth cannot hold "
                "this edit",
                "Use --format onnx if you can change what loads the network, or unlearn with --method ireu or global",
            )
        kept = OrderedDict((name, _as_stored(old, state.get(name, old))) for name, old in self.stored.items())
        file = io.BytesIO()
        torch.save(kept, file)
        return {"recognition_arcface_ir_se50.pth": file.getvalue()}


def weights_in(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that decide what a network computes: all but counters."""
    return {name: tensor for name, tensor in state.items() if not name.endswith(UNTOLD)}


def filled(sizes: Any, state: Mapping[str, Tensor], kind: torch.dtype) -> IrSe:
    """A network that holds these very tensors, in eval mode and without gradients; floats in a dtype."""
    with torch.device("meta"):
        model = IrSe(sizes)
    placed = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    model.load_state_dict(placed, strict=True, assign=True)
    return model.eval().requires_grad_(False)


def _as_stored(old: Tensor, new: Tensor) -> Tensor:
    """The new values in the dtype of the file; the tensor of the file itself where nothing changed."""
    rounded = new.to(old.dtype)
    return old if torch.equal(rounded, old) else rounded


def _foreign(what: str) -> ArtifactError:
    return ArtifactError(f"The delta {what}", "Name the encoder that the delta was made for")
