"""Exports in every layout: the edit is in them, everything else keeps every bit, and their consumers load them."""

import hashlib
import json
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

from ireu_cli.encoders.clip import load_encoder, with_delta
from ireu_cli.encoders.files.checkpoint import open_checkpoint
from ireu_cli.encoders.files.fingerprint import prints_by
from ireu_cli.encoders.files.tensor_file import open_file
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.exporting.layouts import (
    Edit,
    copied_digests,
    layout_for,
    served_dtype,
    write_beside,
    write_weights,
    written_dtype,
)
from ireu_cli.exporting.rounding import kept_in_weights
from ireu_cli.params import Dtype, EncoderParams
from ireu_cli.store.weights import write_tensors_one_by_one
from ireu_cli.values import WeightDelta
from tests.tiny_layouts import KINDS, LAYOUTS, write_layout

EDITED = "vision_model.encoder.layers.1.mlp.fc2.weight"
UNTOUCHED = "vision_model.encoder.layers.0.mlp.fc1.bias"


def a_delta() -> WeightDelta:
    change = torch.randn(16, 32, generator=torch.Generator().manual_seed(3))
    return WeightDelta({EDITED: change, UNTOUCHED: torch.zeros(32)})


def export(source: Path, out: Path, wanted: str = "auto", dtype: Any = "auto") -> Path:
    checkpoint = open_checkpoint(source)
    encoder = load_encoder(EncoderParams(source=str(source)), "cpu")
    edit = Edit(checkpoint, a_delta(), layout_for(wanted, checkpoint), dtype, ())
    out.mkdir()
    written = write_weights(edit, encoder, out)
    write_beside(edit, encoder, out, {"edited": "yes"})
    return written.place


@pytest.mark.parametrize(("name", "dtype", "spoiled"), [
    ("folder", "auto", EDITED), ("file", "auto", EDITED), ("folder", "float16", UNTOUCHED),
    ("archive", "auto", UNTOUCHED),
])  # fmt: skip
def test_what_is_read_back_has_to_be_what_was_written(
    name: str, dtype: Any, spoiled: str, tiny_folder: Path, tmp_path: Path
) -> None:
    source = write_layout(name, tiny_folder, tmp_path / "place")
    checkpoint = open_checkpoint(source)
    encoder = load_encoder(EncoderParams(source=str(source)), "cpu")
    edit = Edit(checkpoint, a_delta(), layout_for("auto", checkpoint), dtype, ())
    (tmp_path / "out").mkdir()
    written = write_weights(edit, encoder, tmp_path / "out")
    names = [*encoder.model.state_dict()]
    expected = prints_by(names, edit.tensor)
    new = {key for key in names if edit.touches(key)}
    assert written.holds(expected, new)
    path = open_checkpoint(written.place).parts[0].path
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    state = {key: tensor.clone() for key, tensor in state.items()}
    state[spoiled].view(-1)[0] += 1
    if path.suffix == ".safetensors":
        save_file(state, path, {"format": "pt"})
    else:
        torch.save(state, path)
    assert not written.holds(expected, new)
    del state[spoiled]
    path.unlink()
    if path.suffix == ".safetensors":
        save_file(state, path, {"format": "pt"})
    else:
        torch.save(state, path)
    assert not written.holds(expected, new)


def tensors_in(source: Path) -> dict[str, Tensor]:
    """Every tensor of the files of a source, under the names of the files."""
    return {name: file[name] for file in open_checkpoint(source).parts for name in file}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_edit_is_there_and_everything_else_keeps_every_bit(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout(name, tiny_folder, tmp_path / "place")
    place = export(source, tmp_path / "out")
    before, after = tensors_in(source), tensors_in(place)
    if name != "folder of an archive":
        assert [*after] == [*before]
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {open_checkpoint(source).places[EDITED][1]}
    assert all(after[key].dtype == before[key].dtype for key in before)
    encoder = load_encoder(EncoderParams(source=str(source)), "cpu")
    expected = with_delta(encoder, a_delta())
    assert load_encoder(EncoderParams(source=str(place)), "cpu").fingerprint == expected.fingerprint
    assert open_checkpoint(place).layout.name == KINDS[name]


@pytest.mark.parametrize("name", ["folder", "file", "photomaker safetensors"])
def test_a_mapped_file_is_copied_but_for_the_edit(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout(name, tiny_folder, tmp_path / "place")
    place = export(source, tmp_path / "out")
    first, second = (open_checkpoint(path).parts[0].path.read_bytes() for path in (source, place))
    different = [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]
    assert 0 < len(different) <= 4 * 16 * 32
    assert different[-1] - different[0] < 4 * 16 * 32


@pytest.mark.parametrize("name", ["folder", "folder in shards", "photomaker safetensors"])
def test_the_digest_of_a_copy_is_told_from_its_original(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_layout(name, tiny_folder, tmp_path / "place"))
    encoder = load_encoder(EncoderParams(source=str(checkpoint.source)), "cpu")
    edit = Edit(checkpoint, a_delta(), layout_for("auto", checkpoint), "auto", ())
    digests = copied_digests(edit, tmp_path / "out", lambda: False)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    written = write_weights(edit, encoder, tmp_path / "out")
    assert {*written.copies} == {part.path for part in open_checkpoint(written.place).parts} == {*digests}
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == digest for path, digest in digests.items())
    with pytest.raises(CancelledError):
        copied_digests(edit, tmp_path / "out", lambda: True)


@pytest.mark.parametrize(("name", "dtype"), [("folder", "float16"), ("photomaker v1", "auto"), ("archive", "auto")])
def test_what_is_not_copied_has_no_digest_before(name: str, dtype: Any, tiny_folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_layout(name, tiny_folder, tmp_path / "place"))
    edit = Edit(checkpoint, a_delta(), layout_for("auto", checkpoint), dtype, ())
    assert not copied_digests(edit, tmp_path / "out", lambda: False)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["folder", "photomaker v1", "photomaker safetensors", "file of a whole CLIP"])
def test_the_encoder_alone_changes_its_dtype(name: str, dtype: Dtype, tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout(name, tiny_folder, tmp_path / "place")
    place = export(source, tmp_path / "out", dtype=dtype)
    before, after = tensors_in(source), tensors_in(place)
    assert set(before) == set(after)
    own = {key for _, key in open_checkpoint(place).places.values()}
    for key, tensor in after.items():
        assert tensor.dtype == (getattr(torch, dtype) if key in own else before[key].dtype)
        assert key in own or torch.equal(tensor, before[key])
    encoder = load_encoder(EncoderParams(source=str(source)), "cpu")
    expected = with_delta(encoder, a_delta(), dtype)
    assert load_encoder(EncoderParams(source=str(place), dtype=dtype), "cpu").fingerprint == expected.fingerprint
    assert served_dtype("auto", open_checkpoint(place)) == dtype


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_an_edit_adds_up_in_single_precision(dtype: torch.dtype, tiny_folder: Path, tmp_path: Path) -> None:
    """As `with_delta` adds it up: a finer sum would be another encoder, a coarser one would lose the edit."""
    source = write_layout("folder", tiny_folder, tmp_path / "place")
    path = source / "model.safetensors"
    fine = {name: (tensor.double() * (1 + 1e-9)).to(dtype) for name, tensor in load_file(path).items()}
    save_file(fine, path, {"format": "pt"})
    checkpoint = open_checkpoint(source)
    small = WeightDelta({name: 1e-3 * change.half() for name, change in a_delta().tensors.items()})
    edit = Edit(checkpoint, small, layout_for("auto", checkpoint), "float32", ())
    expected = checkpoint[EDITED].float() + small.tensors[EDITED].float()
    assert torch.equal(edit.tensor(EDITED), expected)
    assert not torch.equal(expected, checkpoint[EDITED].float())


def test_shards_without_the_encoder_go_along(tiny_folder: Path, tmp_path: Path) -> None:
    """A whole CLIP in shards, one of which holds text alone, and everything in one shard."""
    source = write_layout("folder in shards", tiny_folder, tmp_path / "place")
    save_file({"text_model.x.weight": torch.ones(2)}, source / "model-text.safetensors", {"format": "pt"})
    index = source / "model.safetensors.index.json"
    told = json.loads(index.read_text())
    told["weight_map"]["text_model.x.weight"] = "model-text.safetensors"
    index.write_text(json.dumps(told))
    place = export(source, tmp_path / "out")
    assert (place / "model-text.safetensors").read_bytes() == (source / "model-text.safetensors").read_bytes()
    assert [*tensors_in(place)] == [*tensors_in(source)]
    single = write_layout("folder", tiny_folder, tmp_path / "single")
    (single / "model.safetensors").rename(single / "model-00001-of-00001.safetensors")
    places = dict.fromkeys(load_file(tiny_folder / "model.safetensors"), "model-00001-of-00001.safetensors")
    (single / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    assert open_checkpoint(export(single, tmp_path / "again")).layout.name == "clip-folder"


def test_preprocessing_goes_along_with_a_file(tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout("file", tiny_folder, tmp_path / "place")
    own = {"do_center_crop": False, "size": {"height": 16, "width": 16}, "image_mean": [0.1, 0.2, 0.3]}
    (source.parent / "preprocessor_config.json").write_text(json.dumps(own))
    place = export(source, tmp_path / "out")
    encoders = [load_encoder(EncoderParams(source=str(path)), "cpu") for path in (source, place)]
    assert encoders[0].preprocessing == encoders[1].preprocessing


def test_what_rounding_leaves_is_told_by_the_dtype_of_each_tensor() -> None:
    """A file of mixed precision: the edited block is half, the projection is not."""
    base, change = torch.full((64,), 1.0), torch.full((64,), 1e-5)
    reads, delta = {"w": base.half}, {"w": change}
    kept, changed = kept_in_weights(reads, delta, {"w": written_dtype("auto", base.half())})
    assert (kept, changed) == (0, 0)
    assert kept_in_weights(reads, delta, {"w": written_dtype("float32", base.half())})[1] == 1


def test_photomaker_keeps_its_two_keys_in_their_order(tiny_folder: Path, tmp_path: Path) -> None:
    """What diffusers' `load_photomaker_adapter` asks for, with `torch.load` as it calls it."""
    source = write_layout("photomaker v2", tiny_folder, tmp_path / "place")
    found = torch.load(export(source, tmp_path / "out"), weights_only=True)
    before = torch.load(source, weights_only=True)
    assert [*found] == ["id_encoder", "lora_weights"]
    assert [*found["id_encoder"]] == [*before["id_encoder"]]
    assert source.name == "photomaker-v2.bin"
    assert [path.name for path in (tmp_path / "out").iterdir() if path.suffix == ".bin"] == [source.name]


def test_ip_adapter_takes_the_adapters_along(tiny_folder: Path, tmp_path: Path) -> None:
    models = tmp_path / "repo" / "models"
    write_layout("folder", tiny_folder, models.parent)
    models.mkdir()
    (models.parent / "model.safetensors").unlink()
    source = write_layout("folder", tiny_folder, models / "image_encoder")
    (models / "ip-adapter-plus_sd15.safetensors").write_bytes(b"adapter")
    place = export(source, tmp_path / "out", "ip-adapter")
    assert place == tmp_path / "out" / "models" / "image_encoder"
    assert (tmp_path / "out" / "models" / "ip-adapter-plus_sd15.safetensors").read_bytes() == b"adapter"
    model, info = CLIPVisionModelWithProjection.from_pretrained(place, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(model.state_dict()[UNTOUCHED], tensors_in(source)[UNTOUCHED])


@pytest.mark.parametrize("name", ["photomaker v1", "fastcomposer", "archive", "folder in shards"])
def test_any_encoder_can_be_exported_alone(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout(name, tiny_folder, tmp_path / "place")
    folder = export(source, tmp_path / "folder", "clip-folder")
    file = export(source, tmp_path / "file", "single-file")
    _, info = CLIPVisionModelWithProjection.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert json.loads((folder / "config.json").read_text())["ireu"] == {"edited": "yes"}
    prints = {load_encoder(EncoderParams(source=str(place)), "cpu").fingerprint for place in (folder, file)}
    assert prints == {with_delta(load_encoder(EncoderParams(source=str(source)), "cpu"), a_delta()).fingerprint}


def test_an_encoder_in_half_precision_is_exported_as_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    half = {name: tensor.half() for name, tensor in load_file(tiny_folder / "model.safetensors").items()}
    torch.save(half, tiny_folder / "clip_h.pth")
    place = export(tiny_folder / "clip_h.pth", tmp_path / "out", "single-file")
    found = tensors_in(place)
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    assert torch.equal(found[EDITED], (half[EDITED].float() + a_delta().tensors[EDITED]).half())
    assert torch.equal(found[UNTOUCHED], half[UNTOUCHED])
    file = export(tiny_folder / "clip_h.pth", tmp_path / "folder", "clip-folder") / "model.safetensors"
    assert {tensor.dtype for tensor in load_file(file).values()} == {torch.float16}


def test_a_layout_that_holds_more_needs_a_source_of_its_own(tiny_folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write_layout("folder", tiny_folder, tmp_path / "place"))
    with pytest.raises(ConfigError, match="comes in a clip-folder, which cannot be exported as photomaker"):
        layout_for("photomaker", checkpoint)


def test_tensors_written_one_by_one_are_read_by_the_format_itself(tmp_path: Path) -> None:
    tensors = {
        "odd": torch.arange(3, dtype=torch.uint8),
        "half": torch.randn(5).half(),
        "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 4),
        "turned": torch.randn(3, 4).T,
        "flag": torch.tensor([True, False]),
    }
    write_tensors_one_by_one(tmp_path / "x.safetensors", {n: t.clone for n, t in tensors.items()}, tensors)
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert open_file(tmp_path / "x.safetensors")["half"].dtype == torch.float16


@pytest.mark.parametrize("wanted", ["auto", "single-file"])
def test_settings_that_lie_elsewhere_come_into_no_export(tiny_folder: Path, tmp_path: Path, wanted: str) -> None:
    settings = tiny_folder / "preprocessor_config.json"
    private = tmp_path / "private.json"
    processor = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu").processor
    private.write_text(json.dumps(json.loads(processor.to_json_string()) | {"token": "secret"}))
    settings.symlink_to(private)
    with pytest.raises(ModelError, match=r"preprocessor_config\.json beside the encoder is a link that leads out"):
        export(tiny_folder, tmp_path / "out", wanted)
    assert "secret" not in "".join(path.read_text(errors="ignore") for path in (tmp_path / "out").rglob("*.json"))
