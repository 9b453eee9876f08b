"""Encoders in the files that people ship them in: what is told of each, and that all layouts hold the same encoder."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.files.checkpoint import open_checkpoint
from ireu_cli.encoders.files.face_pack import recogniser_in
from ireu_cli.encoders.files.tensor_file import open_file
from ireu_cli.encoders.groups import groups_of_network, groups_of_transformer
from ireu_cli.errors import ModelError
from ireu_cli.layouts.table import layout_named
from ireu_cli.params import EncoderParams
from tests.conftest import run_ireu
from tests.drawn.face_network import write_face_network
from tests.tiny_layouts import KINDS, LAYOUTS, write_layout


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_holds_the_same_encoder(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout(name, tiny_folder, tmp_path / "place")
    first, found = (load_encoder(EncoderParams(source=str(path)), "cpu") for path in (tiny_folder, source))
    assert found.fingerprint == first.fingerprint
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for tensor in ("image_embeds", "last_hidden_state"):
            assert torch.equal(getattr(found.model(pixels), tensor), getattr(first.model(pixels), tensor))
    card = card_of(str(source))
    assert (card.layout, card.fingerprint, card.dtype) == (KINDS[name], first.fingerprint, "float32")
    assert card.parameters == sum(tensor.numel() for tensor in first.model.state_dict().values())


def test_tensors_are_mapped_in_the_dtype_of_the_file(tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout("photomaker v1", tiny_folder, tmp_path / "place")
    file = open_file(source)
    assert file["lora_weights.unet.down.lora.up.weight"].dtype == torch.float16
    assert next(iter(file)).startswith("id_encoder.vision_model.")
    checkpoint = open_checkpoint(source)
    state = load_file(tiny_folder / "model.safetensors")
    assert set(checkpoint) == set(state)
    assert all(torch.equal(checkpoint[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("sizes", "layout", "second", "groups"),
    [
        ((1280, 32, 14, 224), "clip-folder", False, ("H",)),
        ((1664, 48, 14, 224), "single-file", False, ("G",)),
        ((1024, 24, 14, 224), "single-file", False, ("L",)),
        ((1024, 24, 14, 336), "clip-folder", False, ("336",)),
        ((1024, 24, 14, 224), "photomaker", False, ("P1",)),
        ((1024, 24, 14, 224), "photomaker", True, ("P2",)),
        ((1024, 24, 14, 224), "fastcomposer", False, ("FC",)),
        ((768, 12, 16, 224), "clip-folder", False, ()),
        ((16, 3, 8, 16), "photomaker", False, ()),
    ],
)
def test_groups_are_told_by_sizes_and_layout(
    sizes: tuple[int, ...], layout: str, second: bool, groups: tuple[str, ...]
) -> None:
    names = ("hidden_size", "num_hidden_layers", "patch_size", "image_size")
    config = SimpleNamespace(**dict(zip(names, sizes, strict=True)))
    beside = ["id_encoder.vision_model.x", *(["id_encoder.qformer_perceiver.x"] if second else [])]
    assert groups_of_transformer(layout_named(layout).group_in(beside), config) == groups


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ((1152, 27, 14, 384), ("S",)),
        ((1152, 27, 16, 512), ("S2",)),
        ((768, 12, 16, 224), ("SB",)),
        ((768, 12, 16, 256), ("SB256",)),
        ((1024, 24, 14, 224), ()),
    ],
)
def test_groups_of_siglip_are_its_own(sizes: tuple[int, ...], groups: tuple[str, ...]) -> None:
    names = ("hidden_size", "num_hidden_layers", "patch_size", "image_size")
    config = SimpleNamespace(**dict(zip(names, sizes, strict=True)))
    assert groups_of_transformer(None, config, is_siglip=True) == groups


def test_a_network_may_be_one_of_several_of_its_size() -> None:
    assert groups_of_network(53) == ("R50", "FF")
    assert groups_of_network(103) == ("R100", "A2F", "AF")
    assert groups_of_network(20) == ()


class TestRefusals:
    def test_other_weights(self, tmp_path: Path) -> None:
        torch.save({"unet.conv_in.weight": torch.zeros(2)}, tmp_path / "x.bin")
        with pytest.raises(ModelError, match="holds no vision transformer of CLIP, SigLIP or EVA02-CLIP"):
            open_checkpoint(tmp_path / "x.bin")

    def test_what_would_have_to_be_unpickled(self, tmp_path: Path) -> None:
        torch.save({"a": SimpleNamespace(x=1)}, tmp_path / "x.bin")
        with pytest.raises(ModelError, match="not an archive of plain tensors"):
            open_file(tmp_path / "x.bin")

    def test_a_truncated_archive(self, tiny_folder: Path, tmp_path: Path) -> None:
        source = write_layout("photomaker v1", tiny_folder, tmp_path / "place")
        source.write_bytes(source.read_bytes()[: source.stat().st_size // 2])
        with pytest.raises(ModelError, match="not an archive of plain tensors"):
            open_file(source)

    def test_a_missing_shard(self, tiny_folder: Path, tmp_path: Path) -> None:
        source = write_layout("folder in shards", tiny_folder, tmp_path / "place")
        (source / "model-00002-of-00002.safetensors").unlink()
        with pytest.raises(ModelError, match=r"model-00002-of-00002\.safetensors, which is not beside it"):
            open_checkpoint(source)

    def test_an_index_that_leads_elsewhere(self, tiny_folder: Path, tmp_path: Path) -> None:
        source = write_layout("folder in shards", tiny_folder, tmp_path / "place")
        (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../tiny/config.json"}}))
        with pytest.raises(ModelError, match="not beside it"):
            open_checkpoint(source)

    def test_nothing_there_and_unknown_endings(self, tmp_path: Path) -> None:
        (tmp_path / "x.gguf").write_bytes(b"")
        for name, words in (
            ("none.safetensors", "does not exist"),
            ("x.gguf", "not have the ending of a file of weights"),
        ):
            with pytest.raises(ModelError, match=words):
                open_checkpoint(tmp_path / name)

    def test_a_missing_weight(self, tiny_folder: Path, tmp_path: Path) -> None:
        state = load_file(tiny_folder / "model.safetensors")
        del state["vision_model.encoder.layers.1.mlp.fc1.weight"]
        source = tmp_path / "place"
        source.mkdir()
        (source / "config.json").write_text((tiny_folder / "config.json").read_text())
        torch.save(state, source / "x.pth")
        for read in (card_of, lambda path: load_encoder(EncoderParams(source=path), "cpu")):
            with pytest.raises(ModelError, match=r"lacks 1 weights, first .*layers\.1\.mlp\.fc1"):
                read(str(source / "x.pth"))


class TestConfigs:
    """A config.json beside the weights that is not theirs."""

    @pytest.mark.parametrize(
        "told", [{}, {"num_attention_heads": None, "_class_name": "UNet2DConditionModel"}, {"model_type": "llama"}]
    )
    def test_of_something_else_is_passed_over(self, told: dict[str, object], tiny_folder: Path, tmp_path: Path) -> None:
        source = write_layout("file", tiny_folder, tmp_path / "place")
        source.with_name("config.json").write_text(json.dumps(told))
        with pytest.raises(ModelError, match=r"sizes of the encoder .* cannot be told from its tensors"):
            card_of(str(source))

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("num_hidden_layers", 2),
            ("hidden_size", 32),
            ("intermediate_size", 8),
            ("hidden_act", "?"),
            ("patch_size", 0),
        ],
    )
    def test_with_other_sizes_is_refused(self, key: str, value: object, tiny_folder: Path, tmp_path: Path) -> None:
        source = write_layout("file", tiny_folder, tmp_path / "place")
        told = json.loads((tiny_folder / "config.json").read_text())
        source.with_name("config.json").write_text(json.dumps(told | {key: value}))
        with pytest.raises(ModelError, match=r"config\.json"):
            card_of(str(source))

    def test_of_a_whole_clip_keeps_the_width_of_the_projection(self, tiny_folder: Path, tmp_path: Path) -> None:
        source = write_layout("file", tiny_folder, tmp_path / "place")
        vision = json.loads((tiny_folder / "config.json").read_text())
        del vision["projection_dim"]
        whole = {"model_type": "clip", "projection_dim": 12, "vision_config": vision}
        source.with_name("config.json").write_text(json.dumps(whole))
        assert "projection to 12" in card_of(str(source)).architecture

    def test_a_preprocessor_of_another_size_is_refused(self, tiny_folder: Path, tmp_path: Path) -> None:
        source = write_layout("file", tiny_folder, tmp_path / "place")
        other = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
        source.with_name("preprocessor_config.json").write_text(json.dumps(other))
        with pytest.raises(ModelError, match="not for pictures of 16 px"):
            load_encoder(EncoderParams(source=str(source)), "cpu")


def test_a_folder_of_a_whole_generator_is_looked_into(tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout("fastcomposer", tiny_folder, tmp_path / "place").parent
    found = load_encoder(EncoderParams(source=str(source)), "cpu")
    assert found.fingerprint == load_encoder(EncoderParams(source=str(tiny_folder)), "cpu").fingerprint
    assert card_of(str(source)).fingerprint == found.fingerprint


def test_safetensors_come_before_archives(tiny_folder: Path, tmp_path: Path) -> None:
    """As transformers chooses in a folder that holds both."""
    source = write_layout("folder in shards", tiny_folder, tmp_path / "place")
    torch.save({name: tensor + 1 for name, tensor in open_checkpoint(source).items()}, source / "pytorch_model.bin")
    loaded = load_encoder(EncoderParams(source=str(source)), "cpu")
    assert card_of(str(source)).fingerprint == loaded.fingerprint


_HUB = """
import sys
from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.files.clip_files import checkpoint_of, outline_of
from ireu_cli.encoders.files.fingerprint import fingerprint_by
from ireu_cli.params import EncoderParams
params = EncoderParams(source="org/name")
checkpoint = checkpoint_of(params)
assert checkpoint.layout.name == "clip-folder"
names = outline_of(checkpoint).state_dict()
assert load_encoder(params, "cpu").fingerprint == fingerprint_by(names, checkpoint.__getitem__) == sys.argv[1]
"""


@pytest.mark.parametrize("name", ["folder", "folder in shards"])
def test_a_model_of_the_hub_is_read_from_its_cache(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    model = tmp_path / "hub" / "models--org--name"
    (model / "refs").mkdir(parents=True)
    (model / "snapshots").mkdir()
    (model / "refs" / "main").write_text("abc")
    write_layout(name, tiny_folder, model / "snapshots" / "abc")
    fingerprint = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu").fingerprint
    where = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _HUB, fingerprint]
    done = subprocess.run(command, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_other_networks_have_no_card(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(ModelError):
        card_of(str(tmp_path / "empty.onnx"))


class TestPacks:
    def test_insightface_takes_the_first_recogniser_by_name(self, tmp_path: Path) -> None:
        pack = tmp_path / "pack"
        pack.mkdir()
        write_face_network(pack / "glintr100.onnx")
        assert recogniser_in(pack).name == "glintr100.onnx"
        write_face_network(pack / "glintr100_unlearned.onnx")
        assert recogniser_in(pack).name == "glintr100.onnx"
        write_face_network(pack / "glintr100.bak.onnx")
        assert recogniser_in(pack).name == "glintr100.bak.onnx"

    def test_a_manifest_names_the_network(self, tmp_path: Path) -> None:
        for name in ("a.onnx", "b.onnx"):
            write_face_network(tmp_path / name)
        manifest = {"manifest_version": 2, "tasks": {"recognition": {"file": "b.onnx"}}}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))
        assert recogniser_in(tmp_path).name == "b.onnx"
        (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"manifest_version": 1}))
        assert recogniser_in(tmp_path).name == "a.onnx"
        (tmp_path / "manifest.json").write_text("{")
        with pytest.raises(ModelError, match="cannot be read as a manifest"):
            recogniser_in(tmp_path)

    def test_a_nested_pack_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "antelopev2").mkdir()
        write_face_network(tmp_path / "antelopev2" / "glintr100.onnx")
        with pytest.raises(ModelError, match="one folder deeper, in antelopev2"):
            recogniser_in(tmp_path)


def test_inspect_prints_a_card_and_the_systems(tiny_folder: Path, tmp_path: Path) -> None:
    source = write_layout("photomaker v1", tiny_folder, tmp_path / "place")
    shown = run_ireu("inspect", str(source), cwd=tmp_path)
    assert shown.code == 0, shown.err
    assert "photomaker" in shown.out
    assert "block 2: last, pooled, image_embeds" in shown.out
    card = json.loads(run_ireu("inspect", str(source), "--json", cwd=tmp_path).out)
    assert card["edit_sites"]["post_layernorm"] == ["pooled", "image_embeds"]
    assert card["gated_holds"] == "up to 8 people; each takes 2 of the 32 hidden units of one block"
    systems = json.loads(run_ireu("inspect", "--systems", "--json", cwd=tmp_path).out)
    reach = {entry["system"]: entry["within_reach"] for entry in systems}
    assert (reach["pulid"], reach["uniportrait"], reach["tuned-weights"]) == ("yes", "in part", "no")
    assert reach["instantid"] == "yes"
    assert {reach[name] for name in ("flux-kontext", "flux-2", "qwen-image-edit", "omnigen2")} == {"by a gate only"}
    assert run_ireu("inspect", cwd=tmp_path).code == 2
    assert run_ireu("inspect", "nowhere", cwd=tmp_path).code == 3
