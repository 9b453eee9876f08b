"""The CLIP adapter: taps, nulls, fingerprints, reach, loading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ireu_cli.encoders.clip import Encoder, load_encoder, read_tap, with_delta
from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.encoders.reach import TRANSFORMER, reach_of, select_weights
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.params import EncoderParams
from ireu_cli.values import WeightDelta
from tests.conftest import tiny_model

TAPS = TRANSFORMER.taps


def load(source: Path) -> Encoder:
    return load_encoder(EncoderParams(source=str(source)), "cpu")


def outputs(encoder: Encoder, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    return {tap: read_tap(encoder.model, pixels, tap) for tap in TAPS}


def test_taps_are_what_generators_read(tiny: Encoder) -> None:
    pixels = torch.randn(2, 3, 16, 16)
    whole = tiny.model(pixels, output_hidden_states=True)
    found = outputs(tiny, pixels)
    torch.testing.assert_close(found["image_embeds"], whole.image_embeds)
    torch.testing.assert_close(found["penultimate"], whole.hidden_states[-2])
    torch.testing.assert_close(found["last"], whole.last_hidden_state)
    pooled = tiny.model.vision_model.post_layernorm(whole.last_hidden_state[:, 0])
    torch.testing.assert_close(found["pooled"], pooled)


def test_both_null_images(tiny: Encoder) -> None:
    nulls = tiny.null_pixels()
    assert bool((nulls[0] == 0).all())
    expected = -np.array([0.48145466, 0.4578275, 0.40821073]) / [0.26862954, 0.26130258, 0.27577711]
    np.testing.assert_allclose(nulls[1, :, 3, 3].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("vision_model.embeddings.class_embedding", TAPS),
        ("vision_model.encoder.layers.1.mlp.fc2.weight", TAPS),
        ("vision_model.encoder.layers.2.mlp.fc2.weight", TAPS[1:]),
        ("vision_model.post_layernorm.weight", TAPS[2:]),
        ("visual_projection.weight", TAPS[3:]),
    ],
)
def test_reach_is_what_really_changes(tiny: Encoder, name: str, changed: tuple[str, ...]) -> None:
    pixels = torch.randn(2, 3, 16, 16)
    before = outputs(tiny, pixels)
    after = outputs(with_delta(tiny, WeightDelta({name: torch.randn_like(tiny.model.state_dict()[name])})), pixels)
    assert tuple(tap for tap in TAPS if not torch.equal(before[tap], after[tap])) == changed
    assert reach_of([name], tiny.blocks).taps == changed


def test_reach_speaks_of_the_taps_it_misses_and_leaves_generators_to_the_table_of_systems() -> None:
    sentence = reach_of(["vision_model.encoder.layers.2.mlp.fc1.weight"], 3).sentence()
    assert sentence == "The edit changes last, pooled, image_embeds. It does NOT reach penultimate"
    assert reach_of(["vision_model.embeddings.x"], 3).sentence() == f"The edit changes every tap: {', '.join(TAPS)}"


def test_select_weights(tiny: Encoder) -> None:
    names = list(tiny.model.state_dict())
    everything = select_weights(names, "all", 3, "penultimate")
    assert everything
    assert not [name for name in everything if ".layers.2." in name or "post_layernorm" in name or "projection" in name]
    block = select_weights(names, "block:-1", 3, "pooled")
    assert {name.split(".")[3] for name in block} == {"2"}
    assert len(select_weights(names, "blocks:0-1, post_layernorm", 3, "pooled")) == 2 * len(block) + 2
    for layers in ("nonsense", "block:3", "blocks:1-0", ""):
        with pytest.raises(ConfigError):
            select_weights(names, layers, 3, "pooled")
    with pytest.raises(ConfigError, match="cannot change penultimate"):
        select_weights(names, "block:2,post_layernorm", 3, "penultimate")


def test_fingerprint_is_of_the_tensors_not_of_the_file(tiny_folder: Path, tmp_path: Path) -> None:
    first = load(tiny_folder)
    state = load_file(tiny_folder / "model.safetensors")
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text((tiny_folder / "config.json").read_text())
    reordered = dict(reversed(list(state.items()))) | {"vision_model.embeddings.position_ids": torch.arange(5)[None]}
    save_file(reordered, other / "model.safetensors", {"format": "pt", "note": "x"})
    assert load(other).fingerprint == first.fingerprint
    assert load(other / "model.safetensors").fingerprint == first.fingerprint
    half = tiny_model().half()
    half.save_pretrained(tmp_path / "half")
    assert load(tmp_path / "half").fingerprint == fingerprint_of({k: v.float() for k, v in half.state_dict().items()})
    name = "visual_projection.weight"
    state[name] = state[name].clone()
    state[name][0, 0] += 1e-6
    save_file(state, other / "model.safetensors", {"format": "pt"})
    assert load(other).fingerprint != first.fingerprint


def test_bare_vision_model_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    # What a bare CLIPVisionModel of transformers 5 writes: loading it would run on random weights.
    state = {k.removeprefix("vision_model."): v for k, v in load_file(tiny_folder / "model.safetensors").items()}
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((tiny_folder / "config.json").read_text())
    save_file(
        {k: v for k, v in state.items() if "projection.weight" not in k}, bare / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ModelError, match="without its projection"):
        load(bare)


def test_broken_encoders(tiny_folder: Path, tmp_path: Path) -> None:
    for source in (tmp_path / "none", "no-such-user/no-such-model"):
        with pytest.raises(ModelError):
            load_encoder(EncoderParams(source=str(source)), "cpu")
    (tmp_path / "x.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="not a safetensors file"):
        load(tmp_path / "x.safetensors")
    state = load_file(tiny_folder / "model.safetensors")
    save_file(state, tmp_path / "alone.safetensors")
    with pytest.raises(ModelError, match="sizes of the encoder"):
        load(tmp_path / "alone.safetensors")
    state["visual_projection.weight"][0, 0] = float("nan")
    save_file(state, tiny_folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="finite"):
        load(tiny_folder)
    with pytest.raises(ModelError, match="device"):
        load_encoder(EncoderParams(source=str(tmp_path / "half")), "nonsense") if (
            tmp_path / "half"
        ).exists() else _bad_device(tmp_path)


def _bad_device(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "good")
    load_encoder(EncoderParams(source=str(tmp_path / "good")), "nonsense")


def test_sizes_of_published_encoders_are_told_from_tensors() -> None:
    from ireu_cli.encoders.files.clip_files import sizes_in

    shapes = {
        "vision_model.embeddings.patch_embedding.weight": (1280, 3, 14, 14),
        "vision_model.embeddings.position_embedding.weight": (257, 1280),
        **{f"vision_model.encoder.layers.{block}.mlp.fc1.weight": (5120, 1280) for block in range(32)},
        "visual_projection.weight": (1024, 1280),
    }
    found = sizes_in({name: torch.empty(shape, device="meta") for name, shape in shapes.items()})
    assert found == {
        "hidden_size": 1280,
        "patch_size": 14,
        "image_size": 224,
        "num_hidden_layers": 32,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "hidden_act": "gelu",
    }


def test_with_delta_leaves_the_original_alone_and_zero_changes_nothing(tiny: Encoder) -> None:
    before = {name: tensor.clone() for name, tensor in tiny.model.state_dict().items()}
    name = "visual_projection.weight"
    edited = with_delta(tiny, WeightDelta({name: torch.ones_like(before[name])}))
    for key, tensor in tiny.model.state_dict().items():
        assert torch.equal(tensor, before[key])
    torch.testing.assert_close(edited.model.state_dict()[name], before[name] + 1, rtol=0, atol=0)
    assert with_delta(tiny, WeightDelta({})).fingerprint == tiny.fingerprint != edited.fingerprint
    with pytest.raises(ArtifactError, match="does not have"):
        with_delta(tiny, WeightDelta({"nothing": torch.ones(1)}))


@pytest.mark.filterwarnings("ignore")
def test_preprocessing_is_the_processors_own(tiny_folder: Path) -> None:
    settings = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": 20},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "crop_size": {"height": 16, "width": 16},
    }
    (tiny_folder / "preprocessor_config.json").write_text(json.dumps(settings))
    encoder = load(tiny_folder)
    grey = np.full((40, 60, 3), 128, np.uint8)
    assert encoder.pixels([grey, grey]).shape == (2, 3, 16, 16)
    torch.testing.assert_close(encoder.pixels([grey]), torch.full((1, 3, 16, 16), 128 / 127.5 - 1))
    for wrong in ({"image_std": [0.0] * 3}, {"image_mean": 0.5}):
        (tiny_folder / "preprocessor_config.json").write_text(json.dumps(settings | wrong))
        with pytest.raises(ModelError, match="preprocessor_config"):
            load(tiny_folder)
    (tiny_folder / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="preprocessor_config"):
        load(tiny_folder)
