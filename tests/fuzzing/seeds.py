"""Small valid files of every kind that is read from somebody else."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import torch
from onnx import TensorProto, helper
from PIL import Image

from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.gate.network import gate_bytes
from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.faces.formats import readable
from ireu_cli.manifest import EncoderRecord, FileRecord, Manifest, PersonRecord, Step
from ireu_cli.params import Config, EncoderParams
from ireu_cli.store.artifacts import write_delta, write_mask
from ireu_cli.store.deployments import Deployments, Served
from ireu_cli.store.features import FeatureCache
from ireu_cli.store.manifests import manifest_path, write_manifest
from ireu_cli.store.rundir import RunDir
from ireu_cli.unlearning.gated.method import join_ledgers
from ireu_cli.values import FeatureMask, GateLedger, Ledger, Room, WeightDelta
from tests.conftest import tiny_model
from tests.fuzzing.texts import CASES, LABELS, SETTINGS, VARIABLES
from tests.sample_report import sample
from tests.test_photo_formats import exif, jpeg_with, png_with, seeds, tiff_with
from tests.test_photos import encoded, picture
from tests.tiny_bare import write_bare
from tests.tiny_dinov2 import write_dinov2
from tests.tiny_eva import whole_state, write_eva
from tests.tiny_ir_se import write_ir_se
from tests.tiny_portrait import write_face_encoder, write_tiny_portrait
from tests.tiny_wan import wan_state

LEAF = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3}
"""How pictures of the tiny encoder are prepared."""


def write_seeds(folder: Path) -> Path:
    """Write all seeds, a folder for each kind of thing; the same bytes each time, but for the keys of run folders."""
    torch.manual_seed(0)
    _write_encoders(folder)
    _write_networks(folder)
    write_ir_se(_made(folder / "ir_se") / "new.pth")
    write_ir_se(_made(folder / "ir_se_old") / "old.pth", old=True)
    _write_embeddings(folder / "embeddings")
    write_tiny_portrait(_made(folder / "bundle"))
    _write_artifacts(folder / "artifacts", folder / "tiny")
    _write_photos(_made(folder / "photos"))
    texts = {
        "ireu.toml": SETTINGS,
        "labels.csv": LABELS,
        "variables.json": json.dumps(VARIABLES),
        "cases.csv": CASES,
    }
    for name, text in texts.items():
        (_made(folder / "texts") / name).write_text(text)
    served = [Served(digest=letter * 64, path="/srv/models", cases=(letter,), artifact=letter * 64) for letter in "ab"]
    Deployments(folder / "texts", "0" * 16).write(tuple(served))
    for person in range(4):
        (_made(folder / "texts" / "people" / f"person-{person}") / "a.png").write_bytes(encoded(picture(seed=person)))
    return folder


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _write_encoders(folder: Path) -> None:
    tiny = folder / "tiny"
    tiny_model().save_pretrained(tiny)
    (tiny / "preprocessor_config.json").write_text(json.dumps(LEAF))
    state = safetensors.torch.load_file(tiny / "model.safetensors")
    for name, new in (("archive", True), ("old", False)):
        shutil.copyfile(tiny / "config.json", _made(folder / name) / "config.json")
        torch.save(state, folder / name / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    tiny_model().save_pretrained(folder / "shards", max_shard_size="8KB")
    write_bare(tiny, folder / "bare")
    write_dinov2(folder / "dinov2")
    for name, file in (("wan", "wan.pth"), ("wan-safe", "wan.safetensors")):
        shutil.copyfile(tiny / "config.json", _made(folder / name) / "config.json")
        save = torch.save if file.endswith(".pth") else safetensors.torch.save_file
        save(wan_state(state), folder / name / file)
    write_eva(folder / "eva" / "eva.pt")
    safetensors.torch.save_file(whole_state(), _made(folder / "eva-safe") / "eva.safetensors")


def _write_networks(folder: Path) -> None:
    write_face_encoder(_made(folder / "network") / "w.onnx", 5)
    whole = onnx.load(folder / "network" / "w.onnx")
    place = _made(folder / "beside") / "w.onnx"
    onnx.save(whole, place, save_as_external_data=True, location="w.onnx.data", size_threshold=0)
    pack = _made(folder / "pack" / "models" / "tiny")
    write_face_encoder(pack / "rec.onnx", 5)
    (pack / "manifest.json").write_text(
        json.dumps({"manifest_version": 2, "model_id": "tiny", "tasks": {"recognition": {"file": "rec.onnx"}}})
    )
    unnamed = _made(folder / "unnamed" / "models" / "tiny")
    write_face_encoder(unnamed / "rec.onnx", 5)
    _write_detector(unnamed / "det.onnx")
    some = Gates(torch.eye(6)[:2], torch.tensor([0.5, 0.7]), -torch.eye(6)[:2], 0.1)
    (_made(folder / "gate") / "g.onnx").write_bytes(gate_bytes(some, "a" * 64, 0.02))


def _write_embeddings(folder: Path) -> None:
    """Stored embeddings of twelve numbers: as arrays of numpy in both orders, and as a face model of ReActor."""
    vectors = np.random.default_rng(0).standard_normal((5, 12))
    np.save(_made(folder) / "rows.npy", vectors.astype(np.float32))
    np.save(folder / "columns.npy", np.asarray(vectors, order="F"))
    face = {"embedding": torch.from_numpy(vectors[0]).float(), "bbox": torch.zeros(4), "gender": torch.tensor(1)}
    safetensors.torch.save_file(face, folder / "face.safetensors")


def _write_detector(path: Path) -> None:
    """What insightface takes for a detector, by its nine outputs; it finds nobody."""
    nodes = [helper.make_node("GlobalAveragePool", ["picture"], ["mean"])]
    nodes += [helper.make_node("Flatten", ["mean"], [f"out{n}"]) for n in range(9)]
    outputs = [helper.make_tensor_value_info(f"out{n}", TensorProto.FLOAT, None) for n in range(9)]
    picture_in = helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, "height", "width"])
    graph = helper.make_graph(nodes, "detector", [picture_in], outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)


def _write_photos(folder: Path) -> None:
    kinds = [*seeds(), *(encoded(picture((48, 40)), one) for one in readable())]
    block = exif([(0x112, 3, 1, b"\6\0\0\0"), (0x8769, 4, 1, b"\x1a\0\0\0"), (0x10F, 2, 4, b"abc\0")], "<")
    kinds += [jpeg_with(block), png_with(b"eXIf", block), tiff_with([(0x112, 3, 1, b"\6\0\0\0")])]
    large = Image.effect_noise((700, 500), 80).convert("RGB")
    kinds += [encoded(large, "JPEG", progressive=True), encoded(large, "WEBP")]
    for number, data in enumerate(kinds):
        (folder / f"{number:02d}.jpg").write_bytes(data)


def _write_artifacts(folder: Path, encoder: Path) -> None:
    """A mask, deltas of every kind, an export's record, a report, and the run folder that sealed them."""
    loaded = load_encoder(EncoderParams(source=str(encoder)), "cpu")
    run = RunDir(_made(folder) / ".ireu")
    write_mask(folder / "mask.pt", FeatureMask(torch.arange(12) % 3 == 0, torch.linspace(0, 1, 12)))
    ledger = _ledger()
    write_delta(folder / "delta.safetensors", join_ledgers(loaded, [ledger]))
    plain = {"visual_projection.weight": torch.full((12, 16), 1e-3)}
    write_delta(folder / "plain.safetensors", WeightDelta(plain))
    gates = Gates(torch.eye(8)[:2], torch.tensor([0.5, 0.4]), -torch.eye(8)[:2], 0.05)
    entries = GateLedger(4, ("A", "B"), (2, 0), gates.weights, gates.thresholds, gates.changes, gates.rise)
    write_delta(folder / "gates.safetensors", WeightDelta(gates.tensors(), entries))
    for name in ("mask.pt", "delta.safetensors", "plain.safetensors", "gates.safetensors"):
        step: Step = "locate" if name == "mask.pt" else "unlearn"
        record = _record(step, run, loaded.fingerprint, loaded.architecture)
        write_manifest(manifest_path(folder / name), record, [folder / name], seal=run.seal)
    export = _made(folder / "export")
    shutil.copyfile(encoder / "model.safetensors", export / "model.safetensors")
    record = _record("export", run, loaded.fingerprint, loaded.architecture)
    write_manifest(export / "ireu.json", record, [export / "model.safetensors"], seal=run.seal)
    _write_report(folder, run)
    run.remember("0" * 64, {"encoder.source": str(encoder), "data.targets": "faces"})
    FeatureCache(run.features).put(["a" * 64, "b" * 64], torch.randn(2, 5))


def _write_report(folder: Path, run: RunDir) -> None:
    delta = Manifest.model_validate_json((folder / "delta.safetensors.json").read_text())
    (_made(folder / "report") / "report.json").write_text(sample().model_dump_json())
    record = _record("verify", run, "f" * 64, "a").model_copy(update={"parent": delta.digest})
    write_manifest(folder / "report" / "manifest.json", record, [folder / "report" / "report.json"], seal=run.seal)


def _record(step: Step, run: RunDir, fingerprint: str, architecture: str) -> Manifest:
    parameters: dict[str, Any] = Config().model_dump(mode="json", exclude={"run": True})
    parameters["encoder"] |= {"tap": "image_embeds"}
    people = tuple(PersonRecord(number=n, photos=("a" * 64, "b" * 64)) for n in (1, 2))
    return Manifest(
        step=step, state="complete", tool_version="1.0", identity="1" * 64, seed=0, parameters=parameters,
        encoder=EncoderRecord(fingerprint=fingerprint, architecture=architecture, tap="image_embeds", layers=3),
        key=run.key_name, targets=people, retain=people, inputs=(FileRecord(name="mask.pt", sha256="c" * 64, size=3),),
        metrics={"requests": {"A": ["a" * 64]}, "kept": 0.5, "taps": ["pooled"], "undefined": []},
        environment={"torch": "2.0", "device": "cpu"}, timings={"total": 1.5},
    )  # fmt: skip


def _ledger() -> Ledger:
    room = Room(torch.arange(28, 32), torch.arange(28), torch.randn(29, 4, dtype=torch.float64))
    entries = (torch.randn(1, 2, 16), torch.randn(1, 2), torch.randn(1, 16, 2))
    return Ledger(2, room, ("A",), (1,), *entries, {}, torch.empty(0))
