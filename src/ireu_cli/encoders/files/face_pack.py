"""Find the face-embedding network of a source: in an insightface pack, by insightface's own rules.

The rules are those of 2.1, `model_zoo/model_zoo.py` and `app/face_analysis.py`. A pack is a folder of `.onnx` files.
Without a manifest of version 2 insightface opens them in sorted order, tells the task of each from the shapes of its
inputs and outputs, and keeps the first of each task. So a copy whose name sorts earlier is used instead of the file
that you meant.
"""

from pathlib import Path
from typing import Any

from ireu_cli.encoders.files.networks import load_network
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import ContentError, inside, printable, read_json

MANIFEST = "manifest.json"
_VERSION = 2


def network_of(source: str) -> Path | None:
    """The path of a source's face-embedding network: the .onnx file itself, or the one in a bundle or a pack.

    Raises:
        ModelError: the pack has none.
    """
    if source.endswith(".onnx"):
        return Path(source)
    bundle = find_bundle(source)
    if bundle is None:
        return recogniser_in(Path(source)) if is_pack(Path(source)) else None
    return None if bundle.face_encoder is None else bundle.folder / bundle.face_encoder


def recogniser_in(folder: Path) -> Path:
    """The file that insightface uses for recognition.

    Raises:
        ModelError: the folder has no network for that task, or its networks lie in a folder inside it.
    """
    if (named := named_files(folder)) is not None:
        if "recognition" not in named:
            raise ModelError(f"The manifest of the pack {folder} does not name a recogniser", "Name a pack with one")
        return named["recognition"]
    if found := recognisers_in(folder):
        return found[0]
    nested = next(folder.glob("*/*.onnx"), None)
    if nested is not None and not networks_in(folder):
        raise ModelError(
            f"The networks of the pack {folder} lie one folder deeper, in {nested.parent.name}",
            "Move them up, or name the inner folder: insightface does not find them there",
        )
    raise ModelError(
        f"The pack {folder} has no network that maps an aligned face to one embedding", "Name a pack with a recogniser"
    )


def recognisers_in(folder: Path) -> list[Path]:
    """All networks of the task, in the order in which insightface opens them."""
    return [path for path in networks_in(folder) if recognises(load_network(path))]


def networks_in(folder: Path) -> list[Path]:
    """All networks that insightface sees, in its order; it does not see hidden files."""
    return [path for path in sorted(folder.glob("*.onnx")) if not path.name.startswith(".") and path.is_file()]


def named_files(folder: Path) -> dict[str, Path] | None:
    """The file that a manifest of version 2 names for each task; None if there is no manifest of that version.

    Raises:
        ModelError: it cannot be read, or names files that are not in the pack.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        told = read_json(path, repeats=True)
        if not isinstance(told, dict) or told.get("manifest_version") != _VERSION:
            return None
        named = {str(task): entry["file"] for task, entry in told["tasks"].items()}
    except (ContentError, OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ModelError(f"{path} cannot be read as a manifest of insightface", "Repair or remove it") from None
    return {task: _inside(folder, name, path) for task, name in named.items()}


def _inside(folder: Path, name: Any, manifest: Path) -> Path:
    unfit = ModelError(
        f"{manifest} names {printable(name)}, which is not in the pack", "Fetch the file, or repair the manifest"
    )
    try:
        found = inside(folder, name)
    except ContentError:
        raise unfit from None
    if not found.is_file():
        raise unfit
    return found


def is_pack(source: Path) -> bool:
    """Whether to read a folder as a pack."""
    return (
        source.is_dir()
        and not (source / "config.json").exists()
        and any(file for pattern in ("*.onnx", "*/*.onnx") for file in source.glob(pattern))
    )


def recognises(network: Any) -> bool:
    """Whether a network maps one aligned face to one embedding, by the same shapes that insightface looks at."""
    initialised = {tensor.name for tensor in network.graph.initializer}
    inputs = [entry for entry in network.graph.input if entry.name not in initialised]
    if len(inputs) != 1 or len(network.graph.output) != 1:
        return False
    sides = [dimension.dim_value for dimension in inputs[0].type.tensor_type.shape.dim]
    return len(sides) == 4 and sides[2] == sides[3] and sides[2] >= 112 and sides[2] % 16 == 0 and sides[2] != 192
