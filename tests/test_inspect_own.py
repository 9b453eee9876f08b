"""`ireu inspect` on what ireu itself wrote."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.exporting.model_card import Told, write_card
from ireu_cli.inspecting.run import inspect_encoder
from ireu_cli.manifest import EncoderRecord, Manifest, PersonRecord
from ireu_cli.store.manifests import manifest_path, read_manifest, write_manifest
from tests.conftest import run_ireu

ENCODER = EncoderRecord(fingerprint="ab" * 32, architecture="clip-vit", tap="pooled", layers=3)


def record(step: Any, **more: Any) -> Manifest:
    people = (PersonRecord(number=1, photos=("cd" * 32,)),)
    return Manifest(
        step=step, state="running", tool_version="1.0", identity="12" * 32, seed=0, parameters={}, encoder=ENCODER,
        targets=people, retain=people * 2, **more,
    )  # fmt: skip


@pytest.mark.parametrize(("step", "name"), [("locate", "mask.pt"), ("unlearn", "delta.safetensors")])
def test_a_mask_and_a_delta(tmp_path: Path, step: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"values")
    write_manifest(manifest_path(path), record(step), [path])
    for source in (path, manifest_path(path)):
        told = inspect_encoder(str(source))
        assert told["step"] == step
        assert told["kind"].endswith(f"written by `ireu {step}`")
        assert told["files"] == {name: "as recorded"}
        assert told["people"] == "1 to unlearn, 2 retained"
        assert "do not publish" in told["note"]
        assert "cd" * 32 not in json.dumps(told)
    path.write_bytes(b"valueS")
    assert inspect_encoder(str(path))["files"] == {name: "changed since"}
    shown = run_ireu("inspect", path)
    assert shown.code == 0
    assert f"{name}: changed since" in shown.out
    path.unlink()
    assert inspect_encoder(str(manifest_path(path)))["files"] == {name: "missing"}
    manifest_path(path).write_text(manifest_path(path).read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ArtifactError, match="was changed after it was written"):
        inspect_encoder(str(manifest_path(path)))


def test_a_delta_of_requests_says_how_many_places_are_left(tmp_path: Path) -> None:
    path = tmp_path / "delta.safetensors"
    path.write_bytes(b"values")
    places = {"places": {"taken": 3, "all": 50}, "false_alarm_rate_each": 0.001}
    write_manifest(manifest_path(path), record("unlearn", metrics=places), [path])
    assert inspect_encoder(str(path))["places"] == "3 of 50 taken; each may change 0.10% of other people's photos"
    # Whatever a record says that somebody else wrote.
    for strange in ({}, {"places": 7}, {"places": {"taken": "3"}}, places | {"false_alarm_rate_each": None}):
        write_manifest(manifest_path(path), record("unlearn", metrics=strange), [path])
        assert "places" not in inspect_encoder(str(path))


@pytest.mark.parametrize("name", [os.fsdecode(b"M\xfcller.pt"), "a:b.pt", "a\\b.pt", "~a.pt", "a\nb.pt"])
def test_results_of_any_name_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"values")
    write_manifest(manifest_path(path), record("locate"), [path])
    assert read_manifest(manifest_path(path)).step == "locate"
    assert list(inspect_encoder(str(path))["files"].values()) == ["as recorded"]
    path.write_bytes(b"valueS")
    assert list(inspect_encoder(str(path))["files"].values()) == ["changed since"]
    with pytest.raises(ArtifactError, match="does not match its manifest"):
        read_manifest(manifest_path(path))


def test_a_report_of_many_pictures_is_told_in_few_lines(tmp_path: Path) -> None:
    files = [tmp_path / f"{number:03}.png" for number in range(300)]
    for file in files:
        file.write_bytes(b"x")
    write_manifest(tmp_path / "manifest.json", record("verify"), files)
    files[299].write_bytes(b"y")
    told = inspect_encoder(str(tmp_path))
    assert told["kind"].startswith("report")
    assert len(told["files"]) == 21
    assert next(iter(told["files"].items())) == ("299.png", "changed since")
    assert told["files"]["and 280 more"] == "as recorded"


def test_an_export_is_an_encoder_too(tiny_folder: Path) -> None:
    files = sorted(tiny_folder.iterdir())
    write_manifest(tiny_folder / "ireu.json", record("export"), files)
    for source in (tiny_folder, tiny_folder / "model.safetensors"):
        told = inspect_encoder(str(source))
        assert told["kind"] == "CLIP vision transformer"
        assert told["ireu"]["step"] == "export"
        assert told["files"] == dict.fromkeys((file.name for file in files), "as recorded")
    shown = run_ireu("inspect", tiny_folder)
    assert "written by `ireu export`" in shown.out


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "\x1b[2J"])
def test_records_that_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    path = tmp_path / "in" / "mask.pt"
    path.parent.mkdir()
    path.write_bytes(b"x")
    sealed = write_manifest(manifest_path(path), record("locate"), [path])
    other = sealed.model_copy(update={"outputs": (sealed.outputs[0].model_copy(update={"name": name}),)}).sealed()
    manifest_path(path).write_text(other.text())
    shown = run_ireu("inspect", path, "--json")
    assert shown.code in {0, 3}
    assert "as recorded" not in shown.out
    assert (shown.out + shown.err).replace("\n", "").isprintable()
    with pytest.raises(ArtifactError) as refused:
        read_manifest(manifest_path(path))
    assert "secret" not in str(refused.value)


def test_no_licence_from_elsewhere_comes_into_an_export(tmp_path: Path) -> None:
    for folder in ("source", "out"):
        (tmp_path / folder).mkdir()
    (tmp_path / "secret").write_text("private")
    (tmp_path / "source" / "LICENSE").symlink_to("../secret")
    with pytest.raises(ModelError, match="LICENSE beside the encoder is a link that leads out"):
        write_card(tmp_path / "out", tmp_path / "source", Told("transformers", None, None, None, None, "float32", ()))
    assert not (tmp_path / "out" / "LICENSE").exists()
