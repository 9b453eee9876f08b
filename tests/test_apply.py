"""`ireu apply`: stored embeddings pass through gates; whoever is not found keeps every bit."""

import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ireu_cli.applying.stored import open_stored
from ireu_cli.encoders.onnx_gates import Gates, append_gates, through_gates
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import EncoderRecord, Manifest
from ireu_cli.store.artifacts import write_delta
from ireu_cli.store.manifests import write_manifest
from ireu_cli.values import WeightDelta
from tests.conftest import run_ireu
from tests.test_onnx_gates import run, small_network

WIDTH = 12


def vectors(count: int = 40) -> Tensor:
    """Embeddings of lengths from 1 to 20."""
    draw = torch.Generator().manual_seed(3)
    return torch.randn(count, WIDTH, generator=draw) * (1 + 5 * torch.rand(count, 1, generator=draw))


def gates_for(person: Tensor) -> Gates:
    """Gates that find two people: the given one, and one along the first axis."""
    unit = torch.stack([person / person.norm(), torch.eye(WIDTH)[0]])
    return Gates(unit, torch.tensor([0.9, 0.8]), -1.7 * unit + 0.2, 0.05)


def write_gates(folder: Path, gates: Gates) -> Path:
    """A delta with its manifest."""
    path = folder / "delta.safetensors"
    write_delta(path, WeightDelta(gates.tensors()))
    encoder = EncoderRecord(fingerprint="a" * 64, architecture="test", tap="embedding", layers=1)
    record = Manifest(step="unlearn", state="running", tool_version="1", identity="b" * 64, seed=0, parameters={},
                      encoder=encoder)  # fmt: skip
    write_manifest(folder / "delta.safetensors.json", record, [path])
    return path


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a delta that finds the first of `vectors`."""
    write_gates(tmp_path, gates_for(vectors()[0]))
    return tmp_path


def applied(place: Path, source: str, out: str, *more: str) -> dict[str, Any]:
    done = run_ireu("apply", "--delta", "delta.safetensors", "--embeddings", source, "-o", out, "--json", *more,
                    cwd=place)  # fmt: skip
    assert done.code == 0, done.err
    found: dict[str, Any] = done.json
    return found


def test_it_does_what_the_network_with_gates_does() -> None:
    given = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
    network = small_network(13)
    # The network hands its first numbers through.
    weights = np.zeros((12, 6), np.float32)
    weights[:6] = np.eye(6)
    for tensor, values in zip(network.graph.initializer, (weights, np.zeros(6, np.float32)), strict=True):
        tensor.raw_data = values.tobytes()
    unit = torch.nn.functional.normalize(given[:3], dim=1)
    gates = Gates(unit, torch.tensor([0.7, 0.8, 0.2]), -1.3 * unit + 0.1, 0.3)
    faces = torch.cat([given, torch.zeros(300, 6)], dim=1).reshape(-1, 3, 2, 2).numpy()
    wanted = run(append_gates(network, gates), faces)
    found, is_open = through_gates(given, gates.weights, gates.thresholds, gates.changes, gates.rise)
    assert 30 < int(is_open.sum()) < 270
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert found[~is_open].numpy().tobytes() == given[~is_open].numpy().tobytes()


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_face_model_keeps_all_but_the_embedding(place: Path, kind: torch.dtype) -> None:
    face = {"embedding": vectors()[0].to(kind), "bbox": torch.arange(4.0), "gender": torch.tensor(1),
            "landmark_3d_68": torch.randn(68, 3)}  # fmt: skip
    save_file(face, place / "face.safetensors", {"by": "somebody"})
    told = applied(place, "face.safetensors", "out.safetensors")
    assert (told["embeddings"], told["changed"]) == (1, 1)
    found = load_file(place / "out.safetensors")
    cosine = torch.nn.functional.cosine_similarity(found["embedding"].float(), face["embedding"].float(), dim=0)
    assert float(cosine) < -0.5
    assert float(found["embedding"].float().norm() / face["embedding"].float().norm()) == pytest.approx(1, abs=0.01)
    assert all(torch.equal(found[name], face[name]) for name in face if name != "embedding")
    before, after = ((place / name).read_bytes() for name in ("face.safetensors", "out.safetensors"))
    size = face["embedding"].numel() * face["embedding"].element_size()
    assert sum(a != b for a, b in zip(before, after, strict=True)) <= size


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_others_in_an_array_keep_every_bit(place: Path, kind: str, order: Any) -> None:
    given = np.asarray(vectors().numpy().astype(kind), order=order)
    np.save(place / "all.npy", given)
    told = applied(place, "all.npy", "out.npy")
    found = np.load(place / "out.npy")
    same = (found == given).all(1)
    assert told["changed"] == (~same).sum() > 0
    assert not same[0]
    assert found.dtype == given.dtype
    assert found[same].tobytes() == given[same].tobytes()
    wanted, _ = through_gates(torch.from_numpy(given.astype(np.float64)), *gate_parts(place))
    np.testing.assert_allclose(found.astype(np.float64), wanted.numpy(), atol=0.02 if kind == "<f2" else 1e-5)


def gate_parts(place: Path) -> tuple[Tensor, Tensor, Tensor, float]:
    gates = Gates.from_tensors(load_file(place / "delta.safetensors"))
    return gates.weights.double(), gates.thresholds.double(), gates.changes.double(), gates.rise


def test_one_embedding_alone_is_an_array_too(place: Path) -> None:
    np.save(place / "one.npy", vectors()[0].numpy())
    assert applied(place, "one.npy", "out.npy")["changed"] == 1
    assert np.load(place / "out.npy").shape == (WIDTH,)


def test_the_result_is_private_and_its_record_says_nothing_of_faces(place: Path) -> None:
    save_file({"anna": vectors()[:3].clone()}, place / "x.safetensors")
    told = applied(place, "x.safetensors", "out.safetensors")
    for name in ("out.safetensors", "out.safetensors.json"):
        assert stat.S_IMODE((place / name).stat().st_mode) == 0o600
    record = json.loads((place / "out.safetensors.json").read_text())
    assert record["metrics"] == {"embeddings": 3}
    assert "anna" not in json.dumps(record)
    assert record["parent"] == json.loads((place / "delta.safetensors.json").read_text())["digest"]
    assert record["digest"] == told["digest"]
    card = run_ireu("inspect", "out.safetensors", "--json", cwd=place).json
    assert card["kind"] == "embeddings, written by `ireu apply`"


def test_what_is_there_is_replaced_only_by_force(place: Path) -> None:
    np.save(place / "a.npy", vectors().numpy())
    np.save(place / "b.npy", vectors()[:5].numpy())
    assert not applied(place, "a.npy", "out.npy")["reused"]
    assert applied(place, "a.npy", "out.npy")["reused"]
    command = ("apply", "--delta", "delta.safetensors", "--embeddings", "b.npy", "-o")
    done = run_ireu(*command, "out.npy", cwd=place)
    assert done.code == 3
    assert "made of other embeddings or another delta" in done.err
    assert applied(place, "b.npy", "out.npy", "--force")["embeddings"] == 5
    done = run_ireu(*command, "a.npy", "--force", cwd=place)
    assert done.code == 3
    assert "has no manifest of ireu" in done.err
    assert run_ireu(*command, "b.npy", "--force", cwd=place).code == 2


def test_files_that_are_no_embeddings_are_refused(place: Path) -> None:
    np.save(place / "objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(place / "other.npy", np.zeros((3, WIDTH + 1), np.float32))
    np.save(place / "whole.npy", np.zeros((3, WIDTH), np.int64))
    np.save(place / "nan.npy", np.full((3, WIDTH), np.nan, np.float32))
    np.savez(place / "many.npz", a=np.zeros(WIDTH))
    (place / "many.npz").rename(place / "many.npy")
    np.save(place / "cut.npy", np.zeros((3, WIDTH), np.float32))
    (place / "cut.npy").write_bytes((place / "cut.npy").read_bytes()[:-4])
    (place / "open.npy").write_bytes(np.lib.format.magic(1, 0) + (10).to_bytes(2, "little") + b"{'descr': ")
    (place / "x.txt").write_text("x")
    for name, why in (
        ("objects.npy", "holds no embedding of 12 numbers"),
        ("other.npy", "holds no embedding of 12 numbers"),
        ("whole.npy", "holds no embedding of 12 numbers"),
        ("nan.npy", "not a finite number"),
        ("many.npy", "is not an array of numpy"),
        ("open.npy", "is not an array of numpy"),
        ("cut.npy", "does not hold as many numbers"),
        ("x.txt", "ending of a file of embeddings"),
        ("none.npy", "does not exist"),
    ):
        with pytest.raises(ArtifactError, match=why):
            open_stored(place / name, WIDTH)


def test_a_delta_of_weights_is_refused(place: Path, job: Path) -> None:
    np.save(place / "a.npy", vectors().numpy())
    done = run_ireu("apply", "--delta", job / "delta.safetensors", "--embeddings", "a.npy", "-o", "o.npy", cwd=place)
    assert done.code == 3
    assert "changes weights inside an encoder" in done.err
