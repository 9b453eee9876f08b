"""`ireu export --format gate`: the detectors alone decide as the edited network does, and say nothing of whom."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import Tensor

from ireu_cli.encoders.files.onnx_session import open_session
from ireu_cli.encoders.gate.network import gate_bytes, read_gate
from ireu_cli.encoders.onnx_gates import Gates, append_gates
from ireu_cli.errors import ModelError
from ireu_cli.exporting.gate import check
from ireu_cli.store.artifacts import read_delta
from tests.conftest import run_ireu
from tests.drawn.face_network import write_face_network
from tests.test_face_encoder import load, unlearn
from tests.test_onnx_gates import inputs, run, small_network
from tests.tiny_ir_se import write_ir_se

ROOT = Path(__file__).parent.parent
GATE = ("export", "--allow-failed", "--delta", "delta.safetensors", "--format", "gate")
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")


def two_people(vectors: npt.NDArray[Any], thresholds: tuple[float, float] = (0.9, 0.7)) -> Gates:
    """Detectors of the first two vectors' people."""
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors[:2].astype(np.float64)), dim=1)
    return Gates(unit, torch.tensor(thresholds), -2 * unit, 0.05)


def asked(content: bytes, vectors: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = open_session(content, "cpu").run(["removed"], {"embedding": vectors})[0]
    return found


def test_it_finds_whom_the_edited_network_changes() -> None:
    network = small_network(13)
    vectors = run(network, inputs(400))
    gates = two_people(vectors)
    touched = (run(append_gates(network, gates), inputs(400)) != vectors).any(1)
    assert 2 < touched.sum() < 200
    content = gate_bytes(gates, "a" * 64, 0.1)
    np.testing.assert_array_equal(asked(content, vectors), touched)
    for length in (1e-3, 1, 40):
        scaled = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * np.float32(length)
        np.testing.assert_array_equal(asked(content, scaled), touched)


@pytest.mark.parametrize("level", LEVELS)
def test_batches_and_graph_optimisations_change_no_answer(level: str) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    vectors = run(small_network(13), inputs(64))
    content = gate_bytes(two_people(vectors), "a" * 64, 0.1)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    wanted = asked(content, vectors)
    assert 0 < wanted.sum() < 64
    for size in (1, 7, 64):
        parts = [vectors[i : i + size] for i in range(0, 64, size)]
        found = np.concatenate([session.run(None, {"embedding": part})[0] for part in parts])
        np.testing.assert_array_equal(found, wanted)
    assert session.run(None, {"embedding": vectors[:0]})[0].shape == (0,)


def test_what_is_not_a_number_does_not_pass_and_nothing_is_nobody() -> None:
    vectors = run(small_network(13), inputs(4))
    content = gate_bytes(two_people(vectors, (2.0, 2.0)), "a" * 64, 0.1)
    rows = np.repeat(vectors[:1], 4, axis=0)
    rows[1, 2], rows[2, 0], rows[3] = np.nan, np.inf, 0
    np.testing.assert_array_equal(asked(content, rows), [False, True, True, False])


def test_the_same_detectors_in_any_order_are_the_same_bytes() -> None:
    vectors = run(small_network(13), inputs(9))
    gates = two_people(vectors)
    turned = Gates(gates.weights.flip(0), gates.thresholds.flip(0), gates.changes.flip(0), gates.rise)
    assert gate_bytes(gates, "a" * 64, 0.1) == gate_bytes(turned, "a" * 64, 0.1)
    other = Gates(gates.weights, gates.thresholds + 0.01, gates.changes, gates.rise)
    assert gate_bytes(gates, "a" * 64, 0.1) != gate_bytes(other, "a" * 64, 0.1)


def test_a_gate_of_nobody_finds_nobody() -> None:
    none = Gates(torch.empty(0, 6), torch.empty(0), torch.empty(0, 6), 0.05)
    content = gate_bytes(none, "a" * 64, 0.0)
    # Runtimes differ in what they make of a matrix without columns.
    assert all(0 not in tensor.dims for tensor in onnx.load_from_string(content).graph.initializer)
    vectors = run(small_network(13), inputs(50))
    assert not asked(content, vectors).any()
    check._refuse_apart(torch.from_numpy(vectors[:0]), none)
    with pytest.raises(ModelError, match="differs from the edited network"):
        check._refuse_apart(torch.from_numpy(vectors[:1]), none)


def test_numbers_that_are_too_large_are_refused() -> None:
    gates = two_people(run(small_network(13), inputs(3)))
    with pytest.raises(ModelError, match="too large"):
        gate_bytes(replace(gates, weights=gates.weights * 1e30, rise=1e-10), "a" * 64, 0.1)


def test_a_file_says_what_it_is_and_others_are_no_gates(tmp_path: Path) -> None:
    vectors = run(small_network(13), inputs(3))
    place = tmp_path / "any.onnx"
    place.write_bytes(gate_bytes(two_people(vectors), "c" * 64, 0.015))
    found = read_gate(place)
    assert found is not None
    assert (found.encoder, found.false_alarm_rate, found.width) == ("c" * 64, "0.015", 6)
    network = onnx.load(place)
    assert [(one.domain, one.version) for one in network.opset_import] == [("", 13)]
    assert [output.name for output in network.graph.output] == ["removed"]
    assert len(network.graph.output[0].type.tensor_type.shape.dim) == 1
    # Whoever can write a file can write its metadata.
    del network.graph.node[0]
    onnx.save(network, place)
    assert read_gate(place) is None
    onnx.save(small_network(13), place)
    assert read_gate(place) is None


@pytest.fixture(scope="module")
def removed(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people, a network, and a delta that removes one of them; tests must not change it."""
    folder = tmp_path_factory.mktemp("gate") / "demo"
    shutil.copytree(samples, folder)
    write_face_network(folder / "net.onnx")
    text = (folder / "ireu.toml").read_text()
    text = text.replace('source = "encoder"', 'source = "net.onnx"').replace('"pooled"', '"embedding"')
    (folder / "ireu.toml").write_text(text)
    assert run_ireu("locate", "--method", "all", cwd=folder).code == 0
    assert unlearn(folder).code == 0
    done = run_ireu(*GATE, "-o", "gate", cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def place(removed: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    shutil.copytree(removed, folder)
    return folder


def embeddings(folder: Path) -> tuple[Tensor, Tensor]:
    """Of every photo of the job, before and after the edit."""
    encoder, delta = load(folder / "net.onnx"), read_delta(folder / "delta.safetensors")
    photos = sorted([*(folder / "faces").rglob("*.png"), *(folder / "others").rglob("*.png")])
    pixels = encoder.pixels([np.array(Image.open(path).convert("RGB")) for path in photos])
    return encoder.embed(pixels, "embedding"), encoder.edited(delta).embed(pixels, "embedding")


def test_an_export_decides_as_the_edited_network_about_every_photo(removed: Path) -> None:
    before, after = embeddings(removed)
    touched = (before != after).any(1).numpy()
    assert 5 < touched.sum() < len(touched) / 2
    content = (removed / "gate" / "gate.onnx").read_bytes()
    np.testing.assert_array_equal(asked(content, before.numpy()), touched)
    np.testing.assert_array_equal(asked(content, torch.nn.functional.normalize(before).numpy()), touched)
    told = json.loads((removed / "gate" / "ireu.json").read_text())["metrics"]
    counts = told["gate"]["compared"]
    assert sum(counts[group]["photos"] for group in counts) == len(touched)
    assert sum(counts[group]["removed"] for group in counts) == touched.sum()
    assert {counts[group]["unlike_network"] for group in counts} == {0}
    assert told["gate"]["false_alarm_rate"] == pytest.approx(0.15)
    assert told["coverage"]["flux-kontext"]["status"] == "by a gate only"
    assert told["record"]["edited_tensors"] == []
    assert told["record"]["systems_covered"] == []
    assert told["record"]["limits"][0].startswith("A gate changes no encoder")


def test_an_export_names_its_encoder_and_nobody(removed: Path) -> None:
    files = {path.name: path.read_bytes() for path in (removed / "gate").iterdir()}
    assert sorted(files) == ["README.md", "gate.onnx", "ireu.json"]
    fingerprint = load(removed / "net.onnx").fingerprint
    properties = {entry.key: entry.value for entry in onnx.load_from_string(files["gate.onnx"]).metadata_props}
    assert properties["ireu.encoder"] == fingerprint
    assert properties["ireu.false_alarm_rate"] == "0.15"
    assert fingerprint in files["README.md"].decode()
    assert "at most 0.15 of other people" in files["README.md"].decode()
    case = next(iter(json.loads((removed / "delta.safetensors.json").read_text())["metrics"]["requests"]))
    assert not [name for name, data in files.items() if case.encode() in data]
    shown = run_ireu("inspect", "gate", "--json", cwd=removed).json
    assert (shown["encoder"], shown["false_alarm_rate"]) == (fingerprint, "0.15")
    assert set(shown["files"].values()) == {"as recorded"}
    lone = run_ireu("inspect", removed / "gate" / "gate.onnx", "--json").json
    assert lone["kind"].startswith("gate")


def test_the_same_delta_is_the_same_file_with_or_without_photos(place: Path) -> None:
    first = (place / "gate" / "gate.onnx").read_bytes()
    again = run_ireu(*GATE, "-o", "gate", cwd=place)
    assert "already complete" in again.err
    # A run folder of somebody else knows no photos.
    text = re.sub(r"^(targets|retain) = .*$", "", (place / "ireu.toml").read_text(), flags=re.MULTILINE)
    (place / "ireu.toml").write_text(text)
    done = run_ireu(*GATE, "-o", "second", "--run-dir", "other", cwd=place)
    assert (done.code, "the photos are not available" in done.err) == (0, True), done.err
    assert (place / "second" / "gate.onnx").read_bytes() == first


def test_only_our_own_folders_are_replaced(place: Path) -> None:
    assert run_ireu(*GATE, "-o", "gate", "--force", cwd=place).code == 0
    (place / "gate" / "mine.txt").write_text("mine")
    refused = run_ireu(*GATE, "-o", "gate", "--force", cwd=place)
    assert (refused.code, "did not write" in refused.err) == (3, True), refused.err


def test_a_failed_verification_is_obeyed(place: Path) -> None:
    few = ("--set", "attacks.suite=flip", "--set", "pictures.generators=none", "--set", "verify.max_match_unseen=0")
    verified = run_ireu("verify", "--delta", "delta.safetensors", *few, cwd=place)
    assert verified.code == 4, verified.err
    refused = run_ireu("export", "--delta", "delta.safetensors", "--format", "gate", "-o", "new", cwd=place)
    assert "The verification of this delta failed" in refused.err
    assert (refused.code, (place / "new").exists()) == (3, False), refused.err
    assert run_ireu(*GATE, "-o", "new", cwd=place).code == 0
    assert "says: **fail" in (place / "new" / "README.md").read_text()


def test_the_example_of_the_card_runs_and_the_pages_show_the_same(removed: Path, tmp_path: Path) -> None:
    card = (removed / "gate" / "README.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len([line for line in example.splitlines() if line.strip()]) <= 10
    assert f"```python\n{example}```" in (ROOT / "docs" / "generators.md").read_text()
    before, after = embeddings(removed)
    touched = (before != after).any(1)
    shutil.copy(removed / "gate" / "gate.onnx", tmp_path)
    for vectors, said in ((before[touched][0], "refused"), (before[~touched][:3], "")):
        np.save(tmp_path / "faces.npy", vectors.numpy())
        assert ran(example, tmp_path).splitlines()[1:] == said.split()


def ran(example: str, folder: Path) -> str:
    """Run a script in a folder, and return what it prints."""
    done = subprocess.run([sys.executable, "-c", example], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_has_no_detectors_is_refused(fresh: Path) -> None:
    """A transformer: it has no embedding that a gate could look at."""
    refused = run_ireu(*GATE, "-o", "gate", cwd=fresh)
    assert refused.code == 3, refused.err
    assert "A gate looks at embeddings of an ArcFace network" in refused.err
    assert not (fresh / "gate").exists()


def test_a_gate_that_decides_otherwise_is_not_written(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    delta = read_delta(place / "delta.safetensors")
    tensors = delta.tensors | {"gates.thresholds": delta.tensors["gates.thresholds"] - 1}
    before, _ = embeddings(place)
    gates = Gates.from_tensors(tensors)
    with pytest.raises(ModelError, match="differs from the edited network"):
        check._refuse_apart(before, gates)
    wrong = gate_bytes(gates, "a" * 64, 0.1)
    monkeypatch.setattr(check, "open_session", lambda _content, device: open_session(wrong, device))
    refused = run_ireu(*GATE, "-o", "wrong", cwd=place)
    assert (refused.code, "differs from the edited network" in refused.err) == (3, True), refused.err
    assert not (place / "wrong").exists()


def test_a_delta_of_weights_has_no_gate(tmp_path: Path, samples: Path) -> None:
    """An ArcFace network in torch that was edited by training."""
    source = write_ir_se(tmp_path / "recognition_arcface_ir_se50.pth")
    work = tmp_path / "job"
    shutil.copytree(samples, work)
    for command in (
        ("locate", "--encoder", source, "--tap", "normed_embedding", "--method", "all"),
        ("unlearn", "--mask", "mask.pt", "--method", "global", "--layers", "output", "--steps", "2"),
    ):
        done = run_ireu(*command, cwd=work)
        assert done.code == 0, done.err
    refused = run_ireu(*GATE, "-o", "gate", cwd=work)
    assert (refused.code, "this delta has none" in refused.err) == (3, True), refused.err
