"""`export --format facefusion`: the network under FaceFusion's name, with the checksum that FaceFusion compares."""

import zlib
from pathlib import Path

import onnx
import pytest

from ireu_cli.errors import ModelError
from ireu_cli.exporting.facefusion import checksummed, refuse_unfit
from ireu_cli.layouts.table import layout_named
from tests.drawn.face_network import write_face_network


def write_with_input(path: Path, name: str) -> Path:
    """A face network whose input has this name."""
    network = onnx.load(write_face_network(path))
    network.graph.input[0].name = network.graph.node[0].input[0] = name
    onnx.save(network, path)
    return path


def accepts(model: Path) -> bool:
    """Whether FaceFusion takes a file as it is, as its `validate_hash` decides."""
    beside = model.with_suffix(".hash")
    if not beside.is_file():
        return False
    with beside.open() as file:
        return format(zlib.crc32(model.read_bytes()), "08x") == file.read()


def test_facefusion_takes_these_bytes_and_no_others(tmp_path: Path) -> None:
    # The checksum of these bytes begins with zeros, which must be written.
    content = next(data for data in (b"%d" % number for number in range(10_000)) if zlib.crc32(data) < 1 << 20)
    for name, data in checksummed(layout_named("facefusion"), content).items():
        (tmp_path / name).write_bytes(data)
    model = tmp_path / "arcface_w600k_r50.onnx"
    assert accepts(model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["arcface_w600k_r50.hash", "arcface_w600k_r50.onnx"]
    model.write_bytes(b"the original")
    assert not accepts(model)


def test_a_network_of_insightface_is_refused(tmp_path: Path) -> None:
    path = write_with_input(tmp_path / "w600k_r50.onnx", "input.1")
    with pytest.raises(ModelError, match=r"the one of w600k_r50\.onnx has another name"):
        refuse_unfit(path.read_bytes(), path.name)


def test_a_network_that_scales_pixels_itself_is_refused(tmp_path: Path) -> None:
    path = write_with_input(tmp_path / "x.onnx", "input")
    refuse_unfit(path.read_bytes(), "x.onnx")
    network = onnx.load(path)
    for name in ("Sub_0", "Mul_0"):
        network.graph.node.insert(1, onnx.helper.make_node("Identity", ["map"], [f"{name}_out"], name=name))
    with pytest.raises(ModelError, match="prepares faces for another network"):
        refuse_unfit(network.SerializeToString(), "x.onnx")
