"""A kind of somebody else's joins from one file, without a change of ours."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.layouts import table
from ireu_cli.layouts.layout import Layout
from ireu_cli.store.artifacts import read_delta
from tests.conftest import Run, run_ireu

ROOT = Path(__file__).parent.parent


def run_with(kind: str, *arguments: str, cwd: Path) -> Run:
    """Run `ireu` in a process of its own, in which the kind has joined."""
    command = [sys.executable, "-m", "tests.kinds.run", kind, *arguments]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    return Run(done.returncode, done.stdout, done.stderr)


def done(kind: str, *arguments: str, cwd: Path, codes: tuple[int, ...] = (0,)) -> Run:
    """The same, which has to end with one of some codes."""
    found = run_with(kind, *arguments, cwd=cwd)
    assert found.code in codes, found.err
    return found


def test_a_method(fresh: Path) -> None:
    done("toy_method", "locate", "-o", "m.pt", cwd=fresh)
    unlearned = done("toy_method", "unlearn", "--mask", "m.pt", "--method", "shrink", "-o", "d.safetensors", cwd=fresh)
    assert "The edit changes" in unlearned.err
    done("toy_method", "verify", "--delta", "d.safetensors", "-o", "r", cwd=fresh, codes=(0, 4, 5))
    done("toy_method", "export", "--delta", "d.safetensors", "--report", "r", "--allow-failed", "-o", "e", cwd=fresh)
    manifest = json.loads((fresh / "d.safetensors.json").read_text())
    assert manifest["parameters"]["unlearn"]["method"] == "shrink"
    assert manifest["metrics"]["shrunk"] == len(read_delta(fresh / "d.safetensors").tensors) > 1
    onto = run_with(
        "toy_method", "unlearn", "--mask", "m.pt", "--method", "shrink", "--onto", "d.safetensors", cwd=fresh
    )
    assert "The method shrink cannot add to an earlier delta" in onto.err


def test_a_method_that_nobody_brought_is_refused(fresh: Path) -> None:
    found = run_ireu("unlearn", "--mask", "mask.pt", "--method", "shrink", "-o", "d.safetensors", cwd=fresh)
    assert found.code == 3
    assert "'ireu', 'global', 'gated' or 'block'" in found.err


@pytest.mark.parametrize("name", ["turn", "turn-inside"])
def test_an_attack(name: str, fresh: Path) -> None:
    done(
        "toy_attack", "verify", "--delta", "delta.safetensors", "-o", "r", "--set", f"attacks.suite={name}", cwd=fresh,
        codes=(0, 4, 5),
    )  # fmt: skip
    report = json.loads((fresh / "r" / "report.json").read_text())
    shown = {figure["attack"] for figure in report["figures"]} - {None, "none"}
    assert shown == {f"{name}-1", f"{name}-16"}
    assert all(report["definitions"][attack]["text"] == "Features are turned round." for attack in shown)
    judged = [one["meaning"] for one in report["criteria"] if one["name"] == "attacks"]
    if name == "turn":
        assert report["unjudged"] == []
        assert len(judged) == 1
        assert "turn-" in judged[0]
    else:
        assert set(report["unjudged"]) == shown
        assert judged == []
    page = (fresh / "r" / "report.html").read_text()
    assert f"{name}-16" in page
    assert ("reported, not judged" in page) == (name == "turn-inside")


TOY = "encoder.toy.safetensors"
"""A file of the toy family."""


def write_toy(folder: Path) -> None:
    """Write an encoder of the toy family, in a process of its own: this one is not to know the family."""
    code = f"from pathlib import Path; from tests.kinds.toy_family import write_toy; write_toy(Path({TOY!r}))"
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, env=os.environ | {"PYTHONPATH": path})


@pytest.fixture(scope="module")
def toy(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job with an encoder of the toy family, located and unlearned; tests must not change it."""
    folder = tmp_path_factory.mktemp("toy") / "demo"
    shutil.copytree(samples, folder)
    write_toy(folder)
    done("toy_family", "locate", "--encoder", TOY, "--tap", "toy_embeds", "-o", "m.pt", cwd=folder)
    unlearned = done(
        "toy_family", "unlearn", "--mask", "m.pt", "--method", "ireu", "--layers", "head", "--steps", "20", "--set",
        "unlearn.learning_rate=1e-3", "-o", "d.safetensors", cwd=folder,
    )  # fmt: skip
    assert "The edit changes toy_embeds. It does NOT reach toy_map" in unlearned.err
    return folder


def test_a_family_of_encoders(toy: Path, tmp_path: Path) -> None:
    delta = read_delta(toy / "d.safetensors")
    assert set(delta.tensors) == {"head.weight", "head.bias"}
    report, export = tmp_path / "r", tmp_path / "e"
    done(
        "toy_family", "verify", "--delta", "d.safetensors", "-o", str(report), "--set",
        "attacks.suite=flip,pgd,pgd-detector,relearn", cwd=toy, codes=(0, 4, 5),
    )  # fmt: skip
    told = json.loads((report / "report.json").read_text())
    attacks = {figure["attack"].partition("-")[0] for figure in told["figures"] if figure["attack"]}
    assert attacks == {"none", "flip", "pgd", "relearn"}
    done(
        "toy_family", "export", "--delta", "d.safetensors", "--report", str(report), "--allow-failed", "-o",
        str(export), cwd=toy,
    )  # fmt: skip
    original, edited = load_file(toy / TOY), load_file(export / TOY)
    for name, tensor in original.items():
        assert torch.equal(edited[name], tensor + delta.tensors[name] if name in delta.tensors else tensor), name
    assert not torch.equal(edited["head.weight"], original["head.weight"])
    record = json.loads((export / "ireu.json").read_text())
    assert record["metrics"]["verified_again"] is not None
    assert record["metrics"]["taps_reached"] == ["toy_embeds"]
    assert "library_name: toys" in (export / "README.md").read_text()
    shown = json.loads(done("toy_family", "inspect", str(export), "--json", cwd=toy).out)
    assert shown["kind"] == "toy network"
    assert shown["edit_sites"] == {"patches": ["toy_map", "toy_embeds"], "head": ["toy_embeds"]}
    assert shown["fingerprint"] == record["metrics"]["edited_encoder"] != record["encoder"]["fingerprint"]


def test_a_method_of_somebody_on_a_family_of_somebody(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "d.safetensors"
    done("toy_method,toy_family", "unlearn", "--mask", "m.pt", "--method", "shrink", "-o", str(out), cwd=toy)
    original = load_file(toy / TOY)
    assert set(read_delta(out).tensors) == set(original)
    for name, change in read_delta(out).tensors.items():
        assert torch.equal(change, original[name] * -0.01)


REFUSED = (
    (("unlearn", "--mask", "m.pt", "--method", "block"), "needs the blocks of a vision transformer, which a toy net"),
    (("unlearn", "--mask", "m.pt", "--method", "gated"), "The method gated does not support toy 32 px to 24"),
    (("unlearn", "--mask", "m.pt", "--layers", "trunk"), "A toy network has no part trunk. Use all, patches, head"),
    (("locate", "--encoder", TOY, "--tap", "pooled"), "A toy network has no tap pooled. Use --tap toy_map or --tap"),
    (("locate", "--encoder", "encoder", "--tap", "toy_map"), "encoder is not a .toy.safetensors file. Name a .toy"),
    (("export", "--delta", "d.safetensors", "--format", "onnx"), "cannot be exported as onnx. Leave out the format"),
    (("export", "--delta", "d.safetensors", "--dtype", "float16"), "A toy network is exported in the precision that"),
)


@pytest.mark.parametrize(
    ("arguments", "said"), REFUSED, ids=lambda value: value[-1] if isinstance(value, tuple) else ""
)
def test_what_a_family_does_not_offer_is_refused(arguments: tuple[str, ...], said: str, toy: Path) -> None:
    found = run_with("toy_family", *arguments, "-o", "never", cwd=toy)
    assert found.code != 0
    assert said in found.err
    assert not (toy / "never").exists()


def test_a_family_that_nobody_brought_is_refused(toy: Path, tmp_path: Path) -> None:
    tap = run_ireu("locate", "--encoder", TOY, "--tap", "toy_embeds", "-o", tmp_path / "m.pt", cwd=toy)
    assert tap.code == 3
    assert "encoder.tap (flag): input should be 'pooled', 'image_embeds', 'penultimate'" in tap.err
    source = run_ireu("locate", "--encoder", TOY, "--tap", "pooled", "-o", tmp_path / "m.pt", cwd=toy)
    assert source.code == 3
    assert f"{TOY} holds no vision transformer of CLIP, SigLIP or EVA02-CLIP" in source.err
    assert run_ireu("inspect", TOY, cwd=toy).code == 3


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layouts of `tests.kinds.toy_layout` have joined, until the test is over."""
    monkeypatch.setattr(table, "_LAYOUTS", [*table._LAYOUTS])
    monkeypatch.delitem(sys.modules, "tests.kinds.toy_layout", raising=False)
    importlib.import_module("tests.kinds.toy_layout")


def lay_out(samples: Path, job: Path, file: str, name: Callable[[str], str]) -> str:
    """Write a job on a few drawn people, and portrait-mini's encoder under other names; returns where it lies."""
    shutil.copytree(samples, job)
    for person in sorted((job / "others").iterdir())[8:]:
        shutil.rmtree(person)
    shutil.copytree(embedded_folder() / "image_encoder", job / "shelf")
    own = job / "shelf" / "model.safetensors"
    save_file({name(key): tensor for key, tensor in load_file(own).items()}, job / "shelf" / file)
    own.unlink()
    return str(job / "shelf" / file)


def as_edited(job: Path) -> dict[str, Tensor]:
    """Portrait-mini's weights with the delta of a job in them."""
    delta = read_delta(job / "delta.safetensors").tensors
    assert any(bool(change.any()) for change in delta.values())
    state = load_file(embedded_folder() / "image_encoder" / "model.safetensors")
    return {
        name: (tensor.float() + delta[name]).to(tensor.dtype) if name in delta else tensor
        for name, tensor in state.items()
    }


@pytest.mark.usefixtures("joined")
def test_a_layout(samples: Path, tmp_path: Path) -> None:
    job, toy = tmp_path / "demo", table.layout_named("toy")
    shelf, own = lay_out(samples, job, toy.file, toy.name_there), str(embedded_folder() / "image_encoder")
    for command in (
        ("locate", "--encoder", shelf),
        ("unlearn", "--mask", "mask.pt", "--steps", "2"),
        ("verify", "--delta", "delta.safetensors", "--set", "attacks.suite=none"),
    ):
        found = run_ireu(*command, cwd=job)
        assert found.code in {0, 4, 5}, found.err
    expected = as_edited(job)
    for name, source in (("toy", shelf), ("toy", own), ("toy-folder", shelf), ("clip-folder", shelf)):
        out, layout = job / f"{name} of {Path(source).name}", table.layout_named(name)
        asked = ("--format", name, "--encoder", source, "--allow-failed", "-o", out)
        found = run_ireu("export", "--delta", "delta.safetensors", *asked, cwd=job)
        assert found.code == 0, found.err
        # The first of them was loaded and tried on photos.
        (job / "ireu.toml").unlink(missing_ok=True)
        (file,) = out.glob("*.safetensors")
        assert file.name == layout.file
        state = load_file(file)
        assert {*state} == {layout.name_there(tensor) for tensor in expected}
        assert all(torch.equal(state[layout.name_there(tensor)], expected[tensor]) for tensor in expected)
        assert f"library_name: {layout.library}" in (out / "README.md").read_text()
        card = run_ireu("inspect", out if layout.in_folder else file, "--json", cwd=job).json
        told = json.loads((out / "ireu.json").read_text())
        assert (card["layout"], card["fingerprint"]) == (name, told["metrics"]["edited_encoder"])
    alone = job / f"toy-folder of {toy.file}" / table.layout_named("toy-folder").file
    assert "holds no vision transformer" in run_ireu("inspect", alone, cwd=job).err


def test_a_layout_that_nobody_brought_is_refused(fresh: Path, tmp_path: Path) -> None:
    names = table.layout_names()
    assert "toy" not in names
    found = run_ireu("export", "--delta", "delta.safetensors", "--format", "toy", "-o", "toy", cwd=fresh)
    assert found.code == 3
    assert f"{', '.join(map(repr, ['auto', *names[:-1]]))} or {names[-1]!r}" in found.err
    source = lay_out(fresh, tmp_path / "other", "toy-encoder.safetensors", lambda name: f"toy.{name}")
    found = run_ireu("locate", "--encoder", source, "-o", "mask.pt", "--force", cwd=fresh)
    assert found.code == 3
    assert "below a prefix that no generator uses: toy." in found.err
    found = run_ireu("inspect", Path(source).parent, cwd=fresh)
    assert "under names that no loader looks for: toy-encoder.safetensors" in found.err


def test_a_layout_is_named_where_layouts_are(fresh: Path) -> None:
    for command in (["export", "--help"], ["export", "--delta", "delta.safetensors", "--format", "no"]):
        found = run_with("toy_layout", *command, cwd=fresh)
        # Without spaces, because lines may break at a hyphen.
        said = "".join((found.out + found.err).replace("'", "").split())
        assert ",".join(table.layout_names()[:-1]) in said
        assert "toy" in said.partition("insightface-pack")[2]


@pytest.mark.parametrize("name", ["auto", "onnx"])
def test_two_layouts_of_one_name_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"called {name} already"):
        table.register(Layout(name, frozenset(), in_folder=False, library="x"))
