"""Recognisers from .onnx files: the user describes them, loading checks them, and onnxruntime runs them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ireu_cli.encoders.files.networks import external_files, session_error
from ireu_cli.encoders.files.onnx_session import open_session
from ireu_cli.errors import ModelError
from ireu_cli.judges.judging import JudgingNet, Run, from_network, is_vector, tried
from ireu_cli.params import RecogniserParams
from ireu_cli.values import RgbImage

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_NOT_A_RECOGNISER = "Name an .onnx network that maps one picture of a face to one vector"


class Pack(Protocol):
    """The recognition network of an insightface pack, run by insightface (`faces.insight.pack_recogniser`)."""

    @property
    def file(self) -> Path:
        """The network's .onnx file."""

    @property
    def size(self) -> int:
        """Side of an aligned face in pixels."""

    @property
    def preprocessing(self) -> tuple[float, float]:
        """Mean and standard deviation that insightface uses for this network."""

    def embed(self, faces: Sequence[RgbImage]) -> npt.NDArray[np.float32]:
        """Aligned faces -> (n, d), not normalised."""


def load_onnx(params: RecogniserParams, device: str = "cpu") -> JudgingNet:
    """Load a recogniser from its description.

    Args:
        params: the description, of kind `onnx`.
        device: torch device; onnxruntime's CUDA provider if it names CUDA and the provider is installed, else the CPU.

    Raises:
        ModelError: the file is missing, is no ONNX network, or does not fit its description.
    """
    session = _session(params, device)
    feed, dtype = _checked_input(session, params)
    if 0 in params.std:
        raise ModelError(f"The recogniser {params.name} would divide by a std of 0", "Correct its std")
    names = [output.name for output in session.get_outputs()]

    def answers(face: RgbImage) -> list[npt.NDArray[Any]]:
        return [np.asarray(answer) for answer in session.run(names, {feed: _pixels(face, params).astype(dtype)})]

    names = [names[_vector_output(params, answers)]]
    return _described(params, params.model, params.size, params.margin, lambda face: answers(face)[0])


def from_insight(params: RecogniserParams, pack: Pack) -> JudgingNet:
    """Wrap the recogniser of an insightface pack.

    Raises:
        ModelError: the description says how faces are prepared, which insightface decides; or it is no such network.
    """
    asked = RecogniserParams(name=params.name, kind="insightface", model=params.model)
    if params != asked:
        raise ModelError(
            f"The recogniser {params.name} is an insightface pack, for which insightface decides how faces are "
            "prepared",
            "Leave out its size, colour, mean, std, layout and margin, or name the .onnx file with kind = onnx",
        )
    return _described(params, pack.file, pack.size, 0.0, lambda face: pack.embed([face]), pack.preprocessing)


def _described(
    params: RecogniserParams, file: Path, size: int, margin: float, run: Run, preprocessing: Any = None
) -> JudgingNet:
    """A network with its fingerprint, which covers its file and everything else that decides a vector."""
    network = _file_digest(file)
    decides = params.model_dump(mode="json", exclude={"name", "model"}) | {"size": size, "preprocessing": preprocessing}
    fingerprint = hashlib.sha256(json.dumps([network, decides], sort_keys=True).encode()).hexdigest()
    return replace(from_network(params.name, fingerprint, network, size, margin, run), file=file)


def _file_digest(file: Path) -> str:
    """SHA-256 (hex) over the bytes of a network and of the files with its external tensors; not over their paths.

    It covers the whole file, not only the initialisers, because constants and attributes of the graph decide a vector
    too. So the same weights, saved again by another tool, count as another recogniser.
    """
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        digest.update(hashlib.file_digest(stream, "sha256").digest())
    for beside in external_files(file):
        with beside.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


def _session(params: RecogniserParams, device: str) -> Any:
    if not params.model.is_file():
        raise ModelError(f"The file {params.model} of the recogniser {params.name} does not exist", "Correct its model")
    try:
        return open_session(params.model, device)
    except (ModelError, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - onnxruntime's errors have no common base of their own
        why, remedy = session_error(error)
        raise ModelError(
            f"The file {params.model} of the recogniser {params.name} cannot be loaded as an ONNX network ({why})",
            remedy or "Check that it is complete, with its external data beside it",
        ) from None


def _checked_input(session: Any, params: RecogniserParams) -> tuple[str, Any]:
    """The name and dtype of the input, after checking that its form agrees with the description."""
    inputs, who = session.get_inputs(), f"The recogniser {params.name}"
    if len(inputs) != 1:
        raise ModelError(f"{who} takes {len(inputs)} inputs instead of one picture", _NOT_A_RECOGNISER)
    # Free axes are names or None.
    shape = [axis if isinstance(axis, int) else None for axis in inputs[0].shape]
    if len(shape) != 4:
        raise ModelError(f"{who} takes an input of {len(shape)} axes, not pictures", _NOT_A_RECOGNISER)
    if inputs[0].type not in _DTYPES:
        raise ModelError(f"{who} takes a {inputs[0].type}", "Name a network whose input is of single or half precision")
    channels, sides = (shape[1], shape[2:]) if params.layout == "nchw" else (shape[3], shape[1:3])
    if channels not in {3, None}:
        other = "nhwc" if params.layout == "nchw" else "nchw"
        fits = shape[3 if other == "nhwc" else 1] == 3
        raise ModelError(
            f"{who} takes {channels} channels on the axis that layout = {params.layout} uses for colours",
            f"Set its layout to {other}" if fits else "Name a network of colour pictures",
        )
    if shape[0] not in {1, None}:
        raise ModelError(f"{who} takes {shape[0]} faces at once", "Export it with a free batch axis, or a batch of 1")
    if wrong := [side for side in sides if side not in {params.size, None}]:
        raise ModelError(f"{who} takes faces of {wrong[0]} px, not {params.size}", f"Set its size to {wrong[0]}")
    return inputs[0].name, _DTYPES[inputs[0].type]


def _vector_output(params: RecogniserParams, answers: Any) -> int:
    """Find the output with the embedding: the only one with one vector a face. A norm or a quality is one number."""
    found = tried(params.name, params.size, answers)
    vectors = [i for i, answer in enumerate(found) if is_vector(answer)]
    if len(found) > 1 and len(vectors) != 1:
        raise ModelError(
            f"The recogniser {params.name} has {len(found)} outputs, and {len(vectors)} of them give one vector a face",
            "Export it with its embedding as the only output",
        )
    return vectors[0] if vectors else 0


def _pixels(face: RgbImage, params: RecogniserParams) -> npt.NDArray[np.float32]:
    """A face as the network's input: float32 (1, 3, size, size), or (1, size, size, 3)."""
    ordered = face[:, :, ::-1] if params.colour == "bgr" else face
    scaled = (ordered.astype(np.float32) - np.array(params.mean, np.float32)) / np.array(params.std, np.float32)
    return np.ascontiguousarray((scaled.transpose(2, 0, 1) if params.layout == "nchw" else scaled)[None])
