"""The image network that the user names for KID and FID: what it is shown, and what is refused."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from ireu_cli.errors import ModelError
from ireu_cli.judges.image_net import load_image_net
from ireu_cli.values import RgbImage

Shape = Sequence[int | str]


def write_net(
    path: Path,
    shape: Shape = ("n", 3, "h", "w"),
    nodes: Sequence[tuple[str, dict[str, list[int] | int]]] = (("GlobalAveragePool", {}), ("Flatten", {})),
    *,
    kind: int = TensorProto.FLOAT,
    more_inputs: int = 0,
) -> Path:
    """A chain of operators without weights; it averages colours unless told otherwise."""
    names = ["x", *(f"t{i}" for i in range(1, len(nodes))), "y"]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    inputs += [helper.make_tensor_value_info(f"z{i}", TensorProto.FLOAT, [1]) for i in range(more_inputs)]
    graph = helper.make_graph(
        [helper.make_node(name, [names[i]], [names[i + 1]], **settings) for i, (name, settings) in enumerate(nodes)],
        "net",
        inputs,
        [helper.make_tensor_value_info("y", kind, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def picture(colour: tuple[int, int, int], size: tuple[int, int] = (40, 60)) -> RgbImage:
    return np.full((*size, 3), colour, dtype=np.uint8)


NHWC: tuple[tuple[str, dict[str, list[int] | int]], ...] = (
    ("Transpose", {"perm": [0, 3, 1, 2]}),
    ("GlobalAveragePool", {}),
)
"""Averages colours of channels-last pictures; a pooled map (n, 3, 1, 1) is left as it is."""


@pytest.mark.parametrize(
    ("shape", "nodes"),
    [
        (("n", 3, "h", "w"), (("GlobalAveragePool", {}), ("Flatten", {}))),
        ((1, 3, 32, 32), (("GlobalAveragePool", {}), ("Flatten", {}))),
        (("n", "h", "w", 3), NHWC),
        ((1, 24, 48, 3), NHWC),
    ],
)
def test_it_sees_rgb_from_0_to_255(
    tmp_path: Path, shape: Shape, nodes: Sequence[tuple[str, dict[str, list[int] | int]]]
) -> None:
    net = load_image_net(write_net(tmp_path / "mean.onnx", shape, nodes), "cpu")
    found = net.features([picture((10, 0, 255)), picture((1, 2, 3), (224, 224))])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor([[10.0, 0.0, 255.0], [1.0, 2.0, 3.0]]))


@pytest.mark.parametrize(("shape", "size"), [(("n", 3, "h", "w"), (224, 224)), (("n", 3, 8, 16), (8, 16))])
def test_pictures_are_resized_as_a_camera_would(tmp_path: Path, shape: Shape, size: tuple[int, int]) -> None:
    """Without antialiasing, pixels of a fine pattern would be picked instead of averaged."""
    net = load_image_net(write_net(tmp_path / "flat.onnx", shape, [("Flatten", {})]), "cpu")
    lines = picture((0, 0, 0), (896, 896))
    lines[::4] = 255
    found = net.features([lines]).view(-1, 3, *size)
    assert found.shape == (1, 3, *size)
    torch.testing.assert_close(found[:, :, 2:-2].mean(), torch.tensor(63.75), atol=0.5, rtol=0)


def test_name_fingerprint_and_no_pictures(tmp_path: Path) -> None:
    path = write_net(tmp_path / "mean colours.onnx")
    net = load_image_net(path, "cpu")
    assert net.name == "mean colours"
    assert net.fingerprint == hashlib.sha256(path.read_bytes()).hexdigest()
    assert net.features([]).shape == (0, 3)


def test_read_only_and_flipped_pictures_can_be_seen(tmp_path: Path) -> None:
    net = load_image_net(write_net(tmp_path / "net.onnx"), "cpu")
    image = picture((1, 2, 3))
    image.flags.writeable = False
    assert net.features([image[:, ::-1]]).tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shape": ("n", 3, "h")}, "not float"),
        ({"shape": ("n", 1, "h", "w")}, "not float"),
        ({"kind": TensorProto.DOUBLE, "nodes": [("Flatten", {})]}, "not float"),
        ({"shape": (4, 3, 32, 32)}, "4 pictures at once"),
        ({"more_inputs": 1}, "2 inputs"),
        ({"nodes": [("Relu", {})]}, "not to features"),
        ({"nodes": [("Flatten", {"axis": 0})], "shape": ("n", 3, 8, 8)}, None),
        ({"nodes": [("Flatten", {"axis": 2})]}, "not to features"),
        ({"nodes": [("ReduceMean", {"keepdims": 0})]}, "not to features"),
        ({"nodes": [("ReduceMean", {"axes": [1, 2, 3], "keepdims": 0})]}, "not to features"),
        ({"nodes": [("Transpose", {"perm": [0, 1, 2, 3, 4]})]}, "cannot be loaded|fails"),
    ],
)
def test_other_networks_are_refused(tmp_path: Path, settings: dict[str, object], message: str | None) -> None:
    path = write_net(tmp_path / "net.onnx", **settings)  # type: ignore[arg-type]
    if message is None:
        assert load_image_net(path, "cpu").features([picture((1, 2, 3))]).shape == (1, 192)
        return
    with pytest.raises(ModelError, match=message) as error:
        load_image_net(path, "cpu")
    assert error.value.remedy


def test_files_that_are_no_networks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        load_image_net(tmp_path / "missing.onnx", "cpu")
    with pytest.raises(ModelError, match="does not exist"):
        load_image_net(tmp_path, "cpu")
    whole = write_net(tmp_path / "net.onnx").read_bytes()
    for content in (b"", b"not a network" * 9, whole[: len(whole) // 2]):
        (tmp_path / "bad.onnx").write_bytes(content)
        with pytest.raises(ModelError, match="is not an ONNX network"):
            load_image_net(tmp_path / "bad.onnx", "cpu")


def test_without_onnxruntime_the_message_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="onnxruntime is not installed"):
        load_image_net(write_net(tmp_path / "net.onnx"), "cpu")


def test_a_real_network_tells_faces_from_noise(data: Path) -> None:
    from PIL import Image

    from ireu_cli.maths.quality import kid

    net = load_image_net(data / "models" / "mobilenet_v2_imagenet.onnx", "cpu")
    folders = sorted(path for path in (data / "faces" / "eval").iterdir() if path.is_dir())[:6]
    people = []
    for folder in folders:
        images = []
        for file in sorted(folder.iterdir())[:2]:
            with Image.open(file) as image:
                images.append(np.asarray(image.convert("RGB")))
        people.append(net.features(images))
    assert people[0].shape == (2, 1280)
    noise = np.random.default_rng(0).integers(0, 256, (6, 2, 160, 160, 3), dtype=np.uint8)
    other = [net.features(list(pictures)) for pictures in noise]
    first = [torch.cat([group[:1], group[:0]]) for group in people]
    second = [group[1:] for group in people]
    near, far = kid(first, second), kid(first, [group[1:] for group in other])
    assert near is not None
    assert far is not None
    assert far.low > near.high
