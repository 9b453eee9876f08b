"""`ireu apply`: embeddings that were stored earlier pass through the gates of a delta, as new ones do."""

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch

from ireu_cli import __version__
from ireu_cli.applying.stored import open_stored
from ireu_cli.encoders.onnx_gates import GATE_TENSORS, Gates, through_gates
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.store import outputs
from ireu_cli.store.artifacts import read_delta
from ireu_cli.store.files import portable_name
from ireu_cli.store.locks import beside
from ireu_cli.store.manifests import manifest_path, read_manifest


@dataclass(frozen=True)
class Applied:
    """What was written: the file, its record, how many embeddings it holds and how many of them changed.

    `is_reused` says that the file was there already.
    """

    artifact: Path
    manifest: Manifest
    embeddings: int
    changed: int
    is_reused: bool


def run_apply(delta_path: Path, source: Path, out: Path, *, force: bool, note: Callable[[str], None]) -> Applied:
    """Write a copy of stored embeddings in which those of unlearned people are changed; all others keep every bit.

    Args:
        delta_path: a delta of gates, with its manifest beside it.
        source: the embeddings, which the delta's original encoder made; see `open_stored`.
        out: the file to write, of the same kind. Only its owner can read it. Its record says nothing about faces.
        force: overwrite an output that ireu wrote.
        note: prints a message.

    Raises:
        ArtifactError: the delta changes weights, or one of the files cannot be used.
        ModelError: the embeddings are a damaged safetensors file.
    """
    record = outputs.record_of("apply", out)
    outputs.refuse_place(record, out)
    if out.suffix.lower() != source.suffix.lower():
        raise ArtifactError(f"{out} does not end in {source.suffix}, as the embeddings do", "Name another file")
    parent, gates = _gates_in(delta_path)
    stored = open_stored(source, gates.weights.shape[1])
    given = sha256(stored.data).hexdigest()
    count, changed = 0, 0
    for part in stored.parts:
        new, is_open = through_gates(
            part.vectors, gates.weights.double(), gates.thresholds.double(), gates.changes.double(), gates.rise
        )
        part.put(is_open, new[is_open])
        count, changed = count + len(new), changed + int(is_open.sum())
    manifest = Manifest(
        step="apply",
        state="running",
        tool_version=__version__,
        identity=digest_of({"step": "apply", "parent": parent.digest, "embeddings": given}),
        seed=parent.seed,
        parameters={},
        encoder=parent.encoder,
        parent=parent.digest,
        metrics={"embeddings": count},
        environment={"torch": str(torch.__version__)},
    )
    with beside(out, note):
        outputs.recover(record, out)
        existing = outputs.found_at(record, out)
        if existing is not None and existing.identity == manifest.identity and not force:
            return Applied(out, existing, count, changed, is_reused=True)
        if existing is not None and not force:
            raise ArtifactError(
                f"{out} was made of other embeddings or another delta",
                "Choose another --out, or overwrite it with --force",
            )
        written = outputs.write_artifact(out, stored.data, manifest, outputs.state_of(record, out))
    return Applied(out, written, count, changed, is_reused=False)


def _gates_in(delta_path: Path) -> tuple[Manifest, Gates]:
    """A delta's manifest, and its gates.

    Raises:
        ArtifactError: it cannot be read, or its manifest describes another file, or it changes weights.
    """
    if not delta_path.is_file():
        raise ArtifactError(f"{delta_path} does not exist", "Name the delta that `ireu unlearn` wrote")
    parent = read_manifest(manifest_path(delta_path))
    if parent.step != "unlearn" or portable_name(delta_path.name) not in {one.name for one in parent.outputs}:
        raise ArtifactError(f"The manifest beside {delta_path} does not describe a delta", "Name another delta")
    delta = read_delta(delta_path)
    if set(delta.tensors) != set(GATE_TENSORS):
        raise ArtifactError(
            "The delta changes weights inside an encoder, which stored embeddings cannot pass through",
            "Make the embeddings anew with the exported encoder",
        )
    return parent, Gates.from_tensors(delta.tensors)
