"""Exports: loaded by the real consumers, edit present, everything else bit-identical, checked in the served dtype."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from ireu_cli.encoders.clip import load_encoder, read_tap, with_delta
from ireu_cli.encoders.files import fingerprint
from ireu_cli.exporting import layouts as export_files
from ireu_cli.exporting import run as workflow_export
from ireu_cli.exporting import transformer as export_transformer
from ireu_cli.params import EncoderParams
from ireu_cli.store.artifacts import read_delta, write_delta
from ireu_cli.store.manifests import manifest_path, read_manifest
from ireu_cli.support import stamps
from ireu_cli.values import WeightDelta
from tests.conftest import plant_manifest, run_ireu
from tests.tiny_generator import adapter_weights, draw, tiny_pipeline


def pixels() -> torch.Tensor:
    return torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_export_is_the_edited_encoder(job: Path) -> None:
    original = load_encoder(EncoderParams(source=str(job / "encoder")), "cpu")
    expected = with_delta(original, read_delta(job / "delta.safetensors"))
    model, info = CLIPVisionModelWithProjection.from_pretrained(job / "encoder-unlearned", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        found = model.eval()(pixels()).image_embeds
        assert torch.equal(found, read_tap(expected.model, pixels(), "image_embeds"))
        assert not torch.equal(found, read_tap(original.model, pixels(), "image_embeds"))
    assert set(load_file(job / "encoder-unlearned" / "model.safetensors")) == set(
        load_file(job / "encoder" / "model.safetensors")
    )


@pytest.mark.parametrize(("dtype", "expected"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
def test_export_in_the_served_dtype(fresh: Path, dtype: str, expected: torch.dtype) -> None:
    found = run_ireu(
        "export", "--allow-failed", "--delta", "delta.safetensors", "--dtype", dtype, "-o", dtype, "--json", cwd=fresh
    )
    assert found.code == 0, found.err
    state = load_file(fresh / dtype / "model.safetensors")
    assert {tensor.dtype for tensor in state.values()} == {expected}
    model = CLIPVisionModelWithProjection.from_pretrained(fresh / dtype, dtype="auto")
    assert model.dtype == expected
    metrics = found.json["metrics"]
    assert metrics["edit_kept_in_features"] > 0.8
    assert metrics["verified_again"]["outcome"] in {"pass", "fail"}


def test_what_is_not_edited_is_bit_identical(fresh: Path) -> None:
    arguments = ["unlearn", "--mask", "mask.pt", "--steps", "5", "--layers", "block:3", "-o", "d.safetensors"]
    assert run_ireu(*arguments, cwd=fresh).code == 0
    assert run_ireu("export", "--allow-failed", "--delta", "d.safetensors", "-o", "e", cwd=fresh).code == 0
    before, after = load_file(fresh / "encoder" / "model.safetensors"), load_file(fresh / "e" / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layers.3." in name for name in changed)
    assert (fresh / "e" / "preprocessor_config.json").read_bytes() == (
        fresh / "encoder" / "preprocessor_config.json"
    ).read_bytes()


def test_provenance_survives_a_later_save(job: Path, tmp_path: Path) -> None:
    own = json.loads((job / "encoder-unlearned" / "config.json").read_text())["ireu"]
    record = read_manifest(job / "encoder-unlearned" / "ireu.json")
    assert own["delta_manifest"] == record.parent == read_manifest(manifest_path(job / "delta.safetensors")).digest
    assert own["original_encoder"] == record.encoder.fingerprint
    assert (
        own["edited_encoder"] == load_encoder(EncoderParams(source=str(job / "encoder-unlearned")), "cpu").fingerprint
    )
    CLIPVisionModelWithProjection.from_pretrained(job / "encoder-unlearned").save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["ireu"] == own


def test_a_preprocessor_is_written_where_the_source_has_none(fresh: Path) -> None:
    (fresh / "encoder" / "preprocessor_config.json").unlink()
    for arguments in (
        ["locate", "-o", "m.pt"],
        ["unlearn", "--mask", "m.pt", "--steps", "3", "-o", "d.safetensors"],
        ["export", "--allow-failed", "--delta", "d.safetensors", "-o", "e"],
    ):
        assert run_ireu(*arguments, cwd=fresh).code == 0
    written = json.loads((fresh / "e" / "preprocessor_config.json").read_text())
    assert written["image_processor_type"] == "CLIPImageProcessor"
    picture = np.random.default_rng(0).integers(0, 256, (70, 60, 3), np.uint8)
    loaded = CLIPImageProcessorPil.from_pretrained(fresh / "e")(images=picture, return_tensors="pt")["pixel_values"]
    expected = load_encoder(EncoderParams(source=str(fresh / "encoder")), "cpu").pixels([picture])
    torch.testing.assert_close(loaded, expected, rtol=0, atol=0)


def plant(folder: Path, delta: dict[str, torch.Tensor]) -> None:
    """Replace the job's delta by another one, manifest included."""
    path = folder / "delta.safetensors"
    record = read_manifest(manifest_path(path))
    write_delta(path, WeightDelta(delta))
    plant_manifest(manifest_path(path), record, [path])


def refused(folder: Path, delta: dict[str, torch.Tensor], dtype: str, *, with_photos: bool) -> str:
    """What an export of another delta says that ends in an error and leaves nothing."""
    plant(folder, delta)
    (folder / "ireu.toml").write_text('[encoder]\nsource = "encoder"\n')
    where = ["--targets", "faces", "--retain", "others"] if with_photos else []
    found = run_ireu(
        "export", "--allow-failed", "--delta", "delta.safetensors", "--dtype", dtype, "-o", "e", *where, cwd=folder
    )
    assert found.code == 3
    assert not (folder / "e").exists()
    assert not list(folder.glob(".e.*"))
    return found.err


@pytest.mark.parametrize("with_photos", [True, False])
def test_an_edit_that_vanishes_in_the_served_dtype_is_an_error(fresh: Path, with_photos: bool) -> None:
    tiny = {name: 1e-7 * tensor.sign() for name, tensor in read_delta(fresh / "delta.safetensors").tensors.items()}
    assert "of the edit is left" in refused(fresh, tiny, "bfloat16", with_photos=with_photos)


@pytest.mark.parametrize("with_photos", [False, True])
def test_an_edit_beyond_the_largest_number_of_the_dtype_is_an_error(fresh: Path, with_photos: bool) -> None:
    """Infinite weights leave nothing to compare: what is no number must not pass for enough."""
    large = {name: tensor.clone() for name, tensor in read_delta(fresh / "delta.safetensors").tensors.items()}
    next(iter(large.values())).view(-1)[0] = 1e6
    assert "exceeds the largest number" in refused(fresh, large, "float16", with_photos=with_photos)


def refused_without_photos(folder: Path, words: str) -> None:
    """Export where no run folder knows of photos: it is refused with these words, and leaves nothing."""
    given = (
        "export",
        "--allow-failed",
        "--delta",
        "delta.safetensors",
        "--encoder",
        "encoder",
        "--run-dir",
        "elsewhere",
        "-o",
        "out",
    )
    found = run_ireu(*given, cwd=folder)
    assert found.code == 3
    assert words in found.err
    assert not (folder / "out").exists()


def test_weights_that_change_while_they_are_copied_are_found_out(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody puts another file in place after the fingerprint was taken: the copy would be of that one."""
    (fresh / "ireu.toml").unlink()
    state = load_file(fresh / "encoder" / "model.safetensors")
    state["visual_projection.weight"][0, 0] += 1
    own = export_files.write_weights

    def late(*given: Any) -> Any:
        save_file(state, fresh / "encoder" / "model.safetensors", {"format": "pt"})
        return own(*given)

    wait = fingerprint.prints_by
    done = threading.Event()

    def first(*given: Any) -> Any:
        found = wait(*given)
        done.set()
        return found

    def after(*given: Any) -> Any:
        assert done.wait(60)
        return late(*given)

    monkeypatch.setattr(export_transformer, "prints_by", first)
    monkeypatch.setattr(export_transformer, "write_weights", after)
    refused_without_photos(fresh, "changed during the export")


def test_weights_that_change_while_their_digest_is_taken_are_found_out(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of a copy is taken from the original, and may be the last that is ready."""
    (fresh / "ireu.toml").unlink()

    def late(*_: Any) -> None:
        (fresh / "encoder" / "model.safetensors").touch()

    monkeypatch.setattr(workflow_export, "write_told", late)
    refused_without_photos(fresh, "changed during the export")


def test_a_disk_that_fails_beside_the_checks_is_an_error(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is told once, to whom waits for it first."""
    (fresh / "ireu.toml").unlink()

    def broken(*_: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(export_transformer, "flush", broken)
    refused_without_photos(fresh, "Input/output error")


def test_an_original_is_read_for_its_prints_once(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "ireu.toml").unlink()
    monkeypatch.setattr(stamps, "_SETTLED", 0)
    asked: list[int] = []
    own = fingerprint.prints_by

    def noted(names: Any, *given: Any) -> Any:
        asked.append(len(list(names)))
        return own(names, *given)

    monkeypatch.setattr(export_transformer, "prints_by", noted)
    given = (
        "export",
        "--allow-failed",
        "--delta",
        "delta.safetensors",
        "--encoder",
        "encoder",
        "--run-dir",
        "elsewhere",
        "-o",
    )
    assert [run_ireu(*given, name, cwd=fresh).code for name in ("first", "second")] == [0, 0]
    edited, whole = (
        len(read_delta(fresh / "delta.safetensors").tensors),
        len(load_file(fresh / "first" / "model.safetensors")),
    )
    assert edited < whole
    assert sorted(asked) == [edited, edited, whole]
    assert (fresh / "first" / "model.safetensors").read_bytes() == (fresh / "second" / "model.safetensors").read_bytes()


def test_an_interrupted_export_does_not_read_on(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (fresh / "ireu.toml").unlink()
    read: list[str] = []
    own = fingerprint.print_of

    def slow(tensor: torch.Tensor) -> Any:
        read.append("")
        time.sleep(0.05)
        return own(tensor)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(fingerprint, "print_of", slow)
    monkeypatch.setattr(export_transformer, "write_weights", interrupted)
    given = (
        "export",
        "--allow-failed",
        "--delta",
        "delta.safetensors",
        "--encoder",
        "encoder",
        "--run-dir",
        "elsewhere",
        "-o",
        "out",
    )
    assert run_ireu(*given, cwd=fresh).code == 130
    assert len(read) < len(load_file(fresh / "encoder" / "model.safetensors")) / 2
    assert not (fresh / "out").exists()


def test_another_encoder_is_not_noted_for_an_export_that_is_there(fresh: Path) -> None:
    (fresh / "ireu.toml").unlink()
    given = (
        "export",
        "--allow-failed",
        "--delta",
        "delta.safetensors",
        "--run-dir",
        "elsewhere",
        "-o",
        "out",
        "--encoder",
    )
    assert run_ireu(*given, "encoder", cwd=fresh).code == 0
    other = fresh / "other"
    shutil.copytree(fresh / "encoder", other)
    state = load_file(other / "model.safetensors")
    state["visual_projection.weight"][0, 0] += 1
    save_file(state, other / "model.safetensors", {"format": "pt"})
    places = [path.read_bytes() for path in sorted((fresh / "elsewhere").rglob("*.json"))]
    assert run_ireu(*given, "other", cwd=fresh).code == 3
    assert [path.read_bytes() for path in sorted((fresh / "elsewhere").rglob("*.json"))] == places


def test_without_photos_the_record_says_what_was_not_checked(fresh: Path) -> None:
    plant(fresh, read_delta(fresh / "delta.safetensors").tensors | {"visual_projection.weight": torch.zeros(96, 96)})
    (fresh / "ireu.toml").write_text('[encoder]\nsource = "encoder"\n')
    found = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "e", "--json", cwd=fresh)
    assert found.code == 0
    assert found.json["metrics"]["verified_again"] is None
    assert "the photos are not available" in found.err


def test_a_tampered_export_is_noticed(fresh: Path) -> None:
    weights = fresh / "encoder-unlearned" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-5] ^= 1
    weights.write_bytes(data)
    found = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", cwd=fresh)
    assert found.code == 3
    assert "have changed since" in found.err


def test_exports_hold_full_weights_and_no_delta(job: Path) -> None:
    names = sorted(path.name for path in (job / "encoder-unlearned").iterdir())
    assert names == ["README.md", "config.json", "ireu.json", "model.safetensors", "preprocessor_config.json"]


_TRANSFORMERS_4 = """
import json, sys, torch, transformers
from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection
assert transformers.__version__.startswith("4."), transformers.__version__
model, info = CLIPVisionModelWithProjection.from_pretrained(sys.argv[1], output_loading_info=True, torch_dtype="auto")
CLIPImageProcessor.from_pretrained(sys.argv[1])
pixels = torch.randn(3, 3, 56, 56, generator=torch.Generator().manual_seed(0)).to(model.dtype)
with torch.no_grad():
    out = model.eval()(pixels).image_embeds.float()
print(json.dumps({"missing": sorted(info["missing_keys"]), "dtype": str(model.dtype), "out": out.tolist()}))
"""


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_exports_load_in_transformers_4(fresh: Path, dtype: str) -> None:
    place = os.environ.get("TEST_TRANSFORMERS4")
    if not place:
        pytest.skip("TEST_TRANSFORMERS4 is not set: a folder with transformers 4.57, from pip install --target")
    assert (
        run_ireu(
            "export", "--allow-failed", "--delta", "delta.safetensors", "--dtype", dtype, "-o", "e", cwd=fresh
        ).code
        == 0
    )
    command = [sys.executable, "-W", "ignore", "-c", _TRANSFORMERS_4, str(fresh / "e")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": place})
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["missing"] == []
    assert found["dtype"] == f"torch.{dtype}"
    with torch.no_grad():
        expected = CLIPVisionModelWithProjection.from_pretrained(fresh / "e").eval().float()(pixels()).image_embeds
    torch.testing.assert_close(
        torch.tensor(found["out"]), expected, rtol=0.05, atol=0.05 if dtype == "float16" else 1e-4
    )


def pictures(pipeline: Any, photo: Image.Image) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(draw(pipeline, photo))


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_a_generator_takes_the_export_in_place_of_the_original(job: Path, tmp_path: Path, kind: str) -> None:
    """The two swap routes of diffusers: setting the encoder, and loading it with `load_ip_adapter` from a folder."""
    photo = Image.open(next((job / "faces").rglob("*.png"))).convert("RGB")
    pipeline = tiny_pipeline()
    save_file(adapter_weights(pipeline.unet, kind, hidden=96, projection=96), tmp_path / "adapter.safetensors")
    for name in ("encoder", "encoder-unlearned"):
        (tmp_path / name).symlink_to(job / name)

    def loaded(folder: str) -> Any:
        pipe = tiny_pipeline()
        pipe.feature_extractor = CLIPImageProcessorPil.from_pretrained(job / "encoder")
        pipe.load_ip_adapter(
            str(tmp_path), subfolder="", weight_name="adapter.safetensors", image_encoder_folder=folder
        )
        return pipe

    original, edited = loaded("encoder"), loaded("encoder-unlearned")
    before, after = pictures(original, photo), pictures(edited, photo)
    assert not np.array_equal(before, after)
    original.image_encoder = CLIPVisionModelWithProjection.from_pretrained(job / "encoder-unlearned")
    assert np.array_equal(pictures(original, photo), after)
    # The trap: unloading and loading again brings the original back.
    original.unload_ip_adapter()
    original.load_ip_adapter(
        str(tmp_path), subfolder="", weight_name="adapter.safetensors", image_encoder_folder="encoder"
    )
    assert np.array_equal(pictures(original, photo), before)


@pytest.mark.parametrize(("spoil", "words"), [(1e-3, "has fingerprint"), (float("nan"), "not finite numbers")])
def test_another_encoder_is_found_while_it_is_copied(fresh: Path, spoil: float, words: str) -> None:
    """Without photos the weights stay in their file, and are read beside the copy; nothing takes its place then."""
    other = fresh / "other"
    (other).mkdir()
    for path in (fresh / "encoder").iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    state = load_file(other / "model.safetensors")
    state["visual_projection.weight"][0, 0] += spoil
    save_file(state, other / "model.safetensors", {"format": "pt"})
    given = (
        "export",
        "--allow-failed",
        "--delta",
        "delta.safetensors",
        "--encoder",
        "other",
        "--run-dir",
        "elsewhere",
        "-o",
        "out",
    )
    (fresh / "ireu.toml").unlink()
    found = run_ireu(*given, cwd=fresh)
    assert found.code == 3
    assert words in found.err
    assert not (fresh / "out").exists()
    assert not list(fresh.glob(".out*"))


def test_the_manifest_tells_the_digest_of_a_copy(fresh: Path) -> None:
    (fresh / "ireu.toml").unlink()
    given = (
        "export",
        "--allow-failed",
        "--delta",
        "delta.safetensors",
        "--encoder",
        "encoder",
        "--run-dir",
        "elsewhere",
        "-o",
        "out",
    )
    assert run_ireu(*given, cwd=fresh).code == 0
    told = {record.name: record.sha256 for record in read_manifest(fresh / "out" / "ireu.json").outputs}
    for name, sha256 in told.items():
        assert hashlib.sha256((fresh / "out" / name).read_bytes()).hexdigest() == sha256
    assert "model.safetensors" in told
