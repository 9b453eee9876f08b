"""insightface packs: exported flat, taken by insightface as edited, found out when somebody puts the original back."""

import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from insightface.app import FaceAnalysis
from onnx import TensorProto, helper
from PIL import Image

from ireu_cli.coverage import coverage_in, groups_for, needed_taps
from ireu_cli.encoders.face_encoder import FaceEncoder, load_face_encoder, with_gates
from ireu_cli.encoders.files.face_pack import recogniser_in
from ireu_cli.encoders.groups import groups_of_network
from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.exporting.pack import pack_of, write_pack
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams
from ireu_cli.store.files import file_sha256
from ireu_cli.values import WeightDelta
from tests.conftest import run_ireu
from tests.drawn.face_network import write_face_network


def gated(network: Path, weight: torch.Tensor, threshold: float) -> FaceEncoder:
    """The network with a gate that opens where the embedding at length one exceeds a threshold along a direction."""
    gates = Gates(weight[None], torch.tensor([threshold]), -2 * weight[None], 0.05)
    return with_gates(load_face_encoder(network, ARCFACE_LANDMARKS, "cpu"), WeightDelta(gates.tensors()))


@pytest.fixture
def pack(tmp_path: Path) -> Path:
    """A pack of one recogniser, a network of another task, and a licence."""
    folder = tmp_path / "models" / "antelopev2"
    folder.mkdir(parents=True)
    write_face_network(folder / "glintr100.onnx")
    (folder / "LICENSE").write_text("non-commercial")
    return folder


def edited(pack: Path) -> FaceEncoder:
    return gated(pack / "glintr100.onnx", torch.nn.functional.normalize(torch.ones(48), dim=0), 0.5)


def test_other_recognisers_are_left_out(pack: Path, tmp_path: Path) -> None:
    shutil.copyfile(pack / "glintr100.onnx", pack / "glintr100_original.onnx")
    out = tmp_path / "out"
    out.mkdir()
    assert write_pack(pack, pack / "glintr100.onnx", edited(pack), out) == ["glintr100_original.onnx"]
    assert sorted(path.name for path in out.iterdir()) == ["LICENSE", "glintr100.onnx"]
    assert (out / "LICENSE").read_bytes() == (pack / "LICENSE").read_bytes()
    assert recogniser_in(out).read_bytes() != (pack / "glintr100.onnx").read_bytes()


def write_shaped(path: Path, side: int, outputs: int) -> Path:
    """A network that takes a square of some size and gives some outputs, as those of other tasks do."""
    names = [f"out{number}" for number in range(outputs)]
    nodes = [helper.make_node("Identity", ["data"], [name]) for name in names]
    entry = helper.make_tensor_value_info("data", TensorProto.FLOAT, [1, 3, side, side])
    exits = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, side, side]) for name in names]
    graph = helper.make_graph(nodes, "shaped", [entry], exits)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_a_pack_of_auraface(tmp_path: Path) -> None:
    """The files of fal/AuraFace-v1: five networks of four tasks, a licence and a card, and no manifest."""
    pack = tmp_path / "auraface"
    pack.mkdir()
    others = {"1k3d68": (192, 1), "2d106det": (192, 1), "genderage": (96, 1), "scrfd_10g_bnkps": (640, 9)}
    for name, (side, outputs) in others.items():
        write_shaped(pack / f"{name}.onnx", side, outputs)
    write_face_network(pack / "glintr100.onnx")
    (pack / "LICENSE.md").write_text("Apache")
    (pack / "README.md").write_text("---\nlicense: apache-2.0\n---\n# AuraFace\n")
    (pack / ".gitattributes").write_text("*.onnx filter=lfs")
    assert recogniser_in(pack).name == "glintr100.onnx"
    out = tmp_path / "out"
    out.mkdir()
    assert write_pack(pack, pack / "glintr100.onnx", edited(pack), out) == []
    assert sorted(path.name for path in out.iterdir()) == sorted(
        [*(f"{name}.onnx" for name in others), "glintr100.onnx", "LICENSE.md", "README.md"]
    )
    for path in out.iterdir():
        assert (path.read_bytes() == (pack / path.name).read_bytes()) == (path.name != "glintr100.onnx"), path.name


def test_sizes_do_not_tell_auraface_from_antelopev2(pack: Path) -> None:
    encoder = edited(pack)
    as_stated = EncoderParams(source=str(pack), tap="normed_embedding", groups=("AF",))
    assert groups_for(as_stated, encoder) == ("AF",)
    assert groups_of_network(103)[0] == "R100"
    assert coverage_in(("AF",), encoder.reach(())) == []
    with pytest.raises(ConfigError, match="InstantID, SDXL does not read an encoder of the group AF"):
        needed_taps(["instantid"], ("AF",))


def test_nothing_but_the_pack_is_exported(pack: Path, tmp_path: Path) -> None:
    """Steps write where they are called: deltas and masks, which tell who was removed, may lie beside the networks."""
    for name in ("delta.safetensors", "delta.safetensors.json", "mask.pt", "ireu.toml", "glintr100.onnx.bak", "x.zip"):
        (pack / name).write_text("private")
    (pack / "._glintr100.onnx").write_bytes(b"what macOS leaves behind")
    out = tmp_path / "out"
    out.mkdir()
    write_pack(pack, pack / "glintr100.onnx", edited(pack), out)
    assert sorted(path.name for path in out.iterdir()) == ["LICENSE", "glintr100.onnx"]


def test_a_manifest_may_name_other_tasks_and_folders(pack: Path, tmp_path: Path) -> None:
    (pack / "rec").mkdir()
    (pack / "glintr100.onnx").rename(pack / "rec" / "m.onnx")
    write_face_network(pack / "verify.onnx")
    tasks = {"verification": {"file": "verify.onnx"}, "recognition": {"file": "rec/m.onnx", "sha256": "0"}}
    (pack / "manifest.json").write_text(json.dumps({"manifest_version": 2, "tasks": tasks}))
    network = recogniser_in(pack)
    out = tmp_path / "out"
    out.mkdir()
    direction = torch.nn.functional.normalize(torch.ones(48), dim=0)
    assert write_pack(pack_of(pack, network), network, gated(network, direction, 0.5), out) == []
    assert (out / "verify.onnx").read_bytes() == (pack / "verify.onnx").read_bytes()
    assert recogniser_in(out) == out / "rec" / "m.onnx"
    told = json.loads((out / "manifest.json").read_text())["tasks"]["recognition"]
    assert told["sha256"] == file_sha256(out / "rec" / "m.onnx")


@pytest.mark.parametrize("file", [None, 5, ["a"], "../x.onnx", "none.onnx"])
def test_a_manifest_that_leads_elsewhere_is_refused(pack: Path, file: Any) -> None:
    shutil.copyfile(pack / "glintr100.onnx", pack.parent / "x.onnx")
    told = {"manifest_version": 2, "tasks": {"recognition": {"file": file}}}
    (pack / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(ModelError, match="which is not in the pack"):
        recogniser_in(pack)


def test_a_copy_that_sorts_earlier_is_found_out(pack: Path) -> None:
    assert pack_of(pack, pack / "glintr100.onnx") == pack
    shutil.copyfile(pack / "glintr100.onnx", pack / "glintr100.bak.onnx")
    with pytest.raises(ConfigError, match=r"uses glintr100\.bak\.onnx of this pack for recognition"):
        pack_of(pack, pack / "glintr100.onnx")


def test_a_manifest_states_the_new_digest(pack: Path, tmp_path: Path) -> None:
    tasks = {"recognition": {"file": "glintr100.onnx", "sha256": file_sha256(pack / "glintr100.onnx")}}
    told = {"manifest_version": 2, "model_id": "antelopev2", "tasks": tasks}
    (pack / "manifest.json").write_text(json.dumps(told))
    out = tmp_path / "out"
    out.mkdir()
    write_pack(pack, pack / "glintr100.onnx", edited(pack), out)
    found = json.loads((out / "manifest.json").read_text())
    assert found["tasks"]["recognition"]["sha256"] == file_sha256(out / "glintr100.onnx")
    assert found["model_id"] == "antelopev2"


def test_a_pack_goes_through_all_commands(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(samples, folder)
    (folder / "pack").mkdir()
    write_face_network(folder / "pack" / "w600k_r50.onnx")
    (folder / "pack" / "LICENSE").write_text("non-commercial")
    text = (folder / "ireu.toml").read_text()
    (folder / "ireu.toml").write_text(
        text.replace('source = "encoder"', 'source = "pack"\ngroups = ["R50"]').replace(
            '"pooled"', '"normed_embedding"'
        )
    )
    assert run_ireu("locate", "--method", "all", cwd=folder).code == 0
    rates = ("--set", "gated.max_false_alarm=0.1", "--set", "gated.false_alarms=0.4", "--set", "gated.people=2")
    done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "gated", *rates, cwd=folder)
    assert done.code == 0, done.err
    assert "IP-Adapter FaceID and portrait, SD1.5 and SDXL: covered" in done.err
    assert "PhotoMaker v2, SDXL: half covered" in done.err
    exported = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", cwd=folder)
    assert exported.code == 0, exported.err
    names = sorted(path.name for path in (folder / "out").iterdir())
    assert names == ["LICENSE", "README.md", "ireu.json", "w600k_r50.onnx"]
    assert "PhotoMaker v2, SDXL | half covered: also reads last" in (folder / "out" / "README.md").read_text()
    card = json.loads(run_ireu("inspect", "out", "--json", cwd=folder).out)
    told = json.loads((folder / "out" / "ireu.json").read_text())["metrics"]
    assert (card["layout"], card["fingerprint"]) == ("insightface-pack", told["edited_encoder"])


class TestWithInsightface:
    """A real pack and real photos."""

    @pytest.fixture
    def root(self, data: Path, tmp_path: Path) -> Path:
        shutil.copytree(data / "models" / "insightface" / "models" / "mini", tmp_path / "models" / "mini")
        return tmp_path

    def analysis(self, root: Path) -> Any:
        with contextlib.redirect_stdout(io.StringIO()):
            found = FaceAnalysis(name="mini", root=str(root), providers=["CPUExecutionProvider"])
            found.prepare(ctx_id=-1, det_size=(320, 320))
        return found

    def look(self, root: Path, photos: list[Path]) -> list[np.ndarray[Any, Any]]:
        analysis = self.analysis(root)
        pictures = [np.array(Image.open(photo).convert("RGB"))[:, :, ::-1] for photo in photos]
        return [analysis.get(np.ascontiguousarray(picture))[0].embedding for picture in pictures]

    def test_the_person_changes_and_nobody_else(self, data: Path, root: Path) -> None:
        people = sorted((data / "faces" / "eval").iterdir())[:8]
        photos = [sorted(person.iterdir())[0] for person in people]
        before = self.look(root, photos)
        pack = root / "models" / "mini"
        own = torch.nn.functional.normalize(torch.from_numpy(before[0]), dim=0)
        edit = gated(pack / "recogniser.onnx", own, 0.8)
        out = root / "edited" / "models" / "mini"
        out.mkdir(parents=True)
        write_pack(pack, pack / "recogniser.onnx", edit, out)
        after = self.look(root / "edited", photos)
        cosines = [float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in zip(before, after, strict=True)]
        assert cosines[0] < 0
        assert all(np.array_equal(a, b) for a, b in zip(before[1:], after[1:], strict=True))
        assert (out / "det_2.5g.onnx").read_bytes() == (pack / "det_2.5g.onnx").read_bytes()

    def test_a_rolled_back_file_does_not_load(self, root: Path) -> None:
        pack = root / "models" / "mini"
        tasks = {
            "detection": {"file": "det_2.5g.onnx"},
            "recognition": {"file": "recogniser.onnx", "sha256": file_sha256(pack / "recogniser.onnx")},
        }
        told = {"manifest_version": 2, "model_id": "mini", "license": "MODEL.LICENSE", "tasks": tasks}
        (pack / "manifest.json").write_text(json.dumps(told))
        width = load_face_encoder(pack / "recogniser.onnx", ARCFACE_LANDMARKS, "cpu").session.get_outputs()[0].shape[-1]
        out = root / "edited" / "models" / "mini"
        out.mkdir(parents=True)
        edit = gated(pack / "recogniser.onnx", torch.nn.functional.normalize(torch.ones(width), dim=0), 0.5)
        write_pack(pack, pack / "recogniser.onnx", edit, out)
        self.analysis(root / "edited")
        shutil.copyfile(pack / "recogniser.onnx", out / "recogniser.onnx")
        with pytest.raises(RuntimeError, match="SHA-256"):
            self.analysis(root / "edited")
