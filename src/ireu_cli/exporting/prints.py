"""Prints of files that were read before: an unchanged file need not be read again."""

import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from ireu_cli.encoders.files.checkpoint import Checkpoint
from ireu_cli.encoders.files.fingerprint import Print
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import digest_of
from ireu_cli.store.tensors import read_tensors, write_tensors
from ireu_cli.support.stamps import is_settled

_VERSION = 1
"""Raise it when `print_of` gives other prints."""


def kept_prints(
    folder: Path, source: Checkpoint, names: Iterable[str], read: Callable[[list[str]], dict[str, Print]]
) -> dict[str, Print]:
    """The prints of some tensors of a checkpoint: computed, or found in the cache.

    As in git's index, a file counts as unchanged while its stamp is the same. Prints of files that changed a moment
    before they were read are not kept, because a second change might leave the same time.

    Args:
        folder: the cache of prints.
        source: the checkpoint.
        names: names of the tensors.
        read: computes their prints.
    """
    names, now = sorted(names), time.time_ns()
    keys = [(name, source.places[name][0].path.name, source.places[name][1]) for name in names]
    path = folder / f"{digest_of([_VERSION, keys, source.stamp])[:32]}.safetensors"
    if (found := read_tensors(path)) is not None:
        return _unpacked(names, found)
    prints = read(names)
    settled = all(is_settled(one, now) for one in source.stamp)
    if settled and not source.has_changed():
        # Whoever cannot keep them reads the files again.
        with contextlib.suppress(ArtifactError):
            write_tensors(path, _packed([prints[name] for name in names]))
    return prints


def _packed(prints: list[Print]) -> dict[str, Tensor]:
    digests = b"".join(bytes.fromhex(one.digest) for one in prints)
    return {
        "digests": torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(len(prints), -1),
        "finite": torch.tensor([one.is_finite for one in prints]),
    }


def _unpacked(names: list[str], tensors: dict[str, Tensor]) -> dict[str, Print]:
    rows = zip(names, tensors["digests"].numpy(), tensors["finite"].tolist(), strict=True)
    return {name: Print(digest.tobytes().hex(), finite) for name, digest, finite in rows}
