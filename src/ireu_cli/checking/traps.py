"""What may bring the original back without a word, as far as the place of an encoder tells.

Each was read in the code of the system that does it; `docs/serving.md` names the files.
"""

import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.support.bounded import printable

_MOST = 2000
"""The most entries of a folder that are looked at."""
_WEIGHTS = (".safetensors", ".sft", ".bin", ".pth", ".pt", ".ckpt", ".onnx", ".h5", ".msgpack", ".gguf")
_ASIDE = frozenset({"bak", "orig", "original", "old", "backup", "save"})
"""Parts of a file's name, between dots, dashes and underscores, that say that it was put aside."""
_LARGEST = 1 << 31
"""The most bytes of which a checksum is computed."""
_PACK = ("det_10g.onnx", "genderage.onnx", "w600k_r50.onnx")
"""Files of buffalo_l that ReActor looks for."""


@dataclass(frozen=True)
class Place:
    """Where an encoder lies: the path that was named, its own folder, the names in it, and the names of its record."""

    path: Path
    folder: Path
    names: tuple[str, ...]
    recorded: frozenset[str]

    @classmethod
    def of(cls, path: Path, recorded: Sequence[str] = ()) -> "Place":
        """Look at a file or folder."""
        path = path.absolute()
        folder = path if path.is_dir() else path.parent
        return cls(path, folder, _names(folder), frozenset(recorded))


Trap = Callable[[Place], Iterator[str]]


def traps_at(place: Place) -> list[str]:
    """A sentence for each trap that stands there."""
    found = [printable(words, 600) for trap in _TRAPS for words in trap(place)]
    if len(place.names) == _MOST:
        found.append(f"the folder has {_MOST} entries or more, and only the first {_MOST} were looked at")
    return found


def _put_aside(place: Place) -> Iterator[str]:
    around = [(place.folder, place.names)]
    if place.path.is_dir():
        around.append((place.folder.parent, _names(place.folder.parent)))
    for folder, names in around:
        for name in names:
            if _is_aside(name) and (is_weights(name) or (folder / name).is_dir()):
                yield (
                    f"{name} lies in {folder.name or folder}: whoever puts it back brings the original back, and a "
                    "loader may take it by its name. Keep it elsewhere"
                )


def _others_first(place: Place) -> Iterator[str]:
    if not place.path.is_dir() or not place.recorded:
        return
    more = [n for n in place.names if is_weights(n) and n not in place.recorded and not _is_aside(n)]
    more += [n for n in place.names if n.endswith(".index.json") and n not in place.recorded]
    if more:
        yield (
            f"{', '.join(sorted(more)[:5])} in the same folder is not of this export, and a loader may take it "
            "instead: transformers and diffusers choose by name, and by the variant that they are asked for. Move it "
            "away"
        )


def _checked_pack(place: Place) -> Iterator[str]:
    if "glintr100.onnx" in place.names and (
        "antelopev2" in place.folder.parts or "scrfd_10g_bnkps.onnx" in place.names
    ):
        yield (
            "nunchaku's PuLID compares the files of antelopev2 with digests of its own, and downloads the pack again "
            "over this one if a file differs. Start it without a network, and check again after each start"
        )


def _sidecar(place: Place) -> Iterator[str]:
    for name in place.names:
        if name == "arcface_w600k_r50.onnx":
            network, sidecar = place.folder / name, place.folder / "arcface_w600k_r50.hash"
            if not sidecar.is_file() or _first_line(sidecar) != _crc32(network):
                yield (
                    f"FaceFusion compares {name} with the CRC-32 in arcface_w600k_r50.hash, which "
                    f"{'does not fit' if sidecar.is_file() else 'is missing'}: it downloads the original then. Export "
                    "with --format facefusion"
                )


def _incomplete_pack(place: Place) -> Iterator[str]:
    here = [name for name in _PACK if name in place.names]
    missing = [name for name in _PACK if name not in place.names]
    if "w600k_r50.onnx" in here and missing and place.folder.name == "buffalo_l":
        yield (
            f"{', '.join(missing)} of buffalo_l is missing: ReActor and insightface fetch the whole pack again then, "
            "over this network. Complete the pack"
        )


def _hub_cache(place: Place) -> Iterator[str]:
    parts = place.folder.resolve().parts
    at = next((n for n, part in enumerate(parts) if part.startswith("models--")), None)
    if at is None or "snapshots" not in parts[at:]:
        return
    snapshots = Path(*parts[: parts.index("snapshots", at) + 1])
    others = [name for name in _names(snapshots) if name not in parts]
    more = f", and {len(others)} other revisions with it" if others else ""
    yield (
        f"this lies in a cache of the hub{more}: a forced or new download puts the original back. Serve a folder of "
        "your own by its path"
    )


def _adapters(place: Place) -> Iterator[str]:
    above = _names(place.folder.parent)
    if place.folder.name == "image_encoder" and any(name.startswith("ip-adapter") for name in above):
        yield (
            "adapters lie beside this image encoder: in diffusers, `unload_ip_adapter()` and `load_ip_adapter()` load "
            "the encoder of the repository that they name. Name this folder there, and check the loaded weights"
        )


def _comfyui(place: Place) -> Iterator[str]:
    if "clip_vision" not in place.folder.parts[-2:]:
        return
    yield "ComfyUI reads a file once under its name: restart it after you replace this one"
    others = [name for name in place.names if is_weights(name) and name != place.path.name]
    if others:
        yield (
            "if the file that a workflow names is missing, ComfyUI's refresh takes another one of the folder, perhaps "
            f"{others[0]}"
        )


_TRAPS: tuple[Trap, ...] = (
    _put_aside,
    _others_first,
    _checked_pack,
    _sidecar,
    _incomplete_pack,
    _hub_cache,
    _adapters,
    _comfyui,
)


def _names(folder: Path) -> tuple[str, ...]:
    try:
        found = sorted(entry.name for _, entry in zip(range(_MOST), folder.iterdir(), strict=False))
    except OSError:
        return ()
    return tuple(found)


def is_weights(name: str) -> bool:
    """Whether a file's name says that it holds weights."""
    return any(f".{part}" in _WEIGHTS for part in re.split(r"[._-]", name.lower().rstrip("~"))[1:])


def _is_aside(name: str) -> bool:
    lower = name.lower()
    return lower.endswith("~") or not _ASIDE.isdisjoint(re.split(r"[._-]", lower))


def _first_line(path: Path) -> str:
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            return file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return ""


def _crc32(path: Path) -> str:
    """As FaceFusion's `hash_helper.py` computes it."""
    value = 0
    try:
        # A pipe or a device may never end.
        if not path.is_file() or path.stat().st_size > _LARGEST:
            return ""
        with path.open("rb") as file:
            while piece := file.read(1 << 20):
                value = zlib.crc32(piece, value)
    except OSError:
        return ""
    return format(value, "08x")
