"""Masks, deltas, manifests and exported encoders on disk."""

import io
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from ireu_cli.errors import ArtifactError
from ireu_cli.store.files import read_bytes, write_bytes
from ireu_cli.store.ledger import LEDGER, ledger_tensors, read_ledger
from ireu_cli.store.packing import packed
from ireu_cli.support.paths import as_text
from ireu_cli.values import FeatureMask, WeightDelta

_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
"""The dtypes of a delta; narrower ones have no arithmetic."""


def mask_bytes(mask: FeatureMask) -> bytes:
    """The content of a mask's file: `{'mask': bool (d,), 'score': float32 (d,)}`, a `.pt` file of plain tensors."""
    buffer = io.BytesIO()
    torch.save({"mask": mask.mask.cpu(), "score": mask.score.cpu()}, buffer)
    return buffer.getvalue()


def write_mask(path: Path, mask: FeatureMask) -> None:
    """Write a mask without a manifest; only its owner can read it."""
    write_bytes(path, mask_bytes(mask))


def read_mask(path: Path) -> FeatureMask:
    """Read a mask with `weights_only=True`; nothing is unpickled.

    Raises:
        ArtifactError: it is not such a file, has other keys, wrong dtypes or shapes, an empty mask, or scores that are
            not finite.
    """
    data = read_bytes(path, "The mask", "Name the file that `ireu locate` wrote")
    remedy = "Name a mask that `ireu locate` wrote"
    try:
        loaded: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - torch raises many kinds for damaged files
        raise ArtifactError(
            f"The mask {path} is not a .pt file of plain tensors ({type(error).__name__})", remedy
        ) from None
    if not isinstance(loaded, dict) or set(loaded) != {"mask", "score"}:
        raise ArtifactError(f"The mask {path} does not hold exactly 'mask' and 'score'", remedy)
    mask, score = loaded["mask"], loaded["score"]
    if not (isinstance(mask, Tensor) and isinstance(score, Tensor)) or mask.dtype != torch.bool or mask.ndim != 1:
        raise ArtifactError(f"The mask {path} is not a one-dimensional bool tensor", remedy)
    if score.shape != mask.shape or not bool(torch.isfinite(score).all()) or not bool(mask.any()):
        raise ArtifactError(f"The mask {path} is empty, or its scores do not fit it", remedy)
    return FeatureMask(mask, score.float())


def delta_bytes(delta: WeightDelta) -> bytearray:
    """The content of a delta's file: safetensors in float32, with the encoder's tensor names, sorted, and a ledger."""
    tensors = {name: delta.tensors[name].detach().float().cpu().contiguous() for name in sorted(delta.tensors)}
    if delta.ledger is not None:
        tensors |= ledger_tensors(delta.ledger)
    # Use only one key: safetensors writes several metadata keys in random order, and the bytes must repeat.
    return packed(tensors, {"format": "pt"})


def write_delta(path: Path, delta: WeightDelta) -> None:
    """Write a delta without a manifest; only its owner can read it."""
    write_bytes(path, delta_bytes(delta))


def read_delta(path: Path) -> WeightDelta:
    """Read a delta.

    Raises:
        ArtifactError: it is no safetensors file or no delta, has no tensors, a value that is not finite or a damaged
            ledger.
    """
    remedy = "Name a delta that `ireu unlearn` wrote"
    if path.is_dir():
        raise ArtifactError(f"The delta {path} is a folder", remedy)
    try:
        # It is memory-mapped because it may be large; replacing the file does not change the mapped one.
        with as_text(path) as opened:
            tensors = safetensors.torch.load_file(opened)
    except FileNotFoundError:
        raise ArtifactError(f"The delta {path} does not exist", remedy) from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise ArtifactError(f"The delta {path} is not a safetensors file ({type(error).__name__})", remedy) from None
    entries = {name: tensors.pop(name) for name in sorted(tensors) if name.startswith(LEDGER)}
    if not tensors:
        raise ArtifactError(f"The delta {path} holds no tensors", remedy)
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise ArtifactError(
                f"The delta {path} holds {name} in {tensor.dtype}, which cannot be added to weights", remedy
            )
        if not _is_finite(tensor):
            raise ArtifactError(f"The delta {path} holds values that are not finite numbers in {name}", remedy)
    if not entries:
        return WeightDelta(tensors)
    try:
        return WeightDelta(tensors, read_ledger(entries))
    except (KeyError, ValueError, IndexError, RuntimeError):
        raise ArtifactError(f"The ledger of the delta {path} is damaged", remedy) from None


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite numbers; a NaN would be both the smallest and the largest value."""
    return not tensor.numel() or bool(torch.isfinite(torch.stack(torch.aminmax(tensor))).all())
