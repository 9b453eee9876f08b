"""An image network in ONNX whose output describes a picture, for distances between sets of pictures."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from ireu_cli.encoders.files.networks import refuse_external, session_error
from ireu_cli.encoders.files.onnx_session import open_session
from ireu_cli.errors import ModelError
from ireu_cli.values import RgbImage

SIDE = 224
"""The side in pixels to which pictures are resized if the network does not fix a size."""
_LARGEST_SIDE = 1024
_REMEDY = "Set judges.image_model to an .onnx network that maps one batch of RGB pictures to features (n, d)"


@dataclass(frozen=True)
class _Layout:
    """The network's input: its name, channels last or first, height and width."""

    name: str
    channels_last: bool
    size: tuple[int, int]


@dataclass(frozen=True)
class ImageNetFeatures:
    """An image network, ready to look; a `Look`.

    `name` is the file's name without its ending, `fingerprint` the sha256 of its bytes, `width` how many features it
    gives.
    """

    name: str
    fingerprint: str
    width: int
    session: Any
    layout: _Layout

    def prepare(self, image: RgbImage) -> npt.NDArray[np.float32]:
        """A picture of any size as the network wants it: float32 (1, 3, h, w) or (1, h, w, 3), RGB, 0 to 255."""
        return _pixels(image, self.layout)

    def rows(self, prepared: Sequence[npt.NDArray[np.float32]]) -> tuple[Tensor]:
        """Features of pictures, each looked at alone: float32 (n, width)."""
        found = [self.session.run(None, {self.layout.name: pixels})[0] for pixels in prepared]
        rows = [torch.from_numpy(np.asarray(row, dtype=np.float32)).reshape(1, -1) for row in found]
        return (torch.cat([torch.empty(0, self.width), *rows]),)

    def features(self, images: Sequence[RgbImage]) -> Tensor:
        """Pictures of any sizes to float32 (n, width)."""
        return self.rows([self.prepare(image) for image in images])[0]


def load_image_net(path: Path, device: str = "cpu") -> ImageNetFeatures:
    """Load a network of one input, float32 (n, 3, h, w) or (n, h, w, 3), RGB 0 to 255, and of one output (n, d).

    Pictures are resized to the input's size, bilinear with antialiasing, and go through the network one by one, so that
    features do not depend on other pictures. External weights are refused, because the fingerprint would not cover
    them.

    Args:
        path: the .onnx file.
        device: torch's name of the device; a CUDA device uses ONNX Runtime's CUDA provider if it is installed.

    Raises:
        ModelError: the file is missing, is no ONNX network, or has another input or output; or ONNX Runtime is missing.
    """
    if not path.is_file():
        raise ModelError(f"The image model {path} does not exist", "Correct judges.image_model")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The image model {path} cannot be read ({error.strerror})", "Correct its permissions"
        ) from None
    refuse_external(data, path)
    session = _open(data, path, device)
    layout = _layout(session, path)

    return ImageNetFeatures(path.stem, hashlib.sha256(data).hexdigest(), _width(session, layout, path), session, layout)


def _open(data: bytes, path: Path, device: str) -> Any:
    try:
        return open_session(data, device)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime raises every kind on damaged files
        raise ModelError(
            f"The image model {path} cannot be loaded as an ONNX network ({session_error(error)[0]})",
            "Check that the file is complete and holds its own weights",
        ) from None


def _layout(session: Any, path: Path) -> _Layout:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ModelError(f"The image model {path} has {len(inputs)} inputs and {len(outputs)} outputs", _REMEDY)
    shape = list(inputs[0].shape)
    if inputs[0].type != "tensor(float)" or len(shape) != 4 or 3 not in (shape[1], shape[3]):
        raise ModelError(
            f"The image model {path} takes {inputs[0].type} {shape}, not float (n, 3, h, w) or (n, h, w, 3)", _REMEDY
        )
    if isinstance(shape[0], int) and shape[0] != 1:
        raise ModelError(
            f"The image model {path} takes {shape[0]} pictures at once", "Export it for a batch of any size"
        )
    channels_last = shape[1] != 3
    height, width = shape[1:3] if channels_last else shape[2:4]
    size = (height if isinstance(height, int) else SIDE, width if isinstance(width, int) else SIDE)
    if not all(1 <= side <= _LARGEST_SIDE for side in size):
        raise ModelError(f"The image model {path} takes pictures of {size[1]} x {size[0]} px", _REMEDY)
    return _Layout(inputs[0].name, channels_last, size)


def _width(session: Any, layout: _Layout, path: Path) -> int:
    """Try a grey picture once: networks often do not state their output's shape."""
    grey = np.full((SIDE, SIDE, 3), 127, dtype=np.uint8)
    try:
        found = np.asarray(session.run(None, {layout.name: _pixels(grey, layout)})[0])
    except Exception as error:  # noqa: BLE001 - onnxruntime raises every kind
        raise ModelError(f"The image model {path} fails on a grey picture ({type(error).__name__})", _REMEDY) from None
    # A pooled map (1, d, 1, 1) is a vector too; a map with several positions is not.
    if found.ndim not in (2, 4) or found.shape[0] != 1 or found.size not in found.shape or found.size < 2:
        raise ModelError(
            f"The image model {path} maps a picture to {list(found.shape)}, not to features (1, d)", _REMEDY
        )
    return int(found.size)


def _pixels(image: RgbImage, layout: _Layout) -> npt.NDArray[np.float32]:
    """A picture as the network's input: float32 (1, 3, h, w) or (1, h, w, 3), RGB, 0 to 255."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(pixels, layout.size, mode="bilinear", antialias=True).clamp(0, 255)
    ordered = resized.permute(0, 2, 3, 1) if layout.channels_last else resized
    return np.ascontiguousarray(ordered.numpy())
