"""Networks in ONNX that mean harm, or did not arrive whole."""

import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from ireu_cli.encoders.face_encoder import load_face_encoder, with_gates
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in
from ireu_cli.encoders.files.networks import external_files, load_network
from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.errors import ModelError
from ireu_cli.exporting.pack import write_pack
from ireu_cli.judges.image_net import load_image_net
from ireu_cli.judges.onnx_recogniser import load_onnx
from ireu_cli.params import ARCFACE_LANDMARKS, RecogniserParams
from ireu_cli.values import WeightDelta
from tests.tiny_portrait import write_face_encoder

READERS: dict[str, Callable[[Path], object]] = {
    "inspect": lambda path: card_of(str(path)),
    "encoder": lambda path: load_face_encoder(path, ARCFACE_LANDMARKS, "cpu"),
    "recogniser": lambda path: load_onnx(RecogniserParams(name="x", kind="onnx", model=path)),
}


@pytest.fixture(params=list(READERS))
def read(request: pytest.FixtureRequest) -> Callable[[Path], object]:
    return READERS[request.param]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    write_face_encoder(tmp_path / "net" / "w.onnx", 5)
    return tmp_path / "net" / "w.onnx"


def beside(path: Path) -> Path:
    """Save a network again with its weights beside it."""
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.data", size_threshold=0)
    return path.with_name(f"{path.name}.data")


def spoil(path: Path, change: Callable[[Any], None]) -> None:
    model = onnx.ModelProto.FromString(path.read_bytes())
    change(model)
    path.write_bytes(model.SerializeToString())


def entry(key: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = next(tensor for tensor in model.graph.initializer if tensor.external_data)
        kept = [(one.key, one.value) for one in tensor.external_data if one.key != key]
        del tensor.external_data[:]
        for name, text in [*kept, (key, value)]:
            added = tensor.external_data.add()
            added.key, added.value = name, text

    return change


def gated(path: Path) -> Any:
    encoder = load_face_encoder(path, ARCFACE_LANDMARKS, "cpu")
    weight = torch.nn.functional.normalize(torch.ones(encoder.session.get_outputs()[0].shape[-1]), dim=0)
    return with_gates(encoder, WeightDelta(Gates(weight[None], torch.tensor([0.5]), -2 * weight[None], 0.05).tensors()))


class TestWeightsBesideANetwork:
    def test_are_read(self, network: Path) -> None:
        before = load_face_encoder(network, ARCFACE_LANDMARKS, "cpu")
        data = beside(network)
        found = load_face_encoder(network, ARCFACE_LANDMARKS, "cpu")
        assert external_files(network) == [data]
        assert found.fingerprint == before.fingerprint
        assert torch.equal(
            found.embed(found.null_pixels(), "embedding"), before.embed(before.null_pixels(), "embedding")
        )

    @pytest.mark.parametrize("place", ["../secret.data", "/etc/passwd", "out/x.data", "link.data", "", "a\0b", "..\\x"])
    def test_lie_in_its_folder(self, network: Path, read: Callable[[Path], object], place: str) -> None:
        data = beside(network)
        shutil.copyfile(data, network.parent.parent / "secret.data")
        (network.parent.parent / "out").mkdir()
        shutil.copyfile(data, network.parent.parent / "out" / "x.data")
        (network.parent / "out").symlink_to("../out")
        (network.parent / "link.data").symlink_to("../secret.data")
        spoil(network, entry("location", place))
        with pytest.raises(ModelError, match=r"The network .*w\.onnx: The place of") as refused:
            read(network)
        assert str(refused.value).isprintable()

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("offset", "-8"),
            ("offset", "9" * 30),
            ("length", "9" * 12),
            ("length", "-1"),
            ("length", "x"),
            ("length", "4"),
        ],
    )
    def test_are_where_it_says(self, network: Path, read: Callable[[Path], object], key: str, value: str) -> None:
        beside(network)
        spoil(network, entry(key, value))
        with pytest.raises(ModelError, match=r"does not hold all of .* as the network states it"):
            read(network)

    def test_are_missed(self, network: Path, read: Callable[[Path], object]) -> None:
        beside(network).unlink()
        with pytest.raises(ModelError, match=r"keeps weights in w\.onnx\.data, which does not exist"):
            read(network)

    def test_of_a_node_inside_a_branch_are_found(self, network: Path) -> None:
        beside(network)

        def change(model: Any) -> None:
            tensor = TensorProto(name="t", data_type=1, dims=[1], data_location=TensorProto.EXTERNAL)
            added = tensor.external_data.add()
            added.key, added.value = "location", "../secret"
            inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "g", [], [])
            model.graph.node.append(helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner))

        spoil(network, change)
        with pytest.raises(ModelError, match="leads out of its folder"):
            external_files(network)

    def test_beyond_what_one_file_can_hold(self, network: Path) -> None:
        def change(model: Any) -> None:
            tensor = TensorProto(name="big", data_type=1, dims=[1 << 19, 1 << 11], data_location=TensorProto.EXTERNAL)
            added = tensor.external_data.add()
            added.key, added.value = "location", "big.data"
            model.graph.initializer.append(tensor)

        with (network.parent / "big.data").open("wb") as file:
            file.truncate(1 << 32)
        spoil(network, change)
        for name in ("inspect", "encoder"):
            with pytest.raises(ModelError, match="more than 2 GB of weights"):
                READERS[name](network)

    def test_are_not_read_for_pictures(self, network: Path) -> None:
        beside(network)
        with pytest.raises(ModelError, match="keeps weights outside its file"):
            load_image_net(network)


class TestNetworksAsTheyArrive:
    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 25\n", "is a git-lfs pointer"),
            (b"<!DOCTYPE html><html></html>", "is a web page"),
            (b"", "is empty"),
            (b"rubbish" * 40, "is not an ONNX network"),
            (None, "is not an ONNX network"),
        ],
    )
    def test_the_cause_is_named(
        self, network: Path, read: Callable[[Path], object], content: bytes | None, words: str
    ) -> None:
        whole = network.read_bytes()
        network.write_bytes(whole[: len(whole) // 2] if content is None else content)
        with pytest.raises(ModelError, match=words):
            read(network)

    def test_of_a_later_onnx(self, network: Path) -> None:
        spoil(network, lambda model: setattr(model, "ir_version", 99))
        for name in ("encoder", "recogniser"):
            with pytest.raises(ModelError, match=r"IR version.*Install a newer onnxruntime") as refused:
                READERS[name](network)
            assert "Fail" not in str(refused.value)

    def test_without_the_shape_of_its_output(self, network: Path) -> None:
        before = gated(network)
        spoil(network, lambda model: model.graph.output[0].type.tensor_type.ClearField("shape"))
        found = gated(network)
        assert torch.equal(
            found.embed(found.null_pixels(), "embedding"), before.embed(before.null_pixels(), "embedding")
        )


class TestPrograms:
    def test_loops_are_refused(self, network: Path, read: Callable[[Path], object]) -> None:
        def change(model: Any) -> None:
            body = helper.make_graph(
                [helper.make_node("Identity", ["c"], ["d"])],
                "b",
                [helper.make_tensor_value_info("i", 7, []), helper.make_tensor_value_info("c", 9, [])],
                [helper.make_tensor_value_info("d", 9, [])],
            )
            model.graph.initializer.append(numpy_helper.from_array(np.array(2**62), "many"))
            model.graph.node.append(helper.make_node("Loop", ["many"], [], body=body, name="l"))

        spoil(network, change)
        start = time.monotonic()
        with pytest.raises(ModelError, match=r"has a loop \(Loop\)"):
            read(network)
        assert time.monotonic() - start < 20

    @pytest.mark.parametrize("how", ["loop", "circle", "many"])
    def test_functions_hide_neither_loops_nor_billions_of_nodes(
        self, network: Path, read: Callable[[Path], object], how: str
    ) -> None:
        def change(model: Any) -> None:
            model.ir_version = max(model.ir_version, 8)
            opsets = [*model.opset_import, helper.make_opsetid("own", 1)]
            model.opset_import.append(opsets[-1])
            body = helper.make_graph(
                [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Identity", ["x"], ["y"])],
                "b",
                [helper.make_tensor_value_info(name, kind, []) for name, kind in (("i", 7), ("c", 9), ("x", 1))],
                [helper.make_tensor_value_info("d", 9, []), helper.make_tensor_value_info("y", 1, [])],
            )
            many = helper.make_node("Constant", [], ["n"], value=numpy_helper.from_array(np.array(2**62)))
            last = {
                "loop": [many, helper.make_node("Loop", ["n", "", "a"], ["z"], body=body)],
                "circle": [helper.make_node("f12", ["a"], ["z"], domain="own")],
                "many": [helper.make_node("Identity", ["a"], ["z"])],
            }[how]
            model.functions.append(helper.make_function("own", "f0", ["a"], ["z"], last, opsets))
            for number in range(1, 13):
                names = ["a", *"bcdefghij", "z"]
                calls = [
                    helper.make_node(f"f{number - 1}", [given], [made], domain="own")
                    for given, made in itertools.pairwise(names)
                ]
                model.functions.append(helper.make_function("own", f"f{number}", ["a"], ["z"], calls, opsets))
            first = model.graph.node[0].input[0]
            model.graph.node[0].input[0] = "before"
            model.graph.node.insert(0, helper.make_node("f12", [first], ["before"], domain="own"))

        spoil(network, change)
        start = time.monotonic()
        with pytest.raises(ModelError, match=r"has a loop \(Loop\)" if how == "loop" else "functions are expanded"):
            read(network)
        assert time.monotonic() - start < 20

    @pytest.mark.parametrize("side", [112_000_000, 224 * 1024, 0, -112])
    def test_pictures_beyond_any_size(self, network: Path, side: int) -> None:
        def change(model: Any) -> None:
            for axis in (2, 3):
                model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side

        spoil(network, change)
        with pytest.raises(ModelError):
            READERS["encoder"](network)

    def test_tensors_that_do_not_hold_what_they_state(self, network: Path, read: Callable[[Path], object]) -> None:
        spoil(network, lambda model: model.graph.initializer[0].dims.append(10**12))
        with pytest.raises(ModelError):
            read(network)


def made(
    *nodes: Any, function: bool = False, branch: bool = False, domain: str = "", **tensors: Any
) -> Callable[[Any], None]:
    """Puts nodes before a network, whose values count for nothing in what it says of a picture."""

    def change(model: Any) -> None:
        picture = model.graph.input[0].name
        every = [*nodes, helper.make_node("ReduceMean", ["huge"], ["one"], keepdims=0)]
        for node in every:
            node.input[:] = [picture if name == "picture" else name for name in node.input]
        constants = [numpy_helper.from_array(np.array(value), name) for name, value in tensors.items()]
        if function:
            held = [helper.make_node("Constant", [], [one.name], value=one) for one in constants]
            model.functions.append(
                helper.make_function("own", "grow", [picture], ["one"], [*held, *every], model.opset_import[:])
            )
            model.opset_import.append(helper.make_opsetid("own", 1))
            every, constants = [helper.make_node("grow", [picture], ["one"], domain="own")], []
        if branch:
            result = [helper.make_tensor_value_info("one", TensorProto.FLOAT, [])]
            graph = helper.make_graph(every, "then", [], result)
            constants.append(numpy_helper.from_array(np.array(True), "yes"))
            every = [helper.make_node("If", ["yes"], ["one"], then_branch=graph, else_branch=graph)]
        model.graph.initializer.extend(constants)
        for one in model.opset_import:
            one.domain = one.domain or domain
        first = model.graph.node[0]
        first.input[0] = "seen"
        for node in reversed([*every, helper.make_node("Add", [picture, "one"], ["seen"])]):
            model.graph.node.insert(0, node)
        model.graph.value_info.append(helper.make_tensor_value_info("huge", TensorProto.FLOAT, [1]))

    return change


FILLED = helper.make_node("ConstantOfShape", ["shape"], ["huge"])
DOUBLED = [
    helper.make_node("Concat", ["picture" if n == 0 else f"x{n}"] * 2, ["huge" if n == 29 else f"x{n + 1}"], axis=0)
    for n in range(30)
]
COMPUTED = [
    helper.make_node("Shape", ["picture"], ["own"]),
    helper.make_node("Mul", ["own", "by"], ["shape"]),
    FILLED,
]
HUGE: dict[str, Callable[[Any], None]] = {
    "filled": made(FILLED, shape=[1 << 16, 1 << 16]),
    "filled, in a function": made(FILLED, shape=[1 << 16, 1 << 16], function=True),
    "filled, in a branch": made(FILLED, shape=[1 << 16, 1 << 16], branch=True),
    "random": made(helper.make_node("RandomNormal", [], ["huge"], shape=[1 << 16, 1 << 16])),
    "expanded": made(helper.make_node("Expand", ["picture", "shape"], ["huge"]), shape=[1 << 20, 3, 112, 112]),
    "repeated": made(helper.make_node("Tile", ["picture", "times"], ["huge"]), times=[1 << 20, 1, 1, 1]),
    "doubled thirty times": made(*DOUBLED),
    "enlarged": made(
        helper.make_node("Resize", ["picture", "", "by"], ["huge"]), by=np.array([1, 1, 1000, 1000], np.float32)
    ),
    "each with each": made(
        helper.make_node("Reshape", ["picture", "row"], ["a"]),
        helper.make_node("Transpose", ["a"], ["b"], perm=[1, 0]),
        helper.make_node("MatMul", ["b", "a"], ["huge"]),
        row=[1, -1],
    ),
    "beside a size that nobody knows": made(
        helper.make_node("NonZero", ["picture"], ["places"]),
        helper.make_node("Cast", ["places"], ["few"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["few", "front"], ["flat"]),
        helper.make_node("Expand", ["flat", "shape"], ["huge"]),
        front=[0],
        shape=[1 << 33, 4, 1],
    ),
    "sixty-four large ones": made(
        *[helper.make_node("ConstantOfShape", ["shape"], [f"x{n}"]) for n in range(64)],
        helper.make_node("Sum", [f"x{n}" for n in range(64)], ["huge"]),
        shape=[1 << 14, 1 << 14],
    ),
    "a shape of many numbers": made(
        helper.make_node("Shape", ["picture"], ["s0"]),
        *[helper.make_node("Concat", [f"s{n}"] * 2, [f"s{n + 1}"], axis=0) for n in range(26)],
        helper.make_node("ConstantOfShape", ["s26"], ["huge"]),
    ),
    "a shape that is computed": made(*COMPUTED, by=[1000, 1000, 1000, 1000]),
    "a shape that is computed, under the other name of the domain": made(
        *COMPUTED, by=[1000, 1000, 1000, 1000], domain="ai.onnx"
    ),
}


class TestNames:
    @pytest.mark.parametrize("text", ["kernel", "matrix", "tiny", "face", "embedding", "Conv", "strides", "flat"])
    def test_that_are_not_text_are_refused(self, network: Path, read: Callable[[Path], object], text: str) -> None:
        """Wherever they stand: protobuf decodes them only when somebody asks."""
        data = network.read_bytes()
        assert text.encode() in data
        network.write_bytes(data.replace(text.encode(), b"\xff" + text[1:].encode()))
        with pytest.raises(ModelError, match=r"names that are not text|can.t decode byte"):
            read(network)


class TestSizes:
    @pytest.mark.parametrize("how", list(HUGE))
    def test_a_tensor_beyond_any_machine_is_refused(self, network: Path, how: str) -> None:
        """Whatever the file says of its size; it would be made while the network is opened, or at its first picture."""
        spoil(network, HUGE[how])
        with pytest.raises(
            ModelError, match=r"makes (a tensor|tensors) of .* values|computes with shapes of \d+ numbers"
        ):
            load_network(network)

    @pytest.mark.parametrize("version", [13, 17])
    def test_many_nodes_beside_many_branches_are_refused(self, network: Path, version: int) -> None:
        """Each branch is looked at beside the whole network."""

        def change(model: Any) -> None:
            last = model.graph.output[0].name
            for n in range(9_000):
                model.graph.node.append(helper.make_node("Relu", [last if n == 0 else f"r{n}"], [f"r{n + 1}"]))
            result = [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)]
            graph = helper.make_graph([helper.make_node("Relu", [last], ["b"])], "then", [], result)
            model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
            for n in range(8):
                model.graph.node.append(
                    helper.make_node("If", ["yes"], [f"i{n}"], then_branch=graph, else_branch=graph)
                )
            model.opset_import[0].version = version

        spoil(network, change)
        with pytest.raises(ModelError, match="has 16 branches beside 9011 nodes"):
            load_network(network)

    def test_sparse_weights_are_refused(self, network: Path) -> None:
        def change(model: Any) -> None:
            values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
            places = numpy_helper.from_array(np.zeros(1, np.int64), "places")
            model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [1 << 40]))

        spoil(network, change)
        with pytest.raises(ModelError, match="has sparse weights"):
            load_network(network)

    def test_every_reader_refuses_them(self, network: Path, read: Callable[[Path], object]) -> None:
        spoil(network, HUGE["filled"])
        with pytest.raises(ModelError, match="makes a tensor of 65536 x 65536 values"):
            read(network)

    def test_the_same_nodes_in_a_usual_size_are_not(self, network: Path) -> None:
        spoil(network, made(FILLED, shape=[16, 16]))
        assert load_face_encoder(network, ARCFACE_LANDMARKS, "cpu").fingerprint


class TestPacks:
    @pytest.fixture
    def pack(self, tmp_path: Path) -> Path:
        folder = tmp_path / "pack"
        folder.mkdir()
        for name in ("rec.onnx", "other.onnx"):
            write_face_encoder(folder / name, 5)

        def wide(model: Any) -> None:
            model.graph.output.append(helper.make_tensor_value_info(model.graph.node[0].output[0], 1, None))

        spoil(folder / "other.onnx", wide)
        return folder

    def test_with_weights_beside_their_networks_load_when_exported(self, pack: Path, tmp_path: Path) -> None:
        for name in ("rec.onnx", "other.onnx"):
            beside(pack / name)
        out = tmp_path / "out"
        out.mkdir()
        write_pack(pack, pack / "rec.onnx", gated(pack / "rec.onnx"), out)
        assert sorted(path.name for path in out.iterdir()) == ["other.onnx", "other.onnx.data", "rec.onnx"]
        for path in out.glob("*.onnx"):
            onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        assert recogniser_in(out) == out / "rec.onnx"

    @pytest.mark.parametrize("name", ["LICENSE", "README.md", "other.onnx"])
    def test_nothing_from_elsewhere_comes_into_an_export(self, pack: Path, tmp_path: Path, name: str) -> None:
        (tmp_path / "secret").write_bytes((pack / "other.onnx").read_bytes())
        (pack / name).unlink(missing_ok=True)
        (pack / name).symlink_to("../secret")
        out = tmp_path / "out"
        out.mkdir()
        with pytest.raises(ModelError, match=f"{name} is a link that leads out of the pack"):
            write_pack(pack, pack / "rec.onnx", gated(pack / "rec.onnx"), out)

    def test_a_network_that_does_not_load_is_found_before_the_export_takes_its_place(
        self, pack: Path, tmp_path: Path
    ) -> None:
        spoil(pack / "other.onnx", lambda model: setattr(model.graph.node[0], "op_type", "Nothing"))
        out = tmp_path / "out"
        out.mkdir()
        with pytest.raises(ModelError, match=r"other\.onnx of the pack cannot be loaded"):
            write_pack(pack, pack / "rec.onnx", gated(pack / "rec.onnx"), out)

    def test_a_folder_of_many_folders_is_not_searched(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "b" / "c").mkdir(parents=True)
        write_face_encoder(tmp_path / "a" / "b" / "c" / "w.onnx", 5)
        assert not is_pack(tmp_path)
        assert is_pack(tmp_path / "a" / "b")
        assert load_network((tmp_path / "a" / "b" / "c" / "w.onnx").read_bytes()).graph.node
