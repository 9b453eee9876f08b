"""Sums over tokens of the first photos of a pass, in the run folder, so that a stopped pass goes on."""

from pathlib import Path
from time import monotonic

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ireu_cli.store.tensors import read_tensors, write_tensors
from ireu_cli.support.photo_table import listed
from ireu_cli.unlearning.gated.kept_sums import digest_of_texts
from ireu_cli.unlearning.gated.site_sums import SiteSums

_BEGUN = "begun."
"""Put before the names of the sums over a shard that is not finished."""


class KeptTokenSums:
    """Sums over tokens in the run folder, named by the photos that they cover, the first ones of a pass."""

    def __init__(self, folder: Path, block: int, digests: NDArray[np.uint8]) -> None:
        """Args: the folder of sums, the block of the edit site, and the photos' digests, uint8 (n, 32), in order."""
        self._folder, self._block, self._digests = folder, block, digests
        self._last = monotonic()
        self._written: Path | None = None

    def read(self, batch: int, shard: int) -> tuple[SiteSums, SiteSums]:
        """The sums over whole shards, and over the shard after them, of all photos or the first ones of a pass.

        A pass that continues an earlier one must use the same batches and shards, of so many photos, to have the same
        result.
        """
        for path in sorted(self._folder.glob(f"{'[0-9]' * 9}-*.safetensors"), reverse=True):
            done = int(path.name.partition("-")[0])
            if path != self._path(done):
                continue
            tensors = read_tensors(path)
            sums, begun = SiteSums.from_tensors(tensors), SiteSums.from_tensors(_under(_BEGUN, tensors or {}))
            begun.offset = sums.done
            is_all = done == len(self._digests)
            fits = sums.done % shard == 0 and begun.done <= shard and (is_all or begun.done % batch == 0)
            if sums.done + begun.done != done or done > len(self._digests) or not (fits or (is_all and not begun.done)):
                continue
            if begun.done == shard or is_all:
                sums.join(begun)
                begun = SiteSums()
            return sums, begun
        return SiteSums(), SiteSums()

    def write(self, sums: SiteSums, begun: SiteSums, seconds: float) -> None:
        """Keep the sums, unless some were kept a few seconds ago; earlier sums of this pass are deleted."""
        done = sums.done + begun.done
        if done and monotonic() - self._last >= seconds and (path := self._path(done)) != self._written:
            more = {_BEGUN + name: tensor for name, tensor in begun.tensors().items()} if begun.done else {}
            write_tensors(path, sums.tensors() | more)
            if self._written is not None:
                self._written.unlink(missing_ok=True)
            self._last, self._written = monotonic(), path

    def _path(self, done: int) -> Path:
        name = digest_of_texts(str(self._block), listed(self._digests[:done]))
        return self._folder / f"{done:09d}-{name[:32]}.safetensors"


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
