"""DINOv2: read as transformers reads it, edited by training at the depths that are read, exported for its loader."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ireu_cli.coverage import coverage_of
from ireu_cli.encoders.dinov2.encoder import Dinov2Encoder
from ireu_cli.encoders.dinov2.tower import Dinov2, Dinov2Sizes
from ireu_cli.encoders.families import load_encoder
from ireu_cli.encoders.groups import groups_of_dinov2
from ireu_cli.encoders.reach import DINOV2
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams
from ireu_cli.values import WeightDelta
from tests.conftest import run_ireu
from tests.tiny_dinov2 import GATED, PLAIN, SIDE, write_dinov2

BOTH = pytest.mark.parametrize("sizes", [PLAIN, GATED], ids=["plain", "gated"])
JOINED = "block-1+block-2+last"


def load(place: Path, tap: str = "last") -> Dinov2Encoder:
    found = load_encoder(EncoderParams(source=str(place), tap=tap), ARCFACE_LANDMARKS, "cpu")
    assert isinstance(found, Dinov2Encoder)
    return found


def pixels(count: int = 3, side: int = SIDE) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def through_transformers(place: Path, values: torch.Tensor) -> Any:
    from transformers import Dinov2Model

    model, told = Dinov2Model.from_pretrained(place, output_loading_info=True)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        return model.eval()(values, output_hidden_states=True)


class TestReading:
    @BOTH
    @pytest.mark.parametrize("side", [SIDE, 56])
    def test_taps_are_what_transformers_gives(self, sizes: Dinov2Sizes, side: int, tmp_path: Path) -> None:
        place = write_dinov2(tmp_path / "place", sizes)
        wanted = through_transformers(place, pixels(side=side))
        encoder = load(place)
        # In InstantCharacter, `hidden_states[N]` is what enters block N.
        depths = {f"block-{number}": wanted.hidden_states[number] for number in range(4)}
        named = {"penultimate": wanted.hidden_states[3], "last": wanted.last_hidden_state}
        for tap, value in (depths | named | {"pooled": wanted.pooler_output}).items():
            torch.testing.assert_close(encoder.encode(pixels(side=side), tap), value, atol=1e-5, rtol=1e-5)
        joined = encoder.encode(pixels(side=side), JOINED)
        assert torch.equal(joined, torch.cat([encoder.encode(pixels(side=side), tap) for tap in JOINED.split("+")], 1))

    def test_pixels_are_those_of_transformers(self, tmp_path: Path) -> None:
        from transformers import AutoImageProcessor

        place = write_dinov2(tmp_path / "place")
        draw = torch.Generator().manual_seed(1)
        pictures = [torch.randint(0, 256, (40, 70, 3), generator=draw, dtype=torch.uint8).numpy()]
        wanted = AutoImageProcessor.from_pretrained(place, use_fast=False)(pictures, return_tensors="pt")
        found = load(place).pixels(pictures)
        assert found.shape == (1, 3, SIDE, SIDE)
        torch.testing.assert_close(found, wanted["pixel_values"], atol=0.03, rtol=0)

    def test_the_largest_one_is_a_group(self) -> None:
        giant = Dinov2Sizes(1536, 4096, 40, 24, 14, 1369, 1e-6, True, True)
        assert groups_of_dinov2(giant) == ("D",)
        assert groups_of_dinov2(PLAIN) == ()

    @pytest.mark.parametrize(
        ("key", "value", "why"),
        [
            ("num_hidden_layers", 5, "num_hidden_layers is 5, and the tensors say 4"),
            ("use_swiglu_ffn", True, "use_swiglu_ffn is True"),
            ("num_attention_heads", 3, "num_attention_heads is 3, for 32 features"),
            ("num_attention_heads", None, "num_attention_heads is None"),
            ("layer_norm_eps", 2.0, "layer_norm_eps is 2.0"),
            ("hidden_act", "relu", "another activation"),
            ("qkv_bias", False, "no bias"),
        ],
    )
    def test_settings_that_do_not_fit_are_refused(self, key: str, value: Any, why: str, tmp_path: Path) -> None:
        place = write_dinov2(tmp_path / "place")
        told = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps(told | {key: value}))
        with pytest.raises(ModelError, match=why):
            load(place)

    @pytest.mark.parametrize("change", ["gone", "more", "shape", "infinite", "whole numbers"])
    def test_damaged_weights_are_refused(self, change: str, tmp_path: Path) -> None:
        place = write_dinov2(tmp_path / "place")
        state = load_file(place / "model.safetensors")
        name = "encoder.layer.2.layer_scale2.lambda1"
        if change == "gone":
            del state[name]
        elif change == "more":
            state["encoder.layer.2.attention.register"] = torch.zeros(2)
        elif change == "shape":
            state[name] = torch.zeros(31)
        else:
            state[name] = torch.full((32,), torch.inf) if change == "infinite" else torch.ones(32, dtype=torch.int8)
        save_file(state, place / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError):
            load(place)

    def test_preprocessing_has_to_make_whole_patches(self, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="does not make squares of whole patches"):
            load(write_dinov2(tmp_path / "place", side=30))

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize(("name", "value"), [("image_std", [0.0] * 3), ("image_mean", 0.5)])
    def test_preprocessing_has_to_make_numbers(self, name: str, value: Any, tmp_path: Path) -> None:
        place = write_dinov2(tmp_path / "place")
        settings = json.loads((place / "preprocessor_config.json").read_text())
        (place / "preprocessor_config.json").write_text(json.dumps(settings | {name: value}))
        with pytest.raises(ModelError, match="preprocessor_config"):
            load(place)

    def test_blocks_that_are_not_there_are_refused(self, tmp_path: Path) -> None:
        encoder = load(write_dinov2(tmp_path / "place"))
        with pytest.raises(ConfigError, match="its blocks are block-0 to block-3"):
            encoder.encode(pixels(), "block-4")


class TestReach:
    @BOTH
    def test_taps_change_as_is_said(self, sizes: Dinov2Sizes, tmp_path: Path) -> None:
        encoder = load(write_dinov2(tmp_path / "place", sizes))
        taps = [*DINOV2.taps, *(f"block-{number}" for number in range(sizes.blocks))]
        before = {tap: encoder.encode(pixels(), tap) for tap in taps}
        for name, tensor in encoder.model.state_dict().items():
            if name == "embeddings.mask_token":
                continue
            change = 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
            edited = encoder.edited(WeightDelta({name: change}))
            changed = {tap for tap in taps if not torch.equal(before[tap], edited.encode(pixels(), tap))}
            assert changed == {tap for tap in taps if encoder.reach([name]).includes(tap)}, name
            assert changed, name

    def test_instantcharacter_is_covered_from_the_first_blocks_on(self, tmp_path: Path) -> None:
        with torch.device("meta"):
            names = list(Dinov2(Dinov2Sizes(48, 8, 40, 1, 14, 4, 1e-6, True, True)).state_dict())
        giant = load(write_dinov2(tmp_path / "place", Dinov2Sizes(8, 8, 40, 1, 14, 4, 1e-6, True, True)))
        early = giant.reach([name for name in names if name.startswith("encoder.layer.8.")])
        late = giant.reach([name for name in names if name.startswith("encoder.layer.9.")])
        assert coverage_of("instantcharacter", {"D": early}).status == "half covered"
        told = coverage_of("instantcharacter", {"D": late})
        assert told.status == "not covered"
        assert "block-9" in told.why


def job_with(samples: Path, tmp_path: Path, sizes: Dinov2Sizes) -> Path:
    job = tmp_path / "job"
    shutil.copytree(samples, job)
    write_dinov2(job / "dinov2", sizes)
    text = (job / "ireu.toml").read_text()
    text = text.replace('source = "encoder"', 'source = "dinov2"').replace('"pooled"', f'"{JOINED}"')
    (job / "ireu.toml").write_text(text)
    return job


@BOTH
def test_the_job_from_photos_to_an_export(sizes: Dinov2Sizes, samples: Path, tmp_path: Path) -> None:
    job = job_with(samples, tmp_path, sizes)
    card = run_ireu("inspect", "dinov2", "--json", cwd=job).json
    assert (card["kind"], card["layout"], list(card["taps"])) == (
        "DINOv2 vision transformer", "dino-folder", ["last", "penultimate", "pooled"])  # fmt: skip
    assert run_ireu("locate", "--method", "all", cwd=job).code == 0
    for method in ("gated", "block"):
        refused = run_ireu("unlearn", "--mask", "mask.pt", "--method", method, cwd=job)
        assert refused.code == 3, refused.err
        assert "ireu or global" in refused.err or "another --method" in refused.err
    flags = ("--method", "global", "--layers", "block:0", "--steps", "2")
    done = run_ireu("unlearn", "--mask", "mask.pt", *flags, cwd=job)
    assert done.code == 0, done.err
    assert f"The edit changes everything that is read at {JOINED}" in done.err
    done = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", cwd=job)
    assert done.code == 0, done.err
    before, after = (load_file(job / place / "model.safetensors") for place in ("dinov2", "out"))
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert list(before) == list(after)
    assert changed
    assert all(name.startswith("encoder.layer.0.") for name in changed)
    encoder = load(job / "dinov2")
    edit = WeightDelta({name: after[name] - before[name] for name in changed})
    wanted = through_transformers(job / "out", pixels()).last_hidden_state
    torch.testing.assert_close(load(job / "out").encode(pixels(), "last"), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(encoder.edited(edit).encode(pixels(), "last"), wanted, atol=1e-4, rtol=1e-4)
    assert (job / "out" / "config.json").read_bytes() == (job / "dinov2" / "config.json").read_bytes()


def test_verify_compares_features(samples: Path, tmp_path: Path) -> None:
    job = job_with(samples, tmp_path, PLAIN)
    assert run_ireu("locate", "--method", "all", cwd=job).code == 0
    done = run_ireu(
        "unlearn", "--mask", "mask.pt", "--method", "ireu", "--steps", "2", "--layers", "blocks:0-1", cwd=job
    )
    assert done.code == 0, done.err
    done = run_ireu("verify", "--delta", "delta.safetensors", "--set", "attacks.suite=none", cwd=job)
    assert done.code in {4, 5}, done.err
    told = json.loads((job / "report" / "report.json").read_text())["subject"]
    assert (told["tap"], told["taps_missed"]) == (JOINED, [])
    assert told["original_encoder"] == load(job / "dinov2").fingerprint != told["edited_encoder"]
