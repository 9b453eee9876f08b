"""Files that are not what their names say: pointers, web pages, cut downloads. Their first bytes tell."""

import zipfile
from pathlib import Path

from ireu_cli.layouts.table import files_in_folders
from ireu_cli.support.bounded import ContentError, printable, read_json

_WHOLE = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""The file names that transformers looks for in a folder, in this order; the index files name the shards."""
_HEAD = 1024
_MOST_HEADER = 1 << 25
"""The most bytes of a safetensors header that are read here."""
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""The bytes after the first two of archives by torch before 1.6."""
_AGAIN = "Fetch it again"
_SHOWN = 4


def weight_files() -> tuple[str, ...]:
    """What is looked for in a folder, in this order: what transformers takes first, then what layouts add to it."""
    return tuple(dict.fromkeys([*_WHOLE, *files_in_folders()]))


def wrong_with(path: Path) -> tuple[str, str]:
    """Why a file cannot be read as its kind: the rest of a sentence that begins with its name, and a remedy.

    It says that the file is damaged if no better reason is found.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        return f"cannot be read ({error.strerror})", "Check its permissions"
    text = head.lstrip().lower()
    if not size:
        return "is empty", _AGAIN
    if head.startswith(b"version https://git-lfs"):
        return f"is a git-lfs pointer ({size} bytes), not the file itself", "Fetch it with `git lfs pull`"
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page", "Fetch it again; you may have to log in or accept the model's terms first"
    if head.startswith(b"GGUF"):
        return "is a GGUF file with quantised weights", "Name the weights that were not quantised"
    return _container(path, head, size)


def _container(path: Path, head: bytes, size: int) -> tuple[str, str]:
    """The same for files that begin like weights."""
    ending = path.suffix.lower()
    if head.startswith(b"PK\x03\x04"):
        if not zipfile.is_zipfile(path):
            return f"ends early, after {size} bytes: it is only part of an archive", _AGAIN
        if ending in {".safetensors", ".sft", ".onnx"}:
            return f"is an archive, not a {ending} file", "Rename it to .bin if `torch.save` wrote it"
    if ending in {".safetensors", ".sft"} and len(head) >= 9:
        needed = _needed(path, int.from_bytes(head[:8], "little")) if head[8:9] == b"{" else 0
        if needed > size:
            return f"ends early, after {size} of {needed} bytes", _AGAIN
    if head[8:9] == b"{" and ending in {".bin", ".pt", ".pth", ".ckpt"}:
        return "has the content of a safetensors file", "Rename it to .safetensors"
    if head[:1] == b"\x80" and head[2:].startswith(_LEGACY_MAGIC):
        return "is a damaged archive of torch before 1.6", "Fetch it again, or convert it to safetensors"
    kind = {".safetensors": "safetensors file", ".sft": "safetensors file", ".onnx": "network in ONNX"}
    return f"is not a {kind.get(ending, 'file of weights')}, or is damaged", "Name an undamaged copy"


def _needed(path: Path, length: int) -> int:
    """The size in bytes that a safetensors header states; if the header is cut off, the header's own end."""
    with path.open("rb") as file:
        data = file.read(8 + min(length, _MOST_HEADER))[8:]
    if len(data) < length:
        return 8 + length
    try:
        told = read_json(data, _MOST_HEADER, repeats=True)
        ends = [entry["data_offsets"][1] for name, entry in told.items() if name != "__metadata__"]
        return int(8 + length + max(ends, default=0))
    except (ContentError, AttributeError, KeyError, TypeError, IndexError, ValueError):
        return 0


def nothing_in(folder: Path) -> tuple[str, str]:
    """The same for a folder without weights under the names that transformers looks for."""
    needed = f"It needs one of {', '.join(weight_files())}"
    if not folder.is_dir():
        return "does not exist", "Name a file or a folder"
    if (folder / "snapshots").is_dir():
        found = sorted(path for path in (folder / "snapshots").iterdir() if path.is_dir())
        if found:
            return "is a folder of the hub's cache", f"Name the snapshot in it: snapshots/{printable(found[0].name)}"
    files = sorted(path for path in folder.iterdir() if path.is_file())
    weights = [
        path for path in files if path.suffix.lower() in {".safetensors", ".sft", ".bin", ".pt", ".pth", ".ckpt"}
    ]
    if weights:
        names = ", ".join(printable(path.name) for path in weights[:_SHOWN])
        return f"holds weights only under names that no loader looks for: {names}", "Name the file itself"
    inner = [path.name for path in sorted(folder.iterdir()) if any((path / name).is_file() for name in weight_files())]
    if inner:
        return (
            "holds no weights, but a folder in it does",
            f"Name a folder in it: {', '.join(map(printable, inner[:_SHOWN]))}",
        )
    return "holds no weights", needed
