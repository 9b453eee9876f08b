"""The generator adapter draws what the stock pipeline draws, bit by bit, before and after an edit."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image
from transformers import CLIPTextModel, CLIPTokenizer

from ireu_cli.encoders.clip import Encoder, load_encoder, with_delta
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.errors import ModelError
from ireu_cli.generators.generator import Generator, load_generators
from ireu_cli.params import EncoderParams
from ireu_cli.values import WeightDelta
from tests.tiny_portrait import LANDMARKS

PROMPTS = ["a face", "a face, dark", "a face, bright"]


@pytest.fixture(scope="module")
def generators(portrait: Path) -> tuple[Generator, ...]:
    return load_generators(str(portrait), None, "cpu")


@pytest.fixture(scope="module")
def encoder(portrait: Path) -> Encoder:
    return load_encoder(EncoderParams(source=str(portrait / "image_encoder")), "cpu")


def edited(encoder: Encoder) -> Encoder:
    """The encoder with its first block changed, so that every tap changes."""
    torch.manual_seed(9)
    name = "vision_model.encoder.layers.0.mlp.fc2.weight"
    return with_delta(encoder, WeightDelta({name: torch.randn_like(encoder.model.state_dict()[name])}))


def photos(count: int) -> list[np.ndarray[Any, np.dtype[np.uint8]]]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 40, 40, 3), np.uint8))


def stock(
    portrait: Path,
    generator: Generator,
    encoder: Encoder,
    photo: Any,
    prompt: str,
    seed: int,
    kind: Any = AutoencoderTiny,
) -> Any:
    """The picture of the pipeline that a user builds, from files, with the encoder mounted and a photo handed in."""
    folder = portrait / generator.name.lower()
    pipeline = StableDiffusionPipeline(
        vae=kind.from_pretrained(portrait / "vae").float(),
        text_encoder=CLIPTextModel.from_pretrained(portrait / "text_encoder").float(),
        tokenizer=CLIPTokenizer.from_pretrained(portrait / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet").float(),
        scheduler=DDIMScheduler.from_pretrained(portrait / "scheduler"), safety_checker=None,
        feature_extractor=encoder.processor, image_encoder=encoder.model, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.load_ip_adapter(str(folder), subfolder="", weight_name="ip_adapter.safetensors", low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    entry = next(
        e for e in json.loads((portrait / "portrait.json").read_text())["generators"] if e["name"] == generator.name
    )
    pipeline.set_ip_adapter_scale(entry["scale"])
    drawn = pipeline(prompt, ip_adapter_image=Image.fromarray(photo), num_inference_steps=entry["steps"],
                     guidance_scale=entry["guidance"], generator=torch.Generator().manual_seed(seed))  # fmt: skip
    return np.asarray(drawn.images[0])


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize("edit", [False, True])
def test_pictures_are_those_of_the_stock_pipeline(
    portrait: Path, generators: tuple[Generator, ...], encoder: Encoder, place: int, edit: bool
) -> None:
    generator, mounted = generators[place], edited(encoder) if edit else encoder
    # One by one, as the stock pipeline does: the last bits of features depend on the batch they are computed in.
    features = torch.cat([mounted.encode(mounted.pixels([photo]), generator.tap) for photo in photos(3)])
    drawn = generator.draw(features, mounted.null_features(generator.tap), PROMPTS, [5, 6, 7])
    for photo, picture, prompt, seed in zip(photos(3), drawn, PROMPTS, [5, 6, 7], strict=True):
        np.testing.assert_array_equal(picture, stock(portrait, generator, mounted, photo, prompt, seed))


@pytest.mark.parametrize("place", [0, 1])
def test_a_picture_depends_on_its_own_photo_prompt_seed_and_encoder(
    generators: tuple[Generator, ...], encoder: Encoder, place: int
) -> None:
    generator = generators[place]
    null = encoder.null_features(generator.tap)
    features = encoder.encode(encoder.pixels(photos(2)), generator.tap)
    one, two = generator.draw(features, null, PROMPTS[:2], [1, 2])
    np.testing.assert_array_equal(one, generator.draw(features[:1], null, PROMPTS[:1], [1])[0])
    assert one.shape == (generator.side, generator.side, 3)
    changed = edited(encoder)
    after = changed.encode(changed.pixels(photos(1)), generator.tap)
    others = [
        two,
        generator.draw(features[1:], null, PROMPTS[:1], [1])[0],
        generator.draw(features[:1], null, PROMPTS[1:2], [1])[0],
        generator.draw(features[:1], null, PROMPTS[:1], [2])[0],
        generator.draw(after, null, PROMPTS[:1], [1])[0],
    ]
    assert all(bool((one != other).any()) for other in others)


@pytest.mark.parametrize("place", [0, 1])
def test_a_sketch_is_the_picture_in_few_steps_with_gradients(
    generators: tuple[Generator, ...], encoder: Encoder, place: int
) -> None:
    generator = generators[place]
    null = encoder.null_features(generator.tap)
    features = encoder.encode(encoder.pixels(photos(2)), generator.tap).clone().requires_grad_()
    sketch = generator.sketch(features, null, PROMPTS[:2], [1, 2], generator.steps)
    assert sketch.shape == (2, 3, generator.side, generator.side)
    drawn = np.stack(generator.draw(features.detach(), null, PROMPTS[:2], [1, 2]))
    np.testing.assert_allclose(sketch.detach().permute(0, 2, 3, 1).numpy() * 255, drawn, atol=0.51)
    (gradient,) = torch.autograd.grad(sketch[0].sum(), features)
    assert float(gradient[0].abs().max()) > 0
    assert float(gradient[1].abs().max()) == 0
    fewer = generator.sketch(features.detach(), null, PROMPTS[:2], [1, 2], 1)
    assert not torch.allclose(fewer, sketch.detach())


def test_generators_of_a_bundle(portrait: Path, generators: tuple[Generator, ...]) -> None:
    """Those that read this encoder, by tap; an encoder that is no bundle has none."""
    assert [(g.name, g.tap) for g in generators] == [("A", "image_embeds"), ("B", "penultimate")]
    assert [g.name for g in load_generators(str(portrait), ["penultimate"], "cpu")] == ["B"]
    assert load_generators(str(portrait), ["pooled"], "cpu") == ()
    assert load_generators(str(portrait / "image_encoder"), None, "cpu") == ()
    assert [g.name for g in load_generators("portrait-mini", ["pooled", "image_embeds"], "cpu", portrait)] == ["A"]


def test_fingerprints_follow_what_decides_a_picture(
    portrait: Path, generators: tuple[Generator, ...], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    shutil.copytree(portrait, other)
    before = [g.fingerprint for g in generators]
    assert before[0] != before[1]
    config = json.loads((other / "vae" / "config.json").read_text())
    (other / "vae" / "config.json").write_text(json.dumps(config | {"_diffusers_version": "99"}))
    UNet2DConditionModel.from_pretrained(other / "a" / "unet").float().save_pretrained(other / "a" / "unet")
    assert [g.fingerprint for g in load_generators(str(other), None, "cpu")] == before
    index = json.loads((other / "portrait.json").read_text())
    index["generators"][0]["steps"] += 1
    (other / "portrait.json").write_text(json.dumps(index))
    after = [g.fingerprint for g in load_generators(str(other), None, "cpu")]
    assert after[0] != before[0]
    assert after[1] == before[1]


def test_the_index_of_a_bundle(portrait: Path) -> None:
    found = find_bundle(str(portrait))
    assert found is not None
    assert (found.folder, found.landmarks, found.prompt) == (portrait, LANDMARKS, "a face")
    assert find_bundle(str(portrait / "image_encoder")) is None


def test_broken_bundles(portrait: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not part of this installation"):
        find_bundle("portrait-mini", tmp_path / "nowhere")
    spoiled = tmp_path / "spoiled"
    shutil.copytree(portrait, spoiled)
    (spoiled / "a" / "ip_adapter.safetensors").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match=r"ip_adapter\.safetensors is not a safetensors file"):
        load_generators(str(spoiled), ["image_embeds"], "cpu")
    shutil.rmtree(spoiled / "vae")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_generators(str(spoiled), ["penultimate"], "cpu")
    (spoiled / "portrait.json").write_text("{}")
    with pytest.raises(ModelError, match=r"portrait\.json"):
        find_bundle(str(spoiled))


def test_a_pipeline_with_the_usual_autoencoder_draws_too(portrait: Path, encoder: Encoder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(portrait, other)
    shutil.rmtree(other / "vae")
    torch.manual_seed(1)
    vae = AutoencoderKL(block_out_channels=[4, 8], down_block_types=["DownEncoderBlock2D"] * 2, norm_num_groups=2,
                        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4)  # fmt: skip
    vae.half().save_pretrained(other / "vae")
    generator = load_generators(str(other), ["image_embeds"], "cpu")[0]
    (photo,) = photos(1)
    features = encoder.encode(encoder.pixels([photo]), generator.tap)
    drawn = generator.draw(features, encoder.null_features(generator.tap), ["a face"], [7])[0]
    expected = stock(other, generator, encoder, photo, "a face", 7, AutoencoderKL)
    np.testing.assert_array_equal(drawn, expected)
    config = json.loads((other / "vae" / "config.json").read_text())
    (other / "vae" / "config.json").write_text(json.dumps(config | {"_class_name": "AutoencoderOobleck"}))
    with pytest.raises(ModelError, match="not an autoencoder that ireu knows"):
        load_generators(str(other), None, "cpu")


def test_a_generator_can_be_driven_harder_and_back(portrait: Path, encoder: Encoder) -> None:
    """Guidance and scale belong to a call; the pipeline that keeps them must not mix two settings up."""
    plain = load_generators(str(portrait), ["image_embeds"], "cpu")[0]
    features = encoder.encode(encoder.pixels(photos(1)), plain.tap)
    null = encoder.null_features(plain.tap)
    first = plain.draw(features, null, ["a face"], [7])[0]
    for other in (plain.with_settings(scale=0.2), plain.with_settings(guidance=1.5)):
        assert np.abs(other.draw(features, null, ["a face"], [7])[0].astype(int) - first).max() > 0
        np.testing.assert_array_equal(plain.draw(features, null, ["a face"], [7])[0], first)
