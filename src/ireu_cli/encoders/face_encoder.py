"""The adapter of face-embedding networks in ONNX, prepared and run as insightface does.

insightface (2.1, `model_zoo/arcface_onnx.py`) aligns a face to the ArcFace template at the side of the network's input,
takes RGB, and looks at the names of the first eight nodes. If a subtraction and a multiplication are among them, the
network prepares pixels itself; otherwise its input is (x - 127.5) / 127.5. `embedding` is the network's output, and
`normed_embedding` is the same at length one.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.family import TakesGates
from ireu_cli.encoders.files.networks import load_network, session_error
from ireu_cli.encoders.files.onnx_session import open_session, stays_on_cpu
from ireu_cli.encoders.groups import groups_of_network
from ireu_cli.encoders.onnx_gates import GATE_TENSORS, Gates, add_gates
from ireu_cli.encoders.pixels import aligned_pixels, null_images
from ireu_cli.encoders.reach import Reach
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.support.bounded import printable
from ireu_cli.values import RgbImage, WeightDelta

FACE_TAPS: tuple[Tap, ...] = ("embedding", "normed_embedding")
"""What can be read of a face-embedding network."""
_REMEDY = "Name an ArcFace network in ONNX: one picture in, one embedding out"
_NAMED = 8
"""The number of first nodes whose names tell insightface how pixels are prepared."""
_LARGEST_SIDE, _WIDEST = 1024, 1 << 16
"""Largest size that a network may ask for: pixels of a face's side, and features."""


@dataclass(frozen=True)
class FaceEncoder(TakesGates):
    """A loaded face-embedding network: its file's name and content, a session that runs it, and what identifies it.

    `landmarks` are ten fractions that say where eyes, nose and mouth corners lie in its photos. `layers` counts layers
    with weights; `convolutions` counts those of them that are convolutions.
    """

    file: str
    content: bytes
    session: Any
    size: int
    mean: float
    std: float
    landmarks: tuple[float, ...]
    fingerprint: str
    device: str
    layers: int
    convolutions: int

    @property
    def blocks(self) -> int:
        """Number of its layers with weights."""
        return self.layers

    @property
    def dtype(self) -> str:
        """The dtype of its output."""
        return "float32"

    @property
    def architecture(self) -> str:
        """Describe the network in short, by its sizes."""
        width = self.session.get_outputs()[0].shape[-1]
        return f"onnx face network {self.size} px to {width}"

    @property
    def settings(self) -> None:
        """None: its fingerprint covers everything that decides its output."""
        return None

    @property
    def preprocessing(self) -> str:
        """Digest (16 hex) of how pixels are prepared; equal digests give equal pixels."""
        settings = [self.size, self.mean, self.std, self.landmarks]
        return hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:16]

    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """Align and scale: float32 (n, 3, size, size)."""
        return aligned_pixels(images, self.landmarks, self.size, self.mean, self.std)

    def null_pixels(self) -> Tensor:
        """The zero tensor and a black picture: float32 (2, 3, size, size).

        Generators send zeros in place of the network's output instead. An edit must leave blank input unchanged all the
        same.
        """
        return null_images(self.pixels, self.size)

    noun = "an ONNX network"
    whole_tap = None
    null_is_zero = FACE_TAPS

    def stays_on_cpu(self, device: str) -> bool:
        """Whether it runs on the CPU because onnxruntime has no provider for the device."""
        return stays_on_cpu(device)

    def groups(self, params: EncoderParams) -> tuple[str, ...]:
        """The group of generators that its sizes allow. If several fit, it is the first; you can state another one."""
        del params
        return groups_of_network(self.convolutions)[:1]

    def edited(self, delta: WeightDelta, dtype: str = "float32") -> "FaceEncoder":
        """`with_gates`."""
        del dtype
        return with_gates(self, delta)

    def reach(self, names: Iterable[str], *, class_token_only: bool = False) -> Reach:
        """Every tap: gates behind a network change all of its outputs."""
        del names, class_token_only
        return Reach(FACE_TAPS, ())

    def whole_files(self) -> dict[str, bytes]:
        """The network, under the name that it had."""
        return {self.file: self.content}

    def in_onnx(self) -> bytes:
        """Its file."""
        return self.content

    def encode(self, pixels: Tensor, tap: Tap) -> Tensor:
        """`embed`."""
        return self.embed(pixels, tap)

    def embed(self, pixels: Tensor, tap: Tap) -> Tensor:
        """Turn pixels (n, 3, size, size) into float32 (n, d), on the CPU.

        It runs one picture at a time: in a batch the last bits depend on the other pictures, and some networks take
        only one.
        """
        name = self.session.get_inputs()[0].name
        rows = [self.session.run(None, {name: row[None]})[0] for row in pixels.cpu().numpy()]
        width = self.session.get_outputs()[0].shape[-1]
        found = torch.from_numpy(np.concatenate(rows)).float() if rows else torch.empty(0, width)
        return torch.nn.functional.normalize(found, dim=1) if tap == "normed_embedding" else found


def load_face_encoder(path: Path, landmarks: tuple[float, ...], device: str) -> FaceEncoder:
    """Load a network.

    Args:
        path: the .onnx file.
        landmarks: where eyes, nose and mouth corners lie in the photos, as ten fractions.
        device: torch device; onnxruntime's CUDA provider if it names CUDA and the provider is installed, else the CPU.

    Raises:
        ModelError: it does not exist, is no ONNX network, or does not map a picture of a face to one embedding.
    """
    if not path.is_file():
        raise ModelError(f"The encoder {path} does not exist", "Name an .onnx file with --encoder")
    network = load_network(path)
    return _opened(path.name, network, landmarks, device)


def with_gates(encoder: FaceEncoder, delta: WeightDelta) -> FaceEncoder:
    """Return an edited copy; the encoder passed in keeps every bit.

    Raises:
        ArtifactError: the delta has no gates, or they have another width.
    """
    if set(delta.tensors) != set(GATE_TENSORS):
        raise ArtifactError(
            "The delta changes weights, which does not work for an ONNX network",
            "Name the encoder that it was made for",
        )
    gates = Gates.from_tensors(delta.tensors)
    width = encoder.session.get_outputs()[0].shape[-1]
    if gates.weights.shape[1] != width:
        raise ArtifactError(
            f"The delta is for {gates.weights.shape[1]} features, and the network has {width}",
            "Name the encoder that the delta was made for",
        )
    if not len(gates.weights):
        return replace(encoder)
    network = load_network(encoder.content)
    add_gates(network, gates)
    return _opened(encoder.file, network, encoder.landmarks, encoder.device)


def _opened(file: str, network: Any, landmarks: tuple[float, ...], device: str) -> FaceEncoder:
    content = network.SerializeToString()
    try:
        torch.device(device)
    except RuntimeError:
        raise ModelError(f"The device {device} does not exist", "Correct --device") from None
    try:
        session = open_session(content, device)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base of their own
        why, remedy = session_error(error)
        raise ModelError(f"The network {file} cannot be run ({why})", remedy or _REMEDY) from None
    size = _side(session, file)
    if not network.graph.output[0].type.tensor_type.HasField("shape"):
        # Onnx's checker wants it stated; onnxruntime found it out.
        _state_shape(network, session.get_outputs()[0].shape)
        content = network.SerializeToString()
    own = prepares_itself(network)
    mean, std = (0.0, 1.0) if own else (127.5, 127.5)
    convolutions = convolutions_in(network)
    blocks = convolutions + sum(node.op_type in {"Gemm", "MatMul"} for node in network.graph.node)
    marks = fingerprint_of(network)
    encoder = FaceEncoder(file, content, session, size, mean, std, landmarks, marks, device, blocks, convolutions)
    _try(encoder)
    return encoder


def _state_shape(network: Any, shape: Sequence[Any]) -> None:
    stated = network.graph.output[0].type.tensor_type.shape
    for length in shape:
        dimension = stated.dim.add()
        if isinstance(length, int):
            dimension.dim_value = length


def _side(session: Any, file: str) -> int:
    """Check that input and output have the form of a face-embedding network, and return the side of the input."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"The network {file} has {len(inputs)} inputs and {len(outputs)} outputs", _REMEDY)
    shape, width = inputs[0].shape, outputs[0].shape[-1] if outputs[0].shape else None
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or not isinstance(shape[2], int):
        raise ModelError(f"The network {file} takes an input of the shape {shape}", _REMEDY)
    if not 112 <= shape[2] <= _LARGEST_SIDE or (shape[2] % 112 and shape[2] % 128):
        raise ModelError(
            f"The network {file} takes faces of {shape[2]} px",
            "Name a network for 112 or 128 px: insightface aligns to no other size",
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelError(
            f"The network {file} takes {shape[0]} faces at once",
            "Export it with a free batch size, or with a batch size of 1",
        )
    if inputs[0].type != "tensor(float)" or outputs[0].type != "tensor(float)":
        raise ModelError(
            f"The network {file} takes {inputs[0].type} and gives {outputs[0].type}",
            "Export it with an input and an output of single precision",
        )
    if len(outputs[0].shape) != 2 or not isinstance(width, int) or not 2 <= width <= _WIDEST:
        raise ModelError(f"The network {file} gives an output of the shape {outputs[0].shape}", _REMEDY)
    return int(shape[2])


def _try(encoder: FaceEncoder) -> None:
    try:
        pixels = encoder.null_pixels()
    except BadPhotoError:
        raise ConfigError("The landmarks of the photos are all at one point", "Correct data.landmarks") from None
    try:
        found = encoder.embed(pixels, "embedding")
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base of their own
        raise ModelError(f"The network {encoder.file} cannot be run ({session_error(error)[0]})", _REMEDY) from None
    if found.shape != (len(pixels), encoder.session.get_outputs()[0].shape[-1]):
        raise ModelError(f"The network {encoder.file} gives an output of the shape {tuple(found.shape)}", _REMEDY)
    if not bool(torch.isfinite(found).all()):
        raise ModelError(
            f"The network {encoder.file} gives values that are not finite numbers", "Use an undamaged copy"
        )


def prepares_itself(network: Any) -> bool:
    """Whether insightface hands a network pixels from 0 to 255, because it scales them by itself."""
    names = [node.name for node in network.graph.node[:_NAMED]]
    subtracts = any(name.startswith(("Sub", "_minus")) for name in names)
    return subtracts and any(name.startswith(("Mul", "_mul")) for name in names)


def convolutions_in(network: Any) -> int:
    """Count the convolutions of a network."""
    return sum(node.op_type == "Conv" for node in network.graph.node)


def network_fingerprint(path: Path) -> str:
    """The fingerprint of the encoder in a file.

    Raises:
        ModelError: it is no ONNX network.
    """
    return fingerprint_of(load_network(path))


def fingerprint_of(network: Any) -> str:
    """SHA-256 (hex) over operators, their attributes and connections, and all tensors, whatever the file's layout.

    Raises:
        ModelError: it has parts that this digest does not cover, or a tensor lacks values that it states.
    """
    from onnx import numpy_helper

    if network.functions or network.graph.sparse_initializer:
        raise ModelError("The network has functions or sparse tensors of its own", "Export it without them")
    digest = hashlib.sha256()
    ends = [[part.name for part in side] for side in (network.graph.input, network.graph.output)]
    digest.update(repr((ends, sorted((o.domain, o.version) for o in network.opset_import))).encode())
    for node in network.graph.node:
        attributes = sorted(attribute.SerializeToString(deterministic=True) for attribute in node.attribute)
        digest.update(repr((node.domain, node.op_type, list(node.input), list(node.output), attributes)).encode())
    for tensor in sorted(network.graph.initializer, key=lambda each: str(each.name)):
        try:
            values = np.ascontiguousarray(numpy_helper.to_array(tensor))
        except (ValueError, TypeError, KeyError, NotImplementedError):
            raise ModelError(
                f"The tensor {printable(tensor.name, 60)} of the network lacks values that it states",
                "Use an undamaged copy",
            ) from None
        digest.update(f"{tensor.name}{values.dtype}{values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()
