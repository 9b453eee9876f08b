"""An export as a service is going to hold it: its record, its files, and the digests of its weights when loaded."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ireu_cli.checking.against_record import compare
from ireu_cli.checking.known_exports import Export
from ireu_cli.checking.traps import is_weights
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import FileRecord
from ireu_cli.store.beside import record_of
from ireu_cli.store.files import native_name
from ireu_cli.support.bounded import printable
from ireu_cli.support.paths import as_text
from ireu_cli.values import DTYPES, Json

_AS_STORED = "as stored"
_REMEDY = "Name the folder that `ireu export` wrote"


@dataclass(frozen=True)
class Exported:
    """An export whose files are all as recorded when it is opened."""

    folder: Path
    record: Export

    @property
    def networks(self) -> tuple[FileRecord, ...]:
        """Its files in ONNX."""
        return tuple(one for one in self.record.manifest.outputs if one.name.endswith(".onnx"))

    @cached_property
    def weights(self) -> "Weights":
        """Its weights in safetensors.

        Raises:
            ArtifactError: it has none.
        """
        names = [native_name(one.name) for one in self.record.manifest.outputs if one.name.endswith(".safetensors")]
        if not names:
            raise ArtifactError(
                f"The export {self.folder} has no weights in safetensors, which is all that SGLang-Diffusion loads",
                "Export the encoder from a folder of transformers",
            )
        return Weights([self.folder / name for name in names])

    def dtype_of(self, digest: str) -> str | None:
        """The dtype in which its weights have the digest of a module; None if they have it in none."""
        return next((name for name, found in self.weights.digests() if found == digest), None)


def open_exported(place: Path) -> Exported:
    """Open an export, and compare its files with its record.

    Raises:
        ArtifactError: it is no export, or is not as recorded.
    """
    found = record_of(place)
    if found is None or found[1].step != "export":
        raise ArtifactError(f"{place} is no export", _REMEDY)
    path, manifest = found
    files = compare(path, manifest, path.parent)
    if not files.whole or manifest.state != "complete":
        wrong = next((f"{name} is {state}" for name, state in files.wrong.items()), "it is not complete")
        raise ArtifactError(f"The export {place} is not as recorded: {printable(wrong, 300)}", "Export again")
    if added := [name for name in files.added if is_weights(name)]:
        raise ArtifactError(
            f"In the export {place} lies {printable(added[0], 200)}, which its record does not list and a "
            "service may load",
            "Move it away",
        )
    return Exported(path.parent, Export(manifest, path.parent.name))


class Weights:
    """The parameters of a network in files of safetensors, read one at a time.

    Buffers are no parameters. Of the encoders that ireu exports, only the numbers of positions are buffers in a file,
    and they are whole numbers.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Args: the files."""
        self._files = tuple(files)
        # They take a pass over all weights each, and are asked for several times.
        self._known: dict[str, str] = {}

    def tensors(self, dtype: str = _AS_STORED) -> Iterator[tuple[str, Tensor]]:
        """Names and parameters in the order of their names, in a dtype (`float32`, …) or as they are stored.

        Raises:
            ArtifactError: a file cannot be read, or two of them hold the same name.
        """
        with contextlib.ExitStack() as stack:
            held = {}
            for path in self._files:
                try:
                    opened = stack.enter_context(as_text(path))
                    file = stack.enter_context(safe_open(opened, framework="pt"))
                except (OSError, SafetensorError) as error:
                    raise ArtifactError(f"{path} cannot be read ({error})", "Export again") from None
                for name in file.keys():  # noqa: SIM118 - it is no mapping
                    if name in held:
                        raise ArtifactError(f"Two files of the export hold {name}", "Export again")
                    held[name] = file
            for name in sorted(held):
                tensor = held[name].get_tensor(name)
                if tensor.is_floating_point():
                    yield name, tensor.to(DTYPES.get(dtype, tensor.dtype))

    def digests(self) -> Iterator[tuple[str, str]]:
        """Dtypes and the digest of a module that holds the weights in it; as they are stored first."""
        stored, digest = self._stored
        yield stored, digest
        for name in DTYPES:
            if name != stored:
                if name not in self._known:
                    self._known[name] = module_digest(self.tensors(name))
                yield name, self._known[name]

    @cached_property
    def _stored(self) -> tuple[str, str]:
        """The dtype in which they are stored, and the digest in it."""
        dtypes: set[torch.dtype] = set()

        def noted() -> Iterator[tuple[str, Tensor]]:
            for name, tensor in self.tensors():
                dtypes.add(tensor.dtype)
                yield name, tensor

        digest = module_digest(noted())
        return next((name for name, dtype in DTYPES.items() if dtypes == {dtype}), _AS_STORED), digest

    def expected(self, dtype: str | None) -> Json:
        """The digests of a module and of each of its tensors, as SGLang-Diffusion is asked to compare them."""
        dtype = dtype or _AS_STORED
        digests: dict[str, str] = {}

        def noted() -> Iterator[tuple[str, Tensor]]:
            for name, tensor in self.tensors(dtype):
                digests[name] = tensor_digest(tensor)
                yield name, tensor

        module = module_digest(noted())
        return {"dtype": dtype, "module_sha256": module, "expected_named_tensors_sha256": digests}


def module_digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 (hex) over names and bytes of tensors that come in the order of their names.

    It is what SGLang-Diffusion answers to `get_weights_checksum`, for a module that is on one device as a whole.
    """
    found = hashlib.sha256()
    for name, tensor in tensors:
        found.update(name.encode())
        found.update(_bytes_of(tensor))
    return found.hexdigest()


def tensor_digest(tensor: Tensor) -> str:
    """SHA-256 (hex) over dtype, shape and bytes, as SGLang-Diffusion's `update_weights_from_tensor_checker` has it."""
    head = f"{tensor.dtype}{tuple(tensor.shape)!r}"
    return hashlib.sha256(head.encode() + _bytes_of(tensor)).hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
