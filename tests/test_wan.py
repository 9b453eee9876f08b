"""Wan's file of both towers: read under its own names and shapes, edited, and loaded again by a module like Wan's."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from ireu_cli.encoders.clip import Encoder, load_encoder, read_tap, with_delta
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.files.checkpoint import open_checkpoint
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.exporting.layouts import Edit, layout_for, served_dtype, write_beside, write_weights
from ireu_cli.params import EncoderParams
from ireu_cli.values import WeightDelta
from tests.conftest import manifest, run_ireu
from tests.tiny_layouts import write_layout
from tests.tiny_wan import FILE, WanClip, wan_state

QUERY = "vision_model.encoder.layers.1.self_attn.q_proj"
FUSED = "visual.transformer.1.attn.to_qkv"
NAMES = ("wan", "wan safetensors")


@pytest.fixture
def file(tiny_folder: Path, tmp_path: Path) -> Path:
    return write_layout("wan", tiny_folder, tmp_path / "wan")


def load(place: Path, tap: str = "penultimate") -> Encoder:
    return load_encoder(EncoderParams(source=str(place), tap=tap), "cpu")


def tensors_in(place: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = (
        load_file(place) if place.suffix == ".safetensors" else torch.load(place, weights_only=True)
    )
    return found


def module(place: Path) -> WanClip:
    """As Wan's pipelines do: every key is asked for, and none may be left over."""
    clip = WanClip(json.loads((place.parent / "config.json").read_text()))
    clip.load_state_dict({name: tensor.float() for name, tensor in tensors_in(place).items()})
    return clip.eval()


def pixels(encoder: Encoder) -> Tensor:
    side = encoder.model.config.image_size
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def alike(clip: WanClip, encoder: Encoder) -> None:
    """The module and the transformer compute the same of the same pixels."""
    given = pixels(encoder)
    with torch.no_grad():
        torch.testing.assert_close(clip.read(given), read_tap(encoder.model, given, "penultimate"))
        torch.testing.assert_close(clip.embed(given), read_tap(encoder.model, given, "image_embeds"))


def export(source: Path, out: Path, delta: WeightDelta, dtype: Any = "auto") -> Path:
    checkpoint = open_checkpoint(source)
    edit = Edit(checkpoint, delta, layout_for("auto", checkpoint), dtype, ())
    out.mkdir()
    written = write_weights(edit, load(source), out)
    write_beside(edit, load(source), out, {"edited": "yes"})
    return written.place


class TestReading:
    @pytest.mark.parametrize("name", NAMES)
    def test_it_computes_what_wans_module_computes(self, name: str, tiny_folder: Path, tmp_path: Path) -> None:
        file = write_layout(name, tiny_folder, tmp_path / "wan")
        alike(module(file), load(file))
        assert open_checkpoint(file).layout.name == "wan"

    def test_it_is_the_encoder_that_a_folder_would_hold(self, file: Path, tiny_folder: Path) -> None:
        assert load(file).fingerprint == load(tiny_folder).fingerprint == card_of(str(file)).fingerprint
        state, own = load_file(tiny_folder / "model.safetensors"), open_checkpoint(file)
        assert all(torch.equal(own[name], tensor) and own[name].is_contiguous() for name, tensor in state.items())
        assert all(own.shape(name) == tuple(tensor.shape) for name, tensor in state.items())

    def test_the_true_sizes_are_told_by_its_tensors(self) -> None:
        from transformers import CLIPVisionConfig

        from ireu_cli.encoders.files.clip_files import sizes_in
        from ireu_cli.encoders.groups import groups_of_transformer
        from ireu_cli.layouts.wan import WAN

        sizes: dict[str, Any] = {
            "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16,
            "patch_size": 14, "image_size": 224, "projection_dim": 1024, "hidden_act": "gelu",
        }  # fmt: skip
        with torch.device("meta"):
            held = WanClip(sizes).state_dict()
        state = {piece.own: piece.of(tensor) for name, tensor in held.items() for piece in WAN.pieces(name)}
        found = CLIPVisionConfig(**sizes_in(state))
        assert {name: getattr(found, name) for name in sizes if name != "projection_dim"} == {
            name: value for name, value in sizes.items() if name != "projection_dim"
        }
        assert groups_of_transformer(None, found) == ("H",)

    def test_pictures_are_squeezed_and_not_cut(self, file: Path, tiny_folder: Path) -> None:
        encoder = load(file)
        wide = np.zeros((20, 60, 3), np.uint8)
        wide[:, :20] = 255
        side = encoder.model.config.image_size
        squeezed, cut = (load(place).pixels([wide])[0, 0] for place in (file, tiny_folder))
        assert squeezed[:, 0].min() > 1 > squeezed[:, side // 2].max()
        assert cut[:, 0].max() < 1

    @pytest.mark.parametrize(
        ("name", "change", "words"),
        [
            (f"{FUSED}.weight", lambda tensor: tensor[:-1], "in a shape that it cannot have"),
            (f"{FUSED}.bias", lambda _: torch.tensor(1.0), "in a shape that it cannot have"),
            ("visual.cls_embedding", lambda tensor: tensor[0], "in a shape that it cannot have"),
            ("visual.pos_embedding", lambda tensor: tensor.repeat(2, 1, 1), "in a shape that it cannot have"),
            ("visual.head", lambda tensor: tensor.flatten(), "in a shape that it cannot have"),
            ("visual.head", lambda tensor: tensor.T.contiguous(), "do not fit the shapes"),
            (f"{FUSED}.weight", lambda tensor: tensor[:-3], "do not fit the shapes"),
            (f"{FUSED}.bias", lambda tensor: tensor.to(torch.int8), "in int8"),
        ],
    )
    def test_shapes_and_dtypes_are_checked(
        self, file: Path, name: str, change: Callable[[Tensor], Tensor], words: str
    ) -> None:
        state = torch.load(file, weights_only=True)
        state[name] = change(state[name])
        torch.save(state, file)
        for read in (load, lambda path: card_of(str(path))):
            with pytest.raises(ModelError, match=words):
                read(file)

    @pytest.mark.parametrize("beside", ["scale_weight", "lora_A.weight"])
    def test_what_is_quantised_or_not_merged_is_refused(self, file: Path, beside: str) -> None:
        state = torch.load(file, weights_only=True)
        torch.save(state | {f"{FUSED}.{beside}": torch.ones(1)}, file)
        with pytest.raises(ModelError, match="incomplete without another tensor"):
            load(file)

    @pytest.mark.parametrize("missing", [f"{FUSED}.bias", "visual.head", "visual.transformer.0.norm2.weight"])
    def test_what_is_missing_is_refused(self, file: Path, missing: str) -> None:
        state = torch.load(file, weights_only=True)
        del state[missing]
        torch.save(state, file)
        with pytest.raises(ModelError, match="lacks"):
            load(file)

    def test_nothing_is_unpickled(self, file: Path) -> None:
        torch.save(torch.load(file, weights_only=True) | {"more": Path("x")}, file)
        with pytest.raises(ModelError, match="would have to be unpickled"):
            load(file)

    def test_a_config_of_the_generator_beside_it_is_passed_over(self, file: Path) -> None:
        (file.parent / "config.json").write_text(json.dumps({"_class_name": "WanModel", "model_type": "i2v"}))
        with pytest.raises(ModelError, match="cannot be told from its tensors"):
            load(file)


class TestWriting:
    @pytest.mark.parametrize("dtype", ["auto", "float16"])
    @pytest.mark.parametrize("name", NAMES)
    def test_every_tensor_goes_back_to_its_place(
        self, name: str, dtype: Any, tiny_folder: Path, tmp_path: Path
    ) -> None:
        source = write_layout(name, tiny_folder, tmp_path / "wan")
        encoder, draw = load(source), torch.Generator().manual_seed(5)
        delta = WeightDelta({
            name: 0.1 * torch.randn(tensor.shape, generator=draw) for name, tensor in encoder.model.state_dict().items()
        })  # fmt: skip
        place = export(source, tmp_path / "out", delta, dtype)
        assert place.name == source.name
        before, after = tensors_in(source), tensors_in(place)
        assert [*after] == [*before]
        assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
        edited = with_delta(encoder, delta, "float32" if dtype == "auto" else dtype)
        alike(module(place), with_delta(edited, WeightDelta({})))
        assert load(place).fingerprint == edited.fingerprint
        others = {"textual.weight", "textual.bias", "log_scale"}
        kind = torch.float32 if dtype == "auto" else torch.float16
        assert all(torch.equal(after[name], before[name]) for name in others)
        assert {after[name].dtype for name in after if name not in others} == {kind}
        assert served_dtype("auto", open_checkpoint(place)) == ("float32" if dtype == "auto" else dtype)

    @pytest.mark.parametrize("name", NAMES)
    def test_an_edit_of_the_query_leaves_key_and_value(self, name: str, tiny_folder: Path, tmp_path: Path) -> None:
        source = write_layout(name, tiny_folder, tmp_path / "wan")
        own = open_checkpoint(source)
        delta = WeightDelta(
            {f"{QUERY}.{kind}": torch.ones(own.shape(f"{QUERY}.{kind}")) for kind in ("weight", "bias")}
        )
        place = export(source, tmp_path / "out", delta)
        before, after = tensors_in(source), tensors_in(place)
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {f"{FUSED}.weight", f"{FUSED}.bias"}
        for key in changed:
            rows = len(before[key]) // 3
            assert torch.equal(after[key][:rows], before[key][:rows] + 1)
            assert torch.equal(after[key][rows:], before[key][rows:])

    def test_it_becomes_a_folder_but_no_folder_becomes_it(self, file: Path, tiny_folder: Path, tmp_path: Path) -> None:
        checkpoint = open_checkpoint(file)
        edit = Edit(checkpoint, WeightDelta({}), layout_for("clip-folder", checkpoint), "auto", ())
        (out := tmp_path / "out").mkdir()
        place = write_weights(edit, load(file), out).place
        write_beside(edit, load(file), out, {"edited": "yes"})
        assert load(place, "image_embeds").fingerprint == load(tiny_folder).fingerprint
        with pytest.raises(ConfigError, match="cannot be exported as wan"):
            layout_for("wan", open_checkpoint(tiny_folder))


def test_sample_people_are_removed_from_what_wan_reads(tmp_path: Path) -> None:
    assert run_ireu("samples", "demo", cwd=tmp_path).code == 0
    source = write_layout("wan", embedded_folder() / "image_encoder", tmp_path / "wan")
    steps = (
        ("locate", "--encoder", source, "--tap", "penultimate", "--method", "all"),
        ("unlearn", "--mask", "mask.pt", "--method", "gated"),
        ("export", "--delta", "delta.safetensors", "--allow-failed", "-o", "out"),
    )
    for step in steps:
        done = run_ireu(*step, cwd=tmp_path / "demo")
        assert done.code == 0, done.err
    told = manifest(tmp_path / "demo", "delta.safetensors")["metrics"]
    assert told["reach"]["missed"] == []
    assert told["carried"]["tokens_reached"] > 0.95
    place = tmp_path / "demo" / "out" / FILE
    before, after = tensors_in(source), tensors_in(place)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    fused = {name for name in changed if ".to_qkv." in name}
    assert fused
    for name in fused:
        # The flag enters by key and value.
        rows = len(before[name]) // 3
        assert torch.equal(after[name][:rows], before[name][:rows])
    shares = [_moved(source, place, tmp_path / "demo" / folder) for folder in ("faces", "others")]
    assert shares[0] > 5 * shares[1]


def _moved(source: Path, place: Path, folder: Path) -> float:
    """How far the tokens that Wan reads move, as a share of their length: the median over some photos of a folder."""
    photos = [np.array(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("*.*"))[:30]]
    given = load(source).pixels(photos)
    (place.parent / "config.json").write_text((source.parent / "config.json").read_text())
    with torch.no_grad():
        before, after = (module(path).read(given) for path in (source, place))
    return float(((after - before).norm(dim=(1, 2)) / before.norm(dim=(1, 2))).median())


def test_the_stand_in_asks_for_every_tensor(file: Path) -> None:
    state = wan_state(load_file(file.parent.parent / "tiny" / "model.safetensors"))
    clip = WanClip(json.loads((file.parent / "config.json").read_text()))
    for name in state:
        with pytest.raises(RuntimeError, match="Missing key"):
            clip.load_state_dict({key: tensor for key, tensor in state.items() if key != name})
    assert file.name == FILE
