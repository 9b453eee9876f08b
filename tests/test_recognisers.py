"""Recognisers that judge: real ones tell real people apart, drawn-up ones are read as described or refused."""

import contextlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from insightface import app
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor

from ireu_cli.errors import ModelError
from ireu_cli.faces.insight import pack_recogniser
from ireu_cli.judges.face_net import FaceNet
from ireu_cli.judges.judging import JudgingNet, from_embedded
from ireu_cli.judges.onnx_recogniser import from_insight, load_onnx
from ireu_cli.judges.recogniser import ALIGNED, Recogniser
from ireu_cli.maths.calibration import calibrate
from ireu_cli.params import RecogniserParams
from ireu_cli.support.runtime import generator
from ireu_cli.values import RgbImage

SIDE = 16
POOL = [helper.make_node("GlobalAveragePool", ["x"], ["y"])]
FLAT = [helper.make_node("GlobalAveragePool", ["x"], ["p"]), helper.make_node("Flatten", ["p"], ["y"])]


def write(
    path: Path,
    nodes: Sequence[Any] = POOL,
    inputs: Sequence[tuple[str, Sequence[Any]]] = (("x", ("n", 3, SIDE, SIDE)),),
    outputs: Sequence[str] = ("y",),
    constants: Sequence[tuple[str, Any]] = (),
    kind: int = TensorProto.FLOAT,
    **save: Any,
) -> Path:
    """Write a network; by default, its answer (n, 3, 1, 1) is the mean of each channel."""
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path), **save)
    return path


def described(model: Path, **values: Any) -> RecogniserParams:
    plain: dict[str, Any] = {"size": SIDE, "mean": (0, 0, 0), "std": (1, 1, 1)}
    return RecogniserParams(name="tiny", model=model, **plain | values)


def flat(red: int, green: int, blue: int, side: int = SIDE) -> RgbImage:
    return np.full((side, side, 3), (red, green, blue), np.uint8)


def unit(*values: float) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor([values], dtype=torch.float32), dim=1)


def test_pixels_enter_as_described(tmp_path: Path) -> None:
    face, path = flat(250, 100, 30), write(tmp_path / "x.onnx")
    torch.testing.assert_close(load_onnx(described(path)).embed([face]), unit(250, 100, 30))
    torch.testing.assert_close(load_onnx(described(path, colour="bgr")).embed([face]), unit(30, 100, 250))
    scaled = described(path, mean=(50, 100, 150), std=(1, 2, 4))
    torch.testing.assert_close(load_onnx(scaled).embed([face]), unit(200, 0, -30))
    mirrored = described(path, mean=(50, 100, 150), std=(1, 2, 4), colour="bgr")
    torch.testing.assert_close(load_onnx(mirrored).embed([face]), unit(-20, 0, 25))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
def test_rows_and_columns_stay_in_place(tmp_path: Path, layout: Any) -> None:
    # The answer is the picture itself, so that a transposed or flipped face shows.
    shape = ("n", 3, SIDE, SIDE) if layout == "nchw" else ("n", SIDE, SIDE, 3)
    path = write(tmp_path / "x.onnx", [helper.make_node("Flatten", ["x"], ["y"])], [("x", shape)])
    face = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    pixels = face.transpose(2, 0, 1) if layout == "nchw" else face
    expected = torch.nn.functional.normalize(torch.from_numpy(pixels.reshape(1, -1).astype(np.float32)), dim=1)
    torch.testing.assert_close(load_onnx(described(path, layout=layout)).embed([face]), expected)


@pytest.mark.parametrize("batch", ["n", 1, -1])
@pytest.mark.parametrize("nodes", [POOL, FLAT])
def test_batches_and_forms_of_the_answer(tmp_path: Path, batch: Any, nodes: Sequence[Any]) -> None:
    net = load_onnx(described(write(tmp_path / "x.onnx", nodes, [("x", (batch, 3, SIDE, SIDE))])))
    assert (net.name, net.size, net.margin, net.width) == ("tiny", SIDE, 0.0, 3)
    faces = [flat(200, 10, 10), flat(10, 200, 10), flat(10, 10, 200)]
    found = net.embed(faces)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.cat([unit(200, 10, 10), unit(10, 200, 10), unit(10, 10, 200)]))
    assert torch.equal(found[1:2], net.embed(faces[1:2]))
    assert net.embed([]).shape == (0, 3)


def test_half_precision_and_free_sides(tmp_path: Path) -> None:
    path = write(tmp_path / "x.onnx", inputs=[("x", ("n", "c", "h", "w"))], kind=TensorProto.FLOAT16)
    found = load_onnx(described(path, std=(255, 255, 255))).embed([flat(250, 100, 30)])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, unit(250, 100, 30), atol=1e-3, rtol=0)


def test_a_face_without_direction_is_nan_and_never_zero(tmp_path: Path) -> None:
    faces = [flat(200, 10, 10), flat(0, 0, 0), flat(0, 90, 10)]
    plain = load_onnx(described(write(tmp_path / "x.onnx"))).embed(faces)
    assert torch.isnan(plain).all(1).tolist() == [False, True, False]
    log = [*FLAT[:1], helper.make_node("Log", ["p"], ["y"])]
    infinite = load_onnx(described(write(tmp_path / "y.onnx", log))).embed(faces)
    assert torch.isnan(infinite).all(1).tolist() == [False, True, True]
    assert torch.isfinite(infinite[0]).all()
    large = [*FLAT[:1], helper.make_node("Mul", ["p", "k"], ["y"])]
    huge = load_onnx(described(write(tmp_path / "z.onnx", large, constants=[("k", np.float32(1e36))]))).embed(faces)
    torch.testing.assert_close(huge[0:1], unit(200, 10, 10))


def test_faces_of_another_size_are_refused(tmp_path: Path) -> None:
    net = load_onnx(described(write(tmp_path / "x.onnx", inputs=[("x", ("n", 3, "h", "w"))])))
    with pytest.raises(ValueError, match=r"uint8 \(16, 16, 3\)"):
        net.embed([flat(1, 2, 3), flat(1, 2, 3, 24)])
    with pytest.raises(ValueError, match="float32"):
        net.embed([flat(1, 2, 3).astype(np.float32)])


NORM = helper.make_node("ReduceSum", ["y", "axes"], ["norm"], keepdims=1)
AXES = [("axes", np.array([1]))]


def test_the_embedding_is_chosen_among_outputs(tmp_path: Path) -> None:
    # Some networks give the norm of the embedding, or a map, beside it.
    path = write(tmp_path / "x.onnx", [*FLAT, NORM], outputs=("x", "norm", "y"), constants=AXES)
    torch.testing.assert_close(load_onnx(described(path)).embed([flat(250, 100, 30)]), unit(250, 100, 30))
    twice = [*FLAT, helper.make_node("Neg", ["y"], ["z"])]
    with pytest.raises(ModelError, match=r"2 outputs, and 2 of them .*only output"):
        load_onnx(described(write(tmp_path / "y.onnx", twice, outputs=("y", "z"))))
    with pytest.raises(ModelError, match="2 outputs, and 0 of them"):
        load_onnx(described(write(tmp_path / "z.onnx", [*FLAT, NORM], outputs=("x", "norm"), constants=AXES)))


RESIZED = helper.make_node("Reshape", ["x", "shape"], ["y"])
OTHER = helper.make_node("GlobalAveragePool", ["other"], ["z"])


@pytest.mark.parametrize(
    ("network", "values", "fact", "remedy"),
    [
        ({"inputs": [("x", (1, 3, 24, 24))]}, {}, "takes faces of 24 px, not 16", "Set its size to 24"),
        ({"inputs": [("x", (1, 3, 16, 24))]}, {}, "takes faces of 24 px, not 16", "size"),
        ({"inputs": [("x", (1, 16, 16, 3))]}, {}, "16 channels on the axis that layout = nchw", "layout to nhwc"),
        ({}, {"layout": "nhwc"}, "16 channels on the axis that layout = nhwc", "layout to nchw"),
        ({"inputs": [("x", (1, 1, 16, 16))]}, {}, "takes 1 channels", "colour"),
        ({"inputs": [("x", (4, 3, 16, 16))]}, {}, "takes 4 faces at once", "batch"),
        ({"inputs": [("x", (1, 3, 256))]}, {}, "3 axes", "maps one picture"),
        (
            {"kind": TensorProto.DOUBLE, "nodes": [helper.make_node("Flatten", ["x"], ["y"])]},
            {},
            "double",
            "half precision",
        ),
        (
            {
                "inputs": [("x", (1, 3, 16, 16)), ("other", (1, 3, 16, 16))],
                "nodes": [*POOL, OTHER],
                "outputs": ("y", "z"),
            },
            {},
            "takes 2 inputs",
            "maps one picture",
        ),
        ({}, {"std": (1, 0, 1)}, "std of 0", "std"),
        ({"nodes": [helper.make_node("Identity", ["x"], ["y"])]}, {}, r"shape \(1, 3, 16, 16\)", "embeds faces"),
        ({"nodes": [*FLAT, NORM], "outputs": ("norm",), "constants": AXES}, {}, r"shape \(1, 1\)", "embeds faces"),
        ({"nodes": [RESIZED], "constants": [("shape", np.array([768]))]}, {}, r"shape \(768,\)", "embeds faces"),
        ({"nodes": [RESIZED], "constants": [("shape", np.array([2, 384]))]}, {}, r"shape \(2, 384\)", "embeds faces"),
        (
            {
                "nodes": [RESIZED],
                "constants": [("shape", np.array([1, 3, 400]))],
                "inputs": [("x", (1, 3, "height", "width"))],
            },
            {},
            "does not run on a face of 16 px",
            "size and layout",
        ),
    ],
)
def test_what_is_no_recogniser_is_refused_on_loading(
    tmp_path: Path, network: dict[str, Any], values: dict[str, Any], fact: str, remedy: str
) -> None:
    with pytest.raises(ModelError, match=fact) as caught:
        load_onnx(described(write(tmp_path / "x.onnx", **network), **values))
    assert remedy in caught.value.remedy
    assert "tiny" in caught.value.fact


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_onnx(described(tmp_path / "none.onnx"))
    with pytest.raises(ModelError, match="does not exist"):
        load_onnx(described(tmp_path))
    for name, content in (("rubbish", b"rubbish"), ("empty", b""), ("half", write(tmp_path / "x.onnx").read_bytes())):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError, match=r"is not an ONNX network|is empty"):
            load_onnx(described(path))


def test_the_gpu_is_used_where_there_is_one(tmp_path: Path) -> None:
    path = write(tmp_path / "x.onnx")
    found = [load_onnx(described(path), device).embed([flat(9, 8, 7)]) for device in ("cpu", "cuda:0", "mps")]
    torch.testing.assert_close(found[1], found[0])
    torch.testing.assert_close(found[2], found[0])


MIX = [*FLAT[:1], helper.make_node("Flatten", ["p"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]


def mixing(path: Path, weight: float = 1, **save: Any) -> Path:
    """A network with weights (3, 4)."""
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    matrix[2, 3] = weight
    return write(path, MIX, constants=[("w", matrix)], **save)


def test_the_fingerprint_is_of_what_decides_a_vector(tmp_path: Path) -> None:
    path = mixing(tmp_path / "x.onnx")
    first = load_onnx(described(path))
    moved = tmp_path / "elsewhere" / "y.onnx"
    moved.parent.mkdir()
    shutil.copy(path, moved)
    same = load_onnx(described(moved).model_copy(update={"name": "other"}))
    assert (same.name, same.fingerprint, same.network) == ("other", first.fingerprint, first.network)
    changes: list[dict[str, Any]] = [
        {"colour": "bgr"},
        {"mean": (0, 0, 1)},
        {"std": (1, 1, 2)},
        {"margin": 0.1},
    ]
    others = [load_onnx(described(path, **change)) for change in changes]
    assert {other.network for other in others} == {first.network}
    weights = load_onnx(described(mixing(tmp_path / "z.onnx", 2)))
    assert weights.network != first.network
    assert len({first.fingerprint, weights.fingerprint, *(other.fingerprint for other in others)}) == 6
    assert others[3].margin == 0.1


@pytest.mark.parametrize("name", ["w.bin", "w" * 200])
def test_external_weights_count(tmp_path: Path, name: str) -> None:
    found = []
    for folder, weight in (("a", 1.0), ("b", 2.0), ("c", 1.0)):
        (tmp_path / folder).mkdir()
        outside = {"save_as_external_data": True, "location": name, "size_threshold": 0}
        found.append(load_onnx(described(mixing(tmp_path / folder / "x.onnx", weight, **outside))))
    assert (tmp_path / "a" / "x.onnx").read_bytes() == (tmp_path / "b" / "x.onnx").read_bytes()
    assert found[0].fingerprint == found[2].fingerprint
    assert found[0].fingerprint != found[1].fingerprint
    (tmp_path / "a" / name).unlink()
    with pytest.raises(ModelError, match=r"which does not exist\. Fetch that file as well"):
        load_onnx(described(tmp_path / "a" / "x.onnx"))


def test_a_constant_recogniser_may_not_judge(tmp_path: Path) -> None:
    still = [*FLAT, helper.make_node("Mul", ["y", "k"], ["m"]), helper.make_node("Add", ["m", "c"], ["z"])]
    constants = [("k", np.float32(1e-6)), ("c", np.ones(3, np.float32))]
    net = load_onnx(described(write(tmp_path / "x.onnx", still, outputs=("z",), constants=constants)))
    rng = np.random.default_rng(0)
    faces = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(12)]
    result = calibrate([net.embed(faces[:6]), net.embed(faces[6:])], (0.01,), 0.0, 0.01, 100, generator(0))
    assert result.why_not == "it gives nearly the same vector for every face"


def embedded(seed: int = 0) -> Recogniser:
    torch.manual_seed(seed)
    net = FaceNet((4, 4, 4, 4), (1, 1, 1, 1), 4, 8).eval().requires_grad_(False)
    return Recogniser(net, "small")


def test_the_embedded_recogniser_judges_as_it_measures() -> None:
    recogniser, rng = embedded(), np.random.default_rng(0)
    net = from_embedded(recogniser)
    assert (net.name, net.size, net.margin, net.width) == ("small", ALIGNED, 0.0, 8)
    faces = [rng.integers(0, 256, (ALIGNED, ALIGNED, 3), dtype=np.uint8) for _ in range(3)]
    pixels = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float() / 255
    found = net.embed(faces)
    torch.testing.assert_close(found, recogniser.embed(pixels), atol=1e-5, rtol=0)
    assert not torch.is_inference(found)
    assert net.fingerprint == from_embedded(Recogniser(embedded().net, "renamed")).fingerprint
    assert net.fingerprint != from_embedded(embedded(1)).fingerprint


# Real recognisers on real people.

Photos = list[list[RgbImage]]
FRAME = np.array([[0.84, -0.005, -12.0], [0.005, 0.84, -6.5]])
"""From the frame of the data's photos to ArcFace's template."""


@pytest.fixture(scope="module")
def people(data: Path) -> Photos:
    """Four faces of each of 20 people, aligned."""
    folders = sorted(path for path in (data / "faces" / "eval").iterdir() if path.is_dir())[:20]
    return [
        [
            np.asarray(cv2.warpAffine(np.array(Image.open(file).convert("RGB")), FRAME, (112, 112)), np.uint8)
            for file in sorted(folder.iterdir())[:4]
        ]
        for folder in folders
    ]


def separation(net: JudgingNet, people: Photos) -> tuple[float, float, float]:
    """Mean similarity of photos of one person and of two, and the true-accept rate at a false-match rate of 1e-2."""
    result = calibrate([net.embed(person) for person in people], (0.01,), 0.3, 0.01, 100, generator(0))
    assert result.usable
    return float(result.genuine.mean()), float(result.impostor.mean()), result.points[0].true_accept_rate.value


REAL: dict[str, dict[str, Any]] = {
    "recogniser_a": {"colour": "bgr", "mean": (127, 127, 127), "std": (128, 128, 128)},
    "recogniser_b": {"std": (128, 128, 128)},
    "recogniser_d": {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
    "recogniser_e": {"mean": (0, 0, 0), "std": (1, 1, 1)},
}


@pytest.mark.parametrize("name", sorted(REAL))
def test_real_recognisers_tell_people_apart(data: Path, people: Photos, name: str) -> None:
    net = load_onnx(RecogniserParams(name=name, model=data / "models" / f"{name}.onnx", **REAL[name]))
    same, different, accept_rate = separation(net, people)
    assert same > 0.5
    assert abs(different) < 0.06
    assert accept_rate > 0.93


@pytest.mark.parametrize("name", ["recogniser_a", "recogniser_e"])
def test_swapped_colours_show(data: Path, people: Photos, name: str) -> None:
    model, colour = data / "models" / f"{name}.onnx", REAL[name].get("colour", "rgb")
    swapped = {"colour": "rgb" if colour == "bgr" else "bgr"}
    right, wrong = (
        load_onnx(RecogniserParams(name=name, model=model, **given)) for given in (REAL[name], REAL[name] | swapped)
    )
    assert separation(wrong, people[:12])[0] < separation(right, people[:12])[0] - 0.01


def test_a_recogniser_of_wrong_pixels_may_not_judge(data: Path, people: Photos) -> None:
    net = load_onnx(RecogniserParams(name="e", model=data / "models" / "recogniser_e.onnx"))
    result = calibrate([net.embed(person) for person in people], (0.01,), 0.3, 0.01, 100, generator(0))
    assert result.why_not is not None
    assert "are needed" in result.why_not


@pytest.fixture(scope="module")
def root(data: Path) -> Path:
    return data / "models" / "insightface"


def pack_params(folder: Path, **values: Any) -> RecogniserParams:
    return RecogniserParams(name="pack", kind="insightface", model=folder, **values)


def test_a_pack_is_read_as_its_file_is(root: Path, people: Photos, capfd: pytest.CaptureFixture[str]) -> None:
    file = root / "models" / "mini" / "recogniser.onnx"
    pack = from_insight(pack_params(root / "models" / "mini"), pack_recogniser(root, "mini"))
    net = load_onnx(RecogniserParams(name="file", model=file))
    faces = [face for person in people[:5] for face in person]
    difference = (pack.embed(faces) - net.embed(faces)).abs().max()
    assert difference < 1e-5
    swapped = load_onnx(RecogniserParams(name="file", model=file, colour="bgr")).embed(faces)
    assert (pack.embed(faces) - swapped).abs().max() > 0.05
    assert (pack.name, pack.size, pack.margin, pack.width) == ("pack", 112, 0.0, 128)
    assert pack.network == net.network
    same, different, accept_rate = separation(pack, people)
    assert same > 0.5
    assert abs(different) < 0.06
    assert accept_rate > 0.93
    assert capfd.readouterr() == ("", "")


def test_a_pack_says_itself_how_faces_are_prepared(root: Path) -> None:
    pack = pack_recogniser(root, "mini")
    with pytest.raises(ModelError, match="insightface decides how"):
        from_insight(pack_params(root / "models" / "mini", colour="bgr"), pack)
    with pytest.raises(ModelError, match="insightface decides how"):
        from_insight(pack_params(root / "models" / "mini", margin=0.2), pack)


def test_packs_without_a_recogniser_are_errors(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no insightface pack"):
        pack_recogniser(tmp_path, "mini")
    blind, other = tmp_path / "models" / "blind", tmp_path / "models" / "other"
    for folder in (blind, other):
        folder.mkdir(parents=True)
        shutil.copy(root / "models" / "mini" / "det_2.5g.onnx", folder)
    with pytest.raises(ModelError, match="no recognition network"):
        pack_recogniser(tmp_path, "blind")
    write(other / "w.onnx", FLAT, [("x", ("n", 3, 128, 128))])
    with pytest.raises(ModelError, match="does not take faces of 112 px"):
        pack_recogniser(tmp_path, "other")
    (blind / "w.onnx").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="cannot be loaded"):
        pack_recogniser(tmp_path, "blind")


def test_a_folder_of_the_packs_name_is_not_taken_for_it(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mini").mkdir()
    (tmp_path / "mini" / "w.onnx").write_bytes(b"rubbish")
    given = root.resolve()
    with contextlib.chdir(tmp_path):
        assert pack_recogniser(given, "mini").file.name == "recogniser.onnx"


def test_what_insightface_prints_stays_off_stdout(
    root: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    quiet = app.FaceAnalysis

    def talking(**values: Any) -> Any:
        print("Applied providers")
        return quiet(**values)

    monkeypatch.setattr(app, "FaceAnalysis", talking)
    pack_recogniser(root, "mini")
    assert capfd.readouterr().out == ""
