"""Planted failures on `portrait-mini`: each ends in the right outcome, with the right exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file

from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.params import EncoderParams
from ireu_cli.store.artifacts import read_delta, write_delta
from ireu_cli.store.manifests import read_manifest
from ireu_cli.values import WeightDelta
from tests.conftest import Run, plant_manifest, run_ireu

pytestmark = pytest.mark.slow

FEW = {
    "pictures.generators": "A",
    "pictures.target_photos": 2,
    "pictures.people": 4,
    "pictures.look_alikes": 1,
    "pictures.photos": 1,
    "pictures.seeds": 1,
    "pictures.edits_per_photo": 0,
    "attacks.suite": "none",
    "verify.bootstrap": 100,
    "verify.false_match_rate": 0.02,
}
Tensors = dict[str, torch.Tensor]
Edit = Callable[[Tensors], Tensors]


IREU = ("--method", "ireu")


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample people with a delta of one step, for others to be planted in its place."""
    folder = tmp_path_factory.mktemp("town") / "demo"
    assert run_ireu("samples", folder).code == 0
    for photo in sorted((folder / "others").rglob("*.jpg")):
        if int(photo.stem[-1]) % 2:
            photo.unlink()
    locate = ("--method", "variance", "--set", "locate.interchange_pairs=0")
    assert run_ireu("locate", *locate, cwd=folder).code == 0
    assert run_ireu("unlearn", "--mask", "mask.pt", *IREU, "--steps", "1", cwd=folder).code == 0
    return folder


def plant(folder: Path, edit: Edit, name: str) -> str:
    """A delta with other tensors and a proper manifest."""
    record = read_manifest(folder / "delta.safetensors.json")
    tensors = edit(read_delta(folder / "delta.safetensors").tensors)
    write_delta(folder / name, WeightDelta(tensors))
    plant_manifest(folder / f"{name}.json", record.model_copy(update={"outputs": ()}), [folder / name])
    return name


def verify(folder: Path, delta: str, **settings: object) -> tuple[Run, Any]:
    """Run `verify` in the folder, which keeps pictures and sights for the runs after it."""
    merged = FEW | {key.replace("__", "."): value for key, value in settings.items()}
    sets = [part for key, value in merged.items() for part in ("--set", f"{key}={value}")]
    report = f"report-{delta}-{len(list(folder.glob('report-*')))}"
    found = run_ireu("verify", "--delta", delta, "-o", report, "--json", *sets, cwd=folder)
    return found, found.json.get("report")


def failed(report: Any) -> set[str]:
    return {criterion["name"] for criterion in report["criteria"] if criterion["outcome"] == "fail"}


def unmet(report: Any) -> set[str]:
    return {control["name"] for control in report["controls"] if not control["met"]}


def zeroed(tensors: Tensors) -> Tensors:
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}


def test_a_delta_that_changes_nothing_fails(town: Path) -> None:
    found, report = verify(town, plant(town, zeroed, "zero.safetensors"))
    assert found.code == 4, found.err
    assert {"match_seen", "match_unseen", "reidentified_seen", "reidentified_unseen", "delta_id"} <= failed(report)
    assert not unmet(report)
    assert "retained_psnr" not in failed(report)


def test_the_delta_of_another_person_fails(town: Path, tmp_path: Path) -> None:
    other = tmp_path / "demo"
    shutil.copytree(
        town, other, ignore=shutil.ignore_patterns("report-*", "faces", "mask*", "delta*", "*.safetensors*")
    )
    victim = sorted(path for path in (other / "others").iterdir())[0]
    (other / "faces").mkdir()
    shutil.move(victim, other / "faces" / victim.name)
    shutil.copytree(next((town / "faces").iterdir()), other / "others" / "zz")
    assert run_ireu("locate", "--method", "variance", "--set", "locate.interchange_pairs=0", cwd=other).code == 0
    assert run_ireu("unlearn", "--mask", "mask.pt", *IREU, "--steps", "80", cwd=other).code == 0
    removed = load_file(other / "delta.safetensors")
    found, report = verify(town, plant(town, lambda _: removed, "wrong.safetensors"))
    assert found.code == 4, found.err
    assert {"match_seen", "match_unseen", "reidentified_seen", "reidentified_unseen", "delta_id"} <= failed(report)


def test_a_delta_that_destroys_everybody_fails_for_what_it_does_to_others(town: Path) -> None:
    def noise(tensors: Tensors) -> Tensors:
        model = load_encoder(EncoderParams(source="portrait-mini"), "cpu").model.state_dict()
        rng = torch.Generator().manual_seed(0)
        return {n: torch.randn(t.shape, generator=rng) * 3 * model[n].float().std() for n, t in tensors.items()}

    found, report = verify(town, plant(town, noise, "noise.safetensors"))
    assert found.code == 4, found.err
    assert {"retained_similarity", "retained_id", "retained_psnr"} <= failed(report)
    assert not {"match_seen", "match_unseen"} & failed(report)


def test_a_delta_that_only_works_for_the_photos_it_saw_fails(town: Path) -> None:
    two = ("--max-photos", "2", "--method", "variance", "--set", "locate.interchange_pairs=0", "-o", "two.pt")
    assert run_ireu("locate", *two, cwd=town).code == 0
    learn = (*IREU, "--steps", "150", "--set", "unlearn.batch=2", "-o", "seen.safetensors")
    assert run_ireu("unlearn", "--mask", "two.pt", *learn, cwd=town).code == 0
    found, report = verify(town, "seen.safetensors")
    assert found.code == 4, found.err
    assert "match_seen" not in failed(report)
    assert "match_unseen" in failed(report)
    assert "reidentified_unseen" in failed(report)


def test_a_delta_after_the_tap_fails_and_the_report_says_that_it_does_not_reach(town: Path) -> None:
    def late(_: Tensors) -> Tensors:
        weight = load_encoder(EncoderParams(source="portrait-mini"), "cpu").model.state_dict()[
            "visual_projection.weight"
        ]
        return {"visual_projection.weight": -2.0 * weight.float()}

    settings = {"pictures.generators": "B"}
    found, report = verify(town, plant(town, late, "late.safetensors"), **settings)
    assert found.code == 4, found.err
    assert "does not reach penultimate" in report["reason"]
    assert {"match_seen", "match_unseen", "delta_id"} <= failed(report)


@pytest.mark.parametrize("kind", ["constant", "nan"])
def test_a_recogniser_that_says_nothing_makes_the_run_inconclusive(town: Path, tmp_path: Path, kind: str) -> None:
    model = write_recogniser(tmp_path / "odd.onnx", kind)
    tables = json.dumps([{"name": "odd", "model": str(model)}])
    found, report = verify(town, plant(town, zeroed, "zero.safetensors"), judges__recognisers=tables)
    assert found.code == 5, found.err
    assert "tells_people_apart" in unmet(report)
    (calibration,) = [one for one in report["recognisers"] if one["recogniser"] == "odd"]
    assert not calibration["usable"]
    assert calibration["why_not"] in report["reason"]


def test_a_gallery_of_three_people_is_inconclusive(town: Path, tmp_path: Path) -> None:
    small = tmp_path / "demo"
    shutil.copytree(
        town, small, ignore=shutil.ignore_patterns("report-*", "others", ".ireu", "mask*", "*.safetensors*")
    )
    for person in sorted((town / "others").iterdir())[:6]:
        shutil.copytree(person, small / "others" / person.name)
    assert run_ireu("locate", "--method", "variance", "--set", "locate.interchange_pairs=0", cwd=small).code == 0
    assert run_ireu("unlearn", "--mask", "mask.pt", *IREU, "--steps", "1", cwd=small).code == 0
    found, report = verify(small, "delta.safetensors")
    assert found.code == 5, found.err
    assert {"gallery_people", "gallery_faces"} <= unmet(report)
    assert "and 20 is needed" in report["reason"]


def test_features_that_are_no_numbers_fail(town: Path) -> None:
    def huge(tensors: Tensors) -> Tensors:
        return {name: torch.full_like(tensor, 3e38) for name, tensor in tensors.items()}

    found, report = verify(town, plant(town, huge, "huge.safetensors"))
    assert found.code == 4, found.err
    assert "not finite" in report["reason"]


def test_a_generator_that_draws_grey_is_inconclusive(town: Path, tmp_path: Path) -> None:
    grey = tmp_path / "grey"
    shutil.copytree(embedded_folder(), grey, ignore=shutil.ignore_patterns("people", "*.md", "curves"))
    file = next((grey / "vae").glob("*.safetensors"))
    save_file({n: torch.zeros_like(t) if n.startswith("decoder") else t for n, t in load_file(file).items()}, file)
    zero = plant(town, zeroed, "zero.safetensors")
    sets = [part for key, value in FEW.items() for part in ("--set", f"{key}={value}")]
    found = run_ireu("verify", "--delta", zero, "--encoder", grey, "-o", "report-grey", "--json", *sets, cwd=town)
    assert found.code == 5, found.err
    assert "original_draws_faces" in unmet(found.json["report"])


def write_recogniser(path: Path, kind: str) -> Path:
    """An embedder that answers every face alike: the same vector, or no number."""
    vector = np.linspace(1, 2, 8, dtype=np.float32)[None] if kind == "constant" else np.full((1, 8), np.nan, np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["face"], ["grey"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["grey", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "axis"], ["column"]),
        helper.make_node("Add", ["column", "vector"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "odd",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 8])],
        [
            numpy_helper.from_array(np.array(0, np.float32), "zero"),
            numpy_helper.from_array(np.array([1], np.int64), "axis"),
            numpy_helper.from_array(vector, "vector"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
