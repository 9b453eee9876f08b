"""CLIP without projection: told by its config.json, read as transformers reads it, and written for the same class."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionModel

from ireu_cli.encoders.clip import Encoder, load_encoder, read_tap, with_delta
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.files.checkpoint import open_checkpoint
from ireu_cli.encoders.files.fingerprint import prints_by
from ireu_cli.encoders.reach import BARE
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.exporting.layouts import Edit, layout_for, write_beside, write_weights
from ireu_cli.params import EncoderParams
from ireu_cli.store.artifacts import read_delta
from ireu_cli.values import WeightDelta
from tests.conftest import manifest, run_ireu
from tests.tiny_bare import PREFIXES, write_bare

EDITED = "vision_model.encoder.layers.0.mlp.fc2.weight"


@pytest.fixture
def bare(tiny_folder: Path, tmp_path: Path) -> Path:
    return write_bare(tiny_folder, tmp_path / "bare")


def load(place: Path, tap: str = "pooled") -> Encoder:
    return load_encoder(EncoderParams(source=str(place), tap=tap), "cpu")


def pixels(encoder: Encoder) -> torch.Tensor:
    side = encoder.model.config.image_size
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def loaded(place: Path) -> Any:
    """As diffusers loads the image encoder of a pipeline."""
    model, info = CLIPVisionModel.from_pretrained(place, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


class TestReading:
    @pytest.mark.parametrize("prefix", PREFIXES.values())
    def test_taps_are_what_transformers_gives(self, prefix: str, tiny_folder: Path, tmp_path: Path) -> None:
        encoder = load(place := write_bare(tiny_folder, tmp_path / "place", prefix))
        with torch.no_grad():
            wanted = loaded(place)(pixels(encoder), output_hidden_states=True)
            found = {tap: read_tap(encoder.model, pixels(encoder), tap) for tap in (*BARE.taps, "block-1")}
        assert torch.equal(found["penultimate"], wanted.hidden_states[-2])
        assert torch.equal(found["last"], wanted.last_hidden_state)
        assert torch.equal(found["pooled"], wanted.pooler_output)
        assert torch.equal(found["block-1"], wanted.hidden_states[1])
        assert encoder.whole_tap == "pooled"

    def test_both_names_are_one_encoder_and_the_projection_another(self, tiny_folder: Path, tmp_path: Path) -> None:
        both = [write_bare(tiny_folder, tmp_path / f"place{n}", prefix) for n, prefix in enumerate(PREFIXES.values())]
        prints = {load(place).fingerprint for place in both}
        assert len(prints) == 1
        assert load(tiny_folder).fingerprint not in prints
        assert {open_checkpoint(place).layout.name for place in both} == {"clip-vision-folder"}

    def test_the_card_names_no_projection(self, bare: Path) -> None:
        card = card_of(str(bare))
        assert card.kind == "CLIP vision transformer without projection"
        assert "projection" not in card.architecture
        assert card.taps == ("penultimate", "last", "pooled")
        assert set(card.sites.values()) == {("penultimate", "last", "pooled"), ("last", "pooled"), ("pooled",)}
        assert card.fingerprint == load(bare).fingerprint

    @pytest.mark.parametrize("tap", ["image_embeds", "block-1+image_embeds"])
    def test_it_has_no_embedding(self, bare: Path, tap: str) -> None:
        with pytest.raises(ConfigError, match="has no tap image_embeds: it is a CLIP vision transformer without"):
            load(bare, tap)

    @pytest.mark.parametrize(
        "told",
        [
            {"architectures": ["CLIPVisionModelWithProjection"]},
            {"architectures": ["CLIPVisionModel", "CLIPVisionModelWithProjection"]},
            {"architectures": "CLIPVisionModel"},
            {"architectures": None},
        ],
    )
    @pytest.mark.parametrize("prefix", PREFIXES.values())
    def test_a_projection_may_have_been_lost(
        self, prefix: str, told: dict[str, Any], tiny_folder: Path, tmp_path: Path
    ) -> None:
        place = write_bare(tiny_folder, tmp_path / "place", prefix)
        own = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(own | told))
        with pytest.raises(ModelError, match=r"without its projection.*or the folder of a CLIPVisionModel"):
            load(place)
        (place / "config.json").unlink()
        with pytest.raises(ModelError, match="without its projection"):
            load(place)

    def test_a_lone_file_may_have_lost_it_too(self, bare: Path) -> None:
        with pytest.raises(ModelError, match="without its projection"):
            load(bare / "model.safetensors")

    def test_a_projection_that_is_there_is_read(self, tiny_folder: Path) -> None:
        wanted = load(tiny_folder)
        told = json.loads((tiny_folder / "config.json").read_text()) | {"architectures": ["CLIPVisionModel"]}
        (tiny_folder / "config.json").write_text(json.dumps(told))
        assert load(tiny_folder, "image_embeds").fingerprint == wanted.fingerprint

    def test_what_is_missing_is_named(self, tiny_folder: Path, tmp_path: Path) -> None:
        place = write_bare(tiny_folder, tmp_path / "place")
        state = load_file(place / "model.safetensors")
        del state["vision_model.post_layernorm.bias"]
        save_file(state, place / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=r"lacks 1 weights, first vision_model\.post_layernorm\.bias"):
            load(place)


class TestWriting:
    @pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
    @pytest.mark.parametrize("prefix", PREFIXES.values())
    def test_the_edit_is_there_and_all_else_keeps_every_bit(
        self, prefix: str, dtype: Any, tiny_folder: Path, tmp_path: Path
    ) -> None:
        source = write_bare(tiny_folder, tmp_path / "place", prefix)
        encoder, checkpoint = load(source), open_checkpoint(source)
        change = torch.randn(checkpoint.shape(EDITED), generator=torch.Generator().manual_seed(3))
        edit = Edit(checkpoint, WeightDelta({EDITED: change}), layout_for("auto", checkpoint), dtype, ())
        (out := tmp_path / "out").mkdir()
        written = write_weights(edit, encoder, out)
        place, names = written.place, [*encoder.model.state_dict()]
        # The config.json is written later.
        assert written.holds(prints_by(names, edit.tensor), names)
        assert not written.holds(prints_by(names, checkpoint.__getitem__), names)
        write_beside(edit, encoder, out, {"edited": "yes"})
        before, after = (load_file(folder / "model.safetensors") for folder in (source, place))
        kind = torch.float32 if dtype == "auto" else torch.bfloat16
        changed = {name for name in before if not torch.equal(before[name].to(kind), after[name])}
        assert changed == {f"{prefix}{EDITED.removeprefix('vision_model.')}"}
        expected = with_delta(encoder, WeightDelta({EDITED: change}), "float32" if dtype == "auto" else dtype)
        assert load(place).fingerprint == expected.fingerprint
        loaded(place)
        told = json.loads((place / "config.json").read_text())
        assert told["architectures"] == ["CLIPVisionModel"]
        assert told["projection_dim"] == json.loads((source / "config.json").read_text())["projection_dim"] != 512

    @pytest.mark.parametrize("wanted", ["clip-folder", "ip-adapter", "single-file", "wan"])
    def test_loaders_of_a_projection_get_none(self, wanted: str, bare: Path) -> None:
        with pytest.raises(ConfigError, match=f"a clip-vision-folder, which cannot be exported as {wanted}"):
            layout_for(wanted, open_checkpoint(bare))


@pytest.mark.parametrize(
    ("method", "tap"),
    [("gated", "pooled"), ("block", "last"), ("ireu", "penultimate"), ("global", "pooled")],
)
def test_every_method_edits_it(method: str, tap: str, samples: Path, tmp_path: Path) -> None:
    work = tmp_path / "job"
    shutil.copytree(samples, work)
    source = write_bare(samples / "encoder", tmp_path / "bare")
    more = ("--set", "gated.people=1", "--set", "gated.max_false_alarm=0.2") if method == "gated" else ("--steps", 2)
    for command in (
        ("locate", "--encoder", source, "--tap", tap, "--method", "all"),
        ("unlearn", "--mask", "mask.pt", "--method", method, *more),
        ("verify", "--delta", "delta.safetensors", "--set", "attacks.suite=none"),
        ("export", "--delta", "delta.safetensors", "--allow-failed", "-o", "out"),
    ):
        done = run_ireu(*command, cwd=work)
        assert done.code in ({0, 4, 5} if command[0] == "verify" else {0}), done.err
    assert tap in manifest(work, "delta.safetensors")["metrics"]["reach"]["taps"]
    edited = {name for name, change in read_delta(work / "delta.safetensors").tensors.items() if bool(change.any())}
    before, after = (load_file(folder / "model.safetensors") for folder in (source, work / "out"))
    assert {name for name in before if not torch.equal(before[name], after[name])} == edited
    draw = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    side = loaded(source).config.image_size
    assert not torch.equal(*(_read(place, draw[..., :side, :side], tap) for place in (source, work / "out")))


def _read(place: Path, values: torch.Tensor, tap: str) -> torch.Tensor:
    with torch.no_grad():
        found = loaded(place)(values, output_hidden_states=True)
    taps: dict[str, torch.Tensor] = {
        "penultimate": found.hidden_states[-2],
        "last": found.last_hidden_state,
        "pooled": found.pooler_output,
    }
    return taps[tap]
