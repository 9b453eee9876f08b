"""Everything that uses insightface: detection with five landmarks, recognition, and the inswapper.

insightface downloads packs that it does not find, prints to stdout, takes BGR and returns an empty list for "no face".
Here a missing pack is an error, stdout stays clean, pictures are RGB, and "no face" is an error in words.
"""

import contextlib
import io
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ireu_cli.errors import ModelError
from ireu_cli.faces.align import Points
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.swap import Face
from ireu_cli.values import RgbImage

_INSTALL = "Install it with `pip install 'ireu[detect]'`, or leave out the setting that needs it"
_SIDE = 112


class FaceFinder:
    """Finds the largest face of a photo."""

    def __init__(self, root: Path | None, pack: str) -> None:
        """Load the detector of a pack.

        Args:
            root: insightface's root folder, which holds `models/<pack>/*.onnx`.
            pack: the pack's name.

        Raises:
            ModelError: insightface is not installed, or the pack does not exist or cannot be loaded.
        """
        self._analysis = _analysis(root, pack, ["detection"])

    def find(self, image: RgbImage) -> Points:
        """Return the landmarks of the largest face, in pixels.

        Raises:
            BadPhotoError: there is no face.
        """
        faces = self._analysis.get(np.ascontiguousarray(image[:, :, ::-1]))
        if not faces:
            raise BadPhotoError("shows no face that the detector finds")
        return np.asarray(_largest(faces).kps, dtype=np.float64)


@dataclass(frozen=True)
class PackRecogniser:
    """A pack's recognition network with insightface's own preprocessing.

    `file` is its .onnx file, `size` is the side of an aligned face in pixels, and `preprocessing` holds the mean and
    the standard deviation that insightface uses for it.
    """

    file: Path
    size: int
    preprocessing: tuple[float, float]
    network: Any

    def embed(self, faces: Sequence[RgbImage]) -> npt.NDArray[np.float32]:
        """Aligned faces, RGB, one at a time -> float32 (n, d), not normalised."""
        found = [self.network.get_feat(np.ascontiguousarray(face[:, :, ::-1])) for face in faces]
        return np.concatenate(found).astype(np.float32, copy=False)


def pack_recogniser(root: Path, pack: str) -> PackRecogniser:
    """Load the recognition network of a pack.

    Args:
        root: insightface's root folder, which holds `models/<pack>/*.onnx`.
        pack: the pack's name.

    Raises:
        ModelError: insightface is not installed, or the pack cannot be loaded, has no recogniser, or one for another
            size.
    """
    folder = root / "models" / pack
    if not any(folder.glob("*.onnx")):
        raise ModelError(f"There is no insightface pack at {folder}", "Name the pack's own folder, ROOT/models/PACK")
    network = _opened(folder, ["detection", "recognition"]).models.get("recognition")
    if network is None:
        raise ModelError(f"The insightface pack {folder} has no recognition network", "Name another pack")
    # insightface aligns to another template at other sizes.
    if tuple(network.input_size) != (_SIDE, _SIDE):
        raise ModelError(
            f"The recognition network of the insightface pack {folder} does not take faces of {_SIDE} px",
            "Name its .onnx file with kind = onnx",
        )
    preprocessing = (float(network.input_mean), float(network.input_std))
    return PackRecogniser(Path(network.model_file), _SIDE, preprocessing, network)


class Inswapper:
    """An inswapper `.onnx` with the pack whose recogniser it was trained with (buffalo_l); a `FaceSwap`.

    Another process opens the same files anew.
    """

    def __init__(self, model: Path, root: Path | None, pack: str) -> None:
        """Open the model and the pack; see `FaceFinder`.

        Raises:
            ModelError: the model or the pack cannot be loaded.
        """
        if not model.is_file():
            raise ModelError(
                f"The inswapper model {model} does not exist",
                "Name the .onnx file with --set locate.swapper_model=FILE",
            )
        self._files = (model, root, pack)
        self._analysis = _analysis(root, pack, ["detection", "recognition"])
        with _quiet():
            from insightface.model_zoo import get_model

            network = _loading(lambda: get_model(str(model), download=False), f"The inswapper model {model}")
        if network is None or not hasattr(network, "emap"):
            raise ModelError(f"{model} is not an inswapper model", "Name an insightface inswapper .onnx file")
        self._network = network

    def __call__(self, context: Face, identity: Face) -> RgbImage:
        """Put the identity's face into the context's photo.

        Raises:
            BadPhotoError: the detector finds no face in one of them.
        """
        context_bgr = np.ascontiguousarray(context.image[:, :, ::-1])
        pair = (context_bgr, np.ascontiguousarray(identity.image[:, :, ::-1]))
        found = [self._analysis.get(bgr) for bgr in pair]
        if not all(found):
            raise BadPhotoError("shows no face that the swapper's detector finds")
        swapped = self._network.get(context_bgr, _largest(found[0]), _largest(found[1]), paste_back=True)
        return np.asarray(swapped[:, :, ::-1], dtype=np.uint8)

    def __reduce__(self) -> tuple[type["Inswapper"], tuple[Path, Path | None, str]]:
        """By its files."""
        return Inswapper, self._files


def _analysis(root: Path | None, pack: str, modules: list[str]) -> Any:
    if root is None:
        raise ModelError(
            "No face models are given",
            "Name insightface's root folder with --set data.face_models=DIR, or use --faces aligned",
        )
    folder = root / "models" / pack
    if not any(folder.glob("*.onnx")):
        raise ModelError(
            f"There is no insightface pack at {folder}",
            "Correct data.face_models and data.face_pack; ireu does not download packs",
        )
    return _opened(folder, modules)


def _opened(folder: Path, modules: list[str]) -> Any:
    with _quiet():
        try:
            from insightface.app import FaceAnalysis
        except ImportError:
            raise ModelError("insightface is not installed", _INSTALL) from None

        def load() -> Any:
            # By its full path: a bare name would first be looked for in the working directory.
            analysis = FaceAnalysis(name=str(folder.resolve()), allowed_modules=modules)
            analysis.prepare(ctx_id=-1)
            return analysis

        return _loading(load, f"The insightface pack {folder}")


def _loading(load: Any, what: str) -> Any:
    try:
        return load()
    except Exception as error:  # noqa: BLE001 - onnxruntime and insightface raise every kind, AssertionError included
        raise ModelError(
            f"{what} cannot be loaded ({type(error).__name__})",
            "Check that its files are complete and not nested in a second folder",
        ) from None


def _largest(faces: Any) -> Any:
    return max(faces, key=lambda face: (face.bbox[2] - face.bbox[0]) * (face.bbox[3] - face.bbox[1]))


@contextlib.contextmanager
def _quiet() -> Any:
    with contextlib.redirect_stdout(io.StringIO() if not sys.stderr.isatty() else sys.stderr):
        yield
