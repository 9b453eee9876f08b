"""Face-embedding networks in ONNX as encoders: loading, and the four commands on drawn people."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from onnx import TensorProto, helper, numpy_helper

from ireu_cli.encoders.face_encoder import FaceEncoder, fingerprint_of, load_face_encoder, with_gates
from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.faces.align import aligned_like_insightface, crop_face, cropped_landmarks, template_points
from ireu_cli.params import ARCFACE_LANDMARKS
from ireu_cli.store.artifacts import read_delta, read_mask, write_delta
from ireu_cli.values import GateLedger, RgbImage, WeightDelta
from tests.conftest import Run, copy_with_second_target, manifest, run_ireu
from tests.drawn.face_network import write_face_network
from tests.tiny_portrait import write_face_encoder

FEATURES = ("--set", "attacks.suite=flip,grey,average,pgd,relearn", "--set", "pictures.generators=none")


def write_network(path: Path, *, prepares: bool = False, shape: Sequence[Any] = ("n", 3, 112, 112)) -> Path:
    """A random embedder, coarse enough to see who is drawn: 112 px to 48 numbers; `prepares`: scales its own pixels."""
    rng = np.random.default_rng(0)
    parts = {
        "kernel": rng.standard_normal((12, 3, 14, 14)).astype(np.float32) / 24,
        "matrix": rng.standard_normal((12 * 64, 48)).astype(np.float32) / 24,
        "middle": np.array(127.5, np.float32),
        "scale": np.array(1 / 127.5, np.float32),
    }
    first = [
        helper.make_node("Sub", ["face", "middle"], ["centred"], name="Sub_0"),
        helper.make_node("Mul", ["centred", "scale"], ["scaled"], name="Mul_1"),
    ]
    nodes = [
        *(first if prepares else []),
        helper.make_node(
            "Conv", ["scaled" if prepares else "face", "kernel"], ["map"], strides=[14, 14], name="Conv_2"
        ),
        helper.make_node("Tanh", ["map"], ["bent"], name="Tanh_3"),
        helper.make_node("Flatten", ["bent"], ["flat"], name="Flatten_4"),
        helper.make_node("MatMul", ["flat", "matrix"], ["embedding"], name="MatMul_5"),
    ]
    used = {name: value for name, value in parts.items() if prepares or name in {"kernel", "matrix"}}
    graph = helper.make_graph(
        nodes,
        "random",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [shape[0], 48])],
        [numpy_helper.from_array(value, name) for name, value in used.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def load(path: Path, landmarks: tuple[float, ...] = ARCFACE_LANDMARKS) -> FaceEncoder:
    return load_face_encoder(path, landmarks, "cpu")


def faces(count: int, side: int = 112) -> list[RgbImage]:
    return list(np.random.default_rng(1).integers(0, 256, (count, side, side, 3), dtype=np.uint8))


@pytest.mark.parametrize("prepares", [False, True])
def test_embeddings_are_insightfaces(tmp_path: Path, prepares: bool) -> None:
    path = write_network(tmp_path / "net.onnx", prepares=prepares)
    theirs, ours = ArcFaceONNX(str(path)), load(path)
    assert (ours.mean, ours.std) == (theirs.input_mean, theirs.input_std)
    pictures = faces(3)
    # insightface takes BGR, and aligned faces as they are.
    wanted = theirs.get_feat([np.ascontiguousarray(face[:, :, ::-1]) for face in pictures])
    found = ours.embed(ours.pixels(pictures), "embedding")
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=1e-4, atol=1e-4)
    unit = ours.embed(ours.pixels(pictures), "normed_embedding")
    torch.testing.assert_close(unit, found / found.norm(dim=1, keepdim=True))


def test_faces_are_aligned_by_the_landmarks_given(tmp_path: Path) -> None:
    landmarks = cropped_landmarks(0.6)
    # 0.3 of the template's side before the face, 1.6 in all.
    assert landmarks[0] == pytest.approx((ARCFACE_LANDMARKS[0] + 0.3) / 1.6)
    encoder = load(write_network(tmp_path / "net.onnx"), landmarks)
    picture = faces(1, 200)[0]
    crop, moved = crop_face(picture, template_points(landmarks, picture), 112, 0.0)
    np.testing.assert_allclose(moved, template_points(ARCFACE_LANDMARKS, crop), atol=0.01)
    wanted = (torch.from_numpy(crop.astype(np.float32)).permute(2, 0, 1) - 127.5) / 127.5
    torch.testing.assert_close(encoder.pixels([picture])[0], wanted)
    assert encoder.preprocessing != load(write_network(tmp_path / "net.onnx")).preprocessing


@pytest.mark.parametrize("side", [112, 128, 224, 256])
def test_alignment_is_insightfaces(side: int) -> None:
    from insightface.utils.face_align import norm_crop

    picture = faces(1, 200)[0]
    # In the middle, and where the template leaves the picture.
    for shift in (40, -30):
        points = np.asarray(ARCFACE_LANDMARKS).reshape(5, 2) * 112 + shift
        wanted = norm_crop(picture, points, image_size=side)
        found = aligned_like_insightface(picture, points, side)
        # Landmarks of the template are kept to four digits here.
        assert np.abs(wanted.astype(int) - found.astype(int)).mean() < 2
        assert (found[0] == 0).all() == (wanted[0] == 0).all() == (shift < 0)


def test_networks_of_other_forms_are_refused_by_what_they_lack(tmp_path: Path) -> None:
    for shape, words in ((["n", 3, 96, 96], "faces of 96 px"), ([8, 3, 112, 112], "8 faces at once")):
        nodes = [helper.make_node("GlobalAveragePool", ["x"], ["y"]), helper.make_node("Flatten", ["y"], ["z"])]
        ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, shape), ("z", 1, [shape[0], 3]))]
        graph = helper.make_graph(nodes, "mean", ends[:1], ends[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.save(model, tmp_path / "mean.onnx")
        with pytest.raises(ModelError, match=words):
            load(tmp_path / "mean.onnx")
    with pytest.raises(ModelError, match="device nowhere"):
        load_face_encoder(write_network(tmp_path / "net.onnx"), ARCFACE_LANDMARKS, "nowhere")
    with pytest.raises(ConfigError, match="at one point"):
        load(tmp_path / "net.onnx", (0.5,) * 10)
    network = onnx.load(tmp_path / "net.onnx")
    network.opset_import[0].version = 7
    onnx.save(network, tmp_path / "old.onnx")
    gates = Gates(torch.ones(1, 48), torch.ones(1), torch.ones(1, 48), 0.2)
    with pytest.raises(ModelError, match="opset before 8"):
        with_gates(load(tmp_path / "old.onnx"), WeightDelta(gates.tensors()))
    edited = with_gates(load(tmp_path / "net.onnx"), WeightDelta(gates.tensors()))
    with pytest.raises(ModelError, match="gates already"):
        with_gates(edited, WeightDelta(gates.tensors()))


def test_files_of_before_2018_can_have_gates(tmp_path: Path) -> None:
    network = onnx.load(write_network(tmp_path / "net.onnx"))
    network.ir_version = 3
    network.opset_import[0].version = 8
    for tensor in network.graph.initializer:
        kind = helper.make_tensor_value_info(tensor.name, TensorProto.FLOAT, list(tensor.dims))
        network.graph.input.append(kind)
    onnx.save(network, tmp_path / "old.onnx")
    encoder = load(tmp_path / "old.onnx")
    unit = encoder.embed(encoder.pixels(faces(1)), "normed_embedding")
    gates = Gates(unit, torch.tensor([0.5]), -2 * unit, 0.1)
    after = with_gates(encoder, WeightDelta(gates.tensors()))
    torch.testing.assert_close(after.embed(after.pixels(faces(1)), "normed_embedding"), -unit, rtol=1e-3, atol=1e-3)


def test_the_same_nodes_cut_elsewhere_are_another_network(tmp_path: Path) -> None:
    network = onnx.load(write_network(tmp_path / "net.onnx"))
    first = fingerprint_of(network)
    network.graph.output[0].name = "flat"
    assert fingerprint_of(network) != first
    network = onnx.load(tmp_path / "net.onnx")
    network.opset_import[0].version = 14
    assert fingerprint_of(network) != first


def test_the_fingerprint_follows_weights_and_operators_not_the_file(tmp_path: Path) -> None:
    first = load(write_network(tmp_path / "net.onnx")).fingerprint
    network = onnx.load(tmp_path / "net.onnx")
    for tensor in network.graph.initializer:
        values = numpy_helper.to_array(tensor)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(values.flatten().tolist())
    network.producer_name = "somebody else"
    onnx.save(network, tmp_path / "other.onnx")
    assert load(tmp_path / "other.onnx").fingerprint == first
    network.graph.initializer[0].float_data[0] += 0.5
    onnx.save(network, tmp_path / "changed.onnx")
    assert load(tmp_path / "changed.onnx").fingerprint != first
    network = onnx.load(tmp_path / "net.onnx")
    network.graph.node[1].op_type = "Sigmoid"
    onnx.save(network, tmp_path / "bent.onnx")
    assert load(tmp_path / "bent.onnx").fingerprint != first


def test_the_null_embedding_is_zeros(tmp_path: Path) -> None:
    encoder = load(write_network(tmp_path / "net.onnx", prepares=True))
    assert bool((encoder.embed(encoder.null_pixels(), "embedding").abs().sum(1) > 0).all())
    for tap in ("embedding", "normed_embedding"):
        assert torch.equal(encoder.null_features(tap), torch.zeros(48))


def test_what_is_no_face_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a network")
    with pytest.raises(ModelError, match=r"text.onnx is not an ONNX network"):
        load(tmp_path / "text.onnx")
    with pytest.raises(ModelError, match="does not exist"):
        load(tmp_path / "nothing.onnx")
    with pytest.raises(ModelError, match="takes an input of the shape"):
        load(write_network(tmp_path / "wide.onnx", shape=("n", 3, "h", "w")))
    network = onnx.load(write_network(tmp_path / "net.onnx"))
    network.graph.output.append(helper.make_tensor_value_info("flat", TensorProto.FLOAT, ["n", None]))
    onnx.save(network, tmp_path / "two.onnx")
    with pytest.raises(ModelError, match="1 inputs and 2 outputs"):
        load(tmp_path / "two.onnx")
    network = onnx.load(tmp_path / "net.onnx")
    network.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full((768, 48), np.inf, np.float32), "matrix"))
    onnx.save(network, tmp_path / "infinite.onnx")
    with pytest.raises(ModelError, match="not finite"):
        load(tmp_path / "infinite.onnx")


def test_a_delta_of_another_kind_or_width_is_refused(tmp_path: Path) -> None:
    encoder = load(write_network(tmp_path / "net.onnx"))
    with pytest.raises(ArtifactError, match="ONNX network"):
        with_gates(encoder, WeightDelta({"visual_projection.weight": torch.zeros(2, 2)}))
    narrow = Gates(torch.ones(1, 8), torch.ones(1), torch.ones(1, 8), 0.2)
    with pytest.raises(ArtifactError, match="8 features, and the network has 48"):
        with_gates(encoder, WeightDelta(narrow.tensors()))
    broken = narrow.tensors() | {"gates.thresholds": torch.ones(2)}
    with pytest.raises(ArtifactError, match="do not fit together"):
        with_gates(encoder, WeightDelta(broken))
    none = Gates(torch.empty(0, 48), torch.empty(0), torch.empty(0, 48), 0.2)
    assert with_gates(encoder, WeightDelta(none.tensors())).fingerprint == encoder.fingerprint


def test_a_ledger_of_gates_comes_back_from_its_file(tmp_path: Path) -> None:
    ledger = GateLedger(4, ("A", "B"), (2, 0), torch.randn(2, 5), torch.randn(2), torch.randn(2, 5), 0.3)
    path = tmp_path / "delta.safetensors"
    write_delta(path, WeightDelta({"gates.rise": torch.ones(1)}, ledger))
    found = read_delta(path).ledger
    assert isinstance(found, GateLedger)
    assert (found.capacity, found.cases, found.slots, found.rise) == (4, ("A", "B"), (2, 0), 0.3)
    for name in ("weights", "thresholds", "changes"):
        assert torch.equal(getattr(found, name), getattr(ledger, name))


@pytest.fixture(scope="module")
def located(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people with a second target folder, a network, and a mask of all features; tests must not change it."""
    folder = tmp_path_factory.mktemp("face") / "demo"
    copy_with_second_target(samples, folder)
    write_face_network(folder / "net.onnx")
    text = (folder / "ireu.toml").read_text()
    text = text.replace('source = "encoder"', 'source = "net.onnx"').replace('"pooled"', '"embedding"')
    (folder / "ireu.toml").write_text(text)
    assert run_ireu("locate", "--method", "all", cwd=folder).code == 0
    return folder


@pytest.fixture
def place(located: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    shutil.copytree(located, folder)
    return folder


def unlearn(folder: Path, *more: str, mask: bool = True) -> Run:
    # The network is coarse: it takes a cropped photo for somebody else's, and people for each other.
    keys = ("people=3", "copies=flip", "false_alarms=0.45", "max_false_alarm=0.15")
    sets = [part for key in keys for part in ("--set", f"gated.{key}")]
    given = ("--mask", "mask.pt", "--method", "gated", *sets) if mask else ()
    return run_ireu("unlearn", *given, *more, cwd=folder)


def test_the_whole_job(place: Path) -> None:
    done = unlearn(place)
    assert done.code == 0, done.err
    assert "The edit changes every tap: embedding, normed_embedding" in done.err
    told = manifest(place, "delta.safetensors")["metrics"]
    assert told["reach"] == {"taps": ["embedding", "normed_embedding"], "missed": []}
    assert told["places"] == {"taken": 1, "all": 3}
    verified = run_ireu("verify", "--delta", "delta.safetensors", *FEATURES, cwd=place)
    assert verified.code in {0, 4}, verified.err
    assert "gives no gradients: pgd, relearn" in verified.err
    report = json.loads((place / "report" / "report.json").read_text())
    found = {c["name"]: c for c in report["criteria"]}
    assert found["match_unseen"]["found"] <= 0.2
    assert found["retained_similarity"]["found"] > 0.97
    assert any("gives no gradients" in line for line in report["not_measured"])
    exported = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", cwd=place)
    assert exported.code == 0, exported.err
    assert sorted(path.name for path in (place / "out").iterdir()) == ["README.md", "ireu.json", "net.onnx"]
    metrics = json.loads((place / "out" / "ireu.json").read_text())["metrics"]
    assert metrics["edited_encoder"] == load(place / "out" / "net.onnx").fingerprint
    assert metrics["verified_again"]["criteria"]["match_unseen"] == found["match_unseen"]["found"]
    before, after = ArcFaceONNX(str(place / "net.onnx")), ArcFaceONNX(str(place / "out" / "net.onnx"))
    assert (before.input_mean, before.output_names) == (after.input_mean, after.output_names)
    # Again into the same folder, and not over somebody's own file.
    assert (
        run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", "--force", cwd=place).code
        == 0
    )
    (place / "out" / "other.onnx").write_bytes(b"")
    refused = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", "--force", cwd=place)
    assert (refused.code, "did not write" in refused.err) == (3, True)


def test_requests_add_up_and_are_withdrawn_bit_for_bit(place: Path) -> None:
    assert unlearn(place, "--set", "record.case_id=A", "-o", "one.safetensors").code == 0
    more = ("--targets", "more", "--set", "record.case_id=B")
    assert unlearn(place, *more, "--onto", "one.safetensors", "-o", "two.safetensors").code == 0
    original = load(place / "net.onnx").fingerprint
    both = read_delta(place / "two.safetensors")
    assert len(both.tensors["gates.weights"]) == 2
    assert unlearn(place, *more, "-o", "apart.safetensors").code == 0
    merge = ("--onto", "one.safetensors", "--merge", "apart.safetensors", "-o", "merged.safetensors")
    assert unlearn(place, *merge, mask=False).code == 0
    assert (place / "merged.safetensors").read_bytes() == (place / "two.safetensors").read_bytes()
    without = ("--onto", "two.safetensors", "--withdraw", "B", "-o", "back.safetensors")
    assert unlearn(place, *without, mask=False).code == 0
    assert (place / "back.safetensors").read_bytes() == (place / "one.safetensors").read_bytes()
    last = ("--onto", "back.safetensors", "--withdraw", "A", "-o", "none.safetensors")
    assert unlearn(place, *last, mask=False).code == 0
    # An edit of nobody is exported as the original is, and its record says that nothing moves.
    exported = run_ireu("export", "--allow-failed", "--delta", "none.safetensors", "-o", "out", cwd=place)
    assert exported.code == 0, exported.err
    record = json.loads((place / "out" / "ireu.json").read_text())["metrics"]["record"]
    assert (record["edited_tensors"], record["edit_norm"]) == ([], 0)
    encoder = load(place / "net.onnx")
    assert with_gates(encoder, both).fingerprint != original
    assert with_gates(encoder, read_delta(place / "none.safetensors")).fingerprint == original


def test_deltas_of_other_retained_photos_are_not_merged(place: Path) -> None:
    assert unlearn(place, "--set", "record.case_id=A", "-o", "one.safetensors").code == 0
    fewer = place / "fewer"
    shutil.copytree(place / "others", fewer)
    shutil.rmtree(sorted(fewer.iterdir())[0])
    located = ("locate", "--method", "all", "--targets", "more", "--retain", "fewer", "-o", "fewer.pt")
    assert run_ireu(*located, cwd=place).code == 0
    apart = ("--targets", "more", "--retain", "fewer", "--set", "record.case_id=B", "-o", "apart.safetensors")
    assert unlearn(place, "--mask", "fewer.pt", *apart).code == 0
    merge = ("--onto", "one.safetensors", "--merge", "apart.safetensors", "-o", "x.safetensors")
    done = unlearn(place, *merge, mask=False)
    assert (done.code, "were made from other retained photos" in done.err) == (3, True), done.err


def test_each_gate_is_granted_an_equal_share(place: Path) -> None:
    assert (
        unlearn(place, "--set", "gated.people=10", "--set", "gated.false_alarms=0.1", "-o", "x.safetensors").code == 0
    )
    told = json.loads((place / "x.safetensors.json").read_text())["metrics"]
    assert told["false_alarm_rate_each"] == pytest.approx(0.01)


def test_the_same_request_has_the_same_bytes(place: Path) -> None:
    assert unlearn(place, "-o", "one.safetensors").code == 0
    shutil.rmtree(place / ".ireu" / "features")
    assert unlearn(place, "-o", "two.safetensors").code == 0
    assert (place / "one.safetensors").read_bytes() == (place / "two.safetensors").read_bytes()


def test_a_change_is_confined_to_the_mask_only_when_asked(place: Path) -> None:
    assert run_ireu("locate", "--method", "variance", "-o", "some.pt", cwd=place).code == 0
    mask = read_mask(place / "some.pt").mask
    assert 0 < mask.sum() < len(mask)
    for confine in ("true", "false"):
        more = ("--set", f"gated.confine={confine}", "-o", f"{confine}.safetensors", "--mask", "some.pt")
        assert unlearn(place, *more, "--method", "gated", mask=False).code == 0
    inside, everywhere = (read_delta(place / f"{c}.safetensors").tensors["gates.changes"] for c in ("true", "false"))
    assert torch.equal(inside[0] != 0, mask)
    assert bool((everywhere != 0).all())


@pytest.mark.parametrize("method", ["swap", "variance"])
def test_features_of_a_network_can_be_located(place: Path, method: str) -> None:
    done = run_ireu("locate", "--method", method, "-o", "other.pt", cwd=place)
    assert done.code == 0, done.err
    assert manifest(place, "other.pt")["metrics"]["features"] == 48


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("unlearn", "--mask", "mask.pt", "--method", "ireu", "-o", "x"), "needs gradients"),
        (("locate", "--tap", "pooled", "-o", "x"), "has no tap pooled"),
        (("locate", "--encoder", "encoder", "-o", "x"), "is not an .onnx file"),
        (("locate", "--set", "encoder.dtype=float16", "-o", "x"), "runs in the precision"),
        (("locate", "--encoder", "ireu.toml", "-o", "x"), "is not an .onnx file"),
    ],
)
def test_what_a_network_cannot_do_is_refused(place: Path, arguments: tuple[str, ...], words: str) -> None:
    done = run_ireu(*arguments, cwd=place)
    assert (done.code, words in done.err) == (3, True), done.err


def test_an_export_of_another_kind_is_refused(place: Path) -> None:
    assert unlearn(place).code == 0
    for more, words in ((("--format", "clip-folder"), "Use --format onnx"), (("--dtype", "float16"), "precision")):
        done = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", *more, "-o", "out", cwd=place)
        assert (done.code, words in done.err) == (3, True), done.err
    assert not (place / "out").exists()


def test_a_bundle_draws_with_the_generator_that_reads_the_network(place: Path, portrait: Path, tmp_path: Path) -> None:
    write_face_encoder(portrait / "face_encoder.onnx", 5)
    base = ("--encoder", str(portrait), "--tap", "normed_embedding")
    assert run_ireu("locate", *base, "--method", "all", "-o", "b.pt", cwd=place).code == 0
    done = run_ireu("unlearn", "--mask", "b.pt", "--method", "gated", "-o", "b.safetensors", cwd=place)
    assert done.code == 0, done.err
    few = ("pictures.people=2", "pictures.look_alikes=1", "pictures.photos=1", "pictures.seeds=1",
           "pictures.target_photos=1", "attacks.suite=flip,prompts")  # fmt: skip
    sets = [part for text in few for part in ("--set", text)]
    # The network may not judge itself, not even saved again by another tool.
    refused = run_ireu("verify", "--delta", "b.safetensors", *sets, "-o", "drawn", cwd=place)
    assert (refused.code, "face-encoder is the network that was edited" in refused.err) == (3, True), refused.err
    network = onnx.load(portrait / "face_encoder.onnx")
    network.producer_name = "another tool"
    onnx.save(network, tmp_path / "copy.onnx")
    copy = json.dumps([{"name": "copy", "model": str(tmp_path / "copy.onnx")}])
    sets += ["--set", "judges.min_recognisers=1", "--set", f"judges.recognisers={copy}"]
    verified = run_ireu("verify", "--delta", "b.safetensors", *sets, "-o", "drawn", "--keep-images", cwd=place)
    assert verified.code in {0, 4, 5}, verified.err
    assert "copy is the network that was edited" in verified.err
    report = json.loads((place / "drawn" / "report.json").read_text())
    assert {f["generator"] for f in report["figures"]} == {None, "C"}
    assert report["record"]["systems_covered"] == ["generator C (normed_embedding)"]
    rows = (place / "drawn" / "images" / "index.csv").read_text()
    assert "C," in rows
