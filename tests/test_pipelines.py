"""Whole pipelines as generators: their pictures are those of the stock pipeline, before an edit and after."""

import copy
import importlib
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file

from ireu_cli.encoders.clip import Encoder, load_encoder, with_delta
from ireu_cli.errors import ModelError
from ireu_cli.generators import mounts
from ireu_cli.generators.generator import Generator, load_generators
from ireu_cli.params import EncoderParams
from ireu_cli.values import WeightDelta
from tests.tiny_pipelines import SIDE, write_flux, write_sd, write_sdxl

SIZES = {"hidden": 16, "projection": 12}
"""Of the encoder of the tiny bundle."""
KINDS = ("sd base", "sd plus", "sdxl base", "sdxl plus", "flux")


@pytest.fixture(scope="module")
def bundle(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose generators are whole pipelines."""
    folder = tmp_path_factory.mktemp("pipelines") / "bundle"
    shutil.copytree(portrait, folder)
    index = json.loads((folder / "portrait.json").read_text())
    entries = []
    for kind in KINDS:
        family, _, adapter = kind.partition(" ")
        place = folder / kind.replace(" ", "-")
        if family == "flux":
            write_flux(place, projection=SIZES["projection"])
        else:
            {"sd": write_sd, "sdxl": write_sdxl}[family](place, adapter, **SIZES)
        tap = "penultimate" if adapter == "plus" else "image_embeds"
        files = {"pipeline": place.name, "adapter": f"{place.name}-adapter.safetensors"}
        entries.append({"name": kind, "tap": tap, "steps": 2, "guidance": 3.0, "scale": 0.7, "side": SIDE} | files)
    (folder / "portrait.json").write_text(json.dumps(index | {"generators": entries}))
    return folder


@pytest.fixture(scope="module")
def encoder(bundle: Path) -> Encoder:
    return load_encoder(EncoderParams(source=str(bundle / "image_encoder")), "cpu")


@pytest.fixture(scope="module")
def generators(bundle: Path) -> dict[str, Generator]:
    return {generator.name: generator for generator in load_generators(str(bundle), None, "cpu")}


def edited(encoder: Encoder) -> Encoder:
    torch.manual_seed(9)
    name = "vision_model.encoder.layers.0.mlp.fc2.weight"
    return with_delta(encoder, WeightDelta({name: torch.randn_like(encoder.model.state_dict()[name])}))


def photo(seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (40, 40, 3), np.uint8)


def stock(bundle: Path, kind: str, encoder: Encoder, seed: int, guidance: float = 3.0) -> Any:
    """The picture of the pipeline that a user builds, with the encoder mounted and a photo handed in."""
    place = bundle / kind.replace(" ", "-")
    pipeline: Any = DiffusionPipeline.from_pretrained(
        place, image_encoder=encoder.model, feature_extractor=encoder.processor
    )
    pipeline.load_ip_adapter(
        str(bundle), subfolder="", weight_name=f"{place.name}-adapter.safetensors", low_cpu_mem_usage=False
    )
    pipeline.set_ip_adapter_scale(0.7)
    pipeline.set_progress_bar_config(disable=True)
    guided: dict[str, Any] = {"guidance_scale": guidance}
    if kind == "flux":
        guided = {"true_cfg_scale": guidance, "negative_prompt": "" if guidance > 1 else None}
    drawn = pipeline(prompt="a face", ip_adapter_image=Image.fromarray(photo()), num_inference_steps=2, height=SIDE,
                     width=SIDE, generator=torch.Generator().manual_seed(seed), **guided)  # fmt: skip
    return np.asarray(drawn.images[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edit", [False, True])
def test_pictures_are_those_of_the_stock_pipeline(
    bundle: Path, generators: dict[str, Generator], encoder: Encoder, kind: str, edit: bool
) -> None:
    mounted, generator = edited(encoder) if edit else encoder, generators[kind]
    features = mounted.encode(mounted.pixels([photo()]), generator.tap)
    drawn = generator.draw(features, generator.null_of(mounted), ["a face"], [5])[0]
    np.testing.assert_array_equal(drawn, stock(bundle, kind, mounted, 5))


@pytest.mark.parametrize("kind", ["sdxl base", "flux"])
def test_without_guidance_no_null_image_counts(
    bundle: Path, generators: dict[str, Generator], encoder: Encoder, kind: str
) -> None:
    generator = generators[kind].with_settings(guidance=1.0)
    features = encoder.encode(encoder.pixels([photo()]), generator.tap)
    null = generator.null_of(encoder)
    drawn = generator.draw(features, null, ["a face"], [5])[0]
    np.testing.assert_array_equal(drawn, generator.draw(features, null + 1, ["a face"], [5])[0])
    np.testing.assert_array_equal(drawn, stock(bundle, kind, encoder, 5, guidance=1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_depends_on_photo_seed_scale_null_and_encoder(
    generators: dict[str, Generator], encoder: Encoder, kind: str
) -> None:
    generator, changed = generators[kind], edited(encoder)
    first, second = (encoder.encode(encoder.pixels([photo(seed)]), generator.tap) for seed in (0, 1))
    null = generator.null_of(encoder)
    drawn = generator.draw(first, null, ["a face"], [5])[0]
    after = changed.encode(changed.pixels([photo()]), generator.tap)
    others = [
        generator.draw(second, null, ["a face"], [5])[0],
        generator.draw(first, null, ["a face"], [6])[0],
        generator.draw(first, null + 1, ["a face"], [5])[0],
        generator.draw(after, null, ["a face"], [5])[0],
        generator.with_settings(scale=0.1).draw(first, null, ["a face"], [5])[0],
    ]
    assert all(bool((drawn != other).any()) for other in others)
    np.testing.assert_array_equal(drawn, generator.draw(first, null, ["a face"], [5])[0])


def test_flux_sends_a_black_picture_and_the_others_a_grey_one(
    generators: dict[str, Generator], encoder: Encoder
) -> None:
    black = encoder.encode(encoder.pixels([np.zeros((20, 30, 3), np.uint8)]), "image_embeds")[0]
    grey = encoder.encode(torch.zeros_like(encoder.pixels([photo()])), "penultimate")[0]
    assert torch.equal(generators["flux"].null_of(encoder), black)
    assert torch.equal(generators["sdxl base"].null_of(encoder), torch.zeros(12))
    assert torch.allclose(generators["sdxl plus"].null_of(encoder), grey)


def changed(bundle: Path, work: Path, entries: slice, **settings: Any) -> Path:
    """A copy of the bundle with some of its generators, all of which get other settings."""
    shutil.copytree(bundle, work)
    index = json.loads((work / "portrait.json").read_text())
    index["generators"] = [entry | settings for entry in index["generators"][entries]]
    (work / "portrait.json").write_text(json.dumps(index))
    return work


def test_a_mount_of_somebody_elses_drives_what_it_takes(
    bundle: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounts, "_MOUNTS", [*mounts._MOUNTS])
    sys.modules.pop("tests.kinds.toy_mount", None)
    importlib.import_module("tests.kinds.toy_mount")
    other = changed(bundle, tmp_path / "other", slice(0, 3), side=None)
    found = {generator.name: generator for generator in load_generators(str(other), None, "cpu")}
    features = [encoder.encode(encoder.pixels([photo(seed)]), "image_embeds") for seed in (0, 1)]
    for name, is_blind in (("sdxl base", True), ("sd base", False)):
        generator = found[name]
        assert (generator.side == 32) == is_blind
        null = generator.null_of(encoder)
        assert torch.equal(null, torch.full((12,), float(is_blind)))
        first, second = (generator.draw(each, null, ["a face"], [5])[0] for each in features)
        assert np.array_equal(first, second) == is_blind


def of_dtype(bundle: Path, work: Path, dtype: str) -> dict[str, Generator]:
    """The generators of a copy of the bundle, in another dtype."""
    other = changed(bundle, work, slice(None), dtype=dtype)
    return {generator.name: generator for generator in load_generators(str(other), None, "cpu")}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sketches_let_gradients_pass(bundle: Path, encoder: Encoder, tmp_path: Path, dtype: str) -> None:
    """Also through the decoder of SDXL, which a pipeline in half precision raises to single and lowers again."""
    every = of_dtype(bundle, tmp_path / "other", dtype)
    for kind in ("sd plus", "sdxl base", "flux"):
        _sketches(every[kind], encoder)


def test_a_decoder_that_stays_in_single_precision_draws_the_same_but_for_last_bits(
    bundle: Path, encoder: Encoder, tmp_path: Path
) -> None:
    generator = of_dtype(bundle, tmp_path / "other", "float16")["sdxl base"]
    features = encoder.encode(encoder.pixels([photo()]), generator.tap)
    drawn = generator.draw(features, generator.null_of(encoder), ["a face"], [5])[0]
    half = replace(encoder, model=copy.deepcopy(encoder.model).half())
    place = bundle / "sdxl-base"
    pipeline: Any = DiffusionPipeline.from_pretrained(place, torch_dtype=torch.float16)
    pipeline.load_ip_adapter(str(bundle), subfolder="", weight_name="sdxl-base-adapter.safetensors",
                             image_encoder_folder=None, low_cpu_mem_usage=False)  # fmt: skip
    pipeline = pipeline.to(torch.float16)
    pipeline.set_ip_adapter_scale(0.7)
    assert pipeline.vae.config.force_upcast
    both = [torch.stack([generator.null_of(half), features[0]]).half()[:, None]]
    stock = pipeline(prompt="a face", ip_adapter_image_embeds=both, num_inference_steps=2, guidance_scale=3.0,
                     height=SIDE, width=SIDE, generator=torch.Generator().manual_seed(5)).images[0]  # fmt: skip
    assert np.abs(drawn.astype(int) - np.asarray(stock).astype(int)).max() <= 1
    other = generator.draw(features, generator.null_of(encoder), ["a face"], [6])[0]
    assert np.abs(drawn.astype(int) - other.astype(int)).max() > 10


def _sketches(generator: Generator, encoder: Encoder) -> None:
    features = encoder.encode(encoder.pixels([photo()]), generator.tap).clone().requires_grad_()
    sketch = generator.sketch(features, generator.null_of(encoder), ["a face"], [1], 2)
    sketch.sum().backward()  # type: ignore[no-untyped-call]
    assert features.grad is not None
    assert bool(features.grad.abs().sum() > 0)


@pytest.mark.parametrize(
    ("change", "is_other"),
    [({"steps": 3}, True), ({"dtype": "bfloat16"}, True), ({"side": 64}, True), ({"name": "x"}, False)],
)
def test_the_fingerprint_covers_settings(bundle: Path, tmp_path: Path, change: dict[str, Any], is_other: bool) -> None:
    before = load_generators(str(bundle), None, "cpu")[0]
    other = changed(bundle, tmp_path / "other", slice(1), **change)
    after = load_generators(str(other), None, "cpu")[0]
    assert (after.fingerprint != before.fingerprint) == is_other


def test_pipelines_draw_in_the_dtype_that_is_asked_for(bundle: Path, encoder: Encoder, tmp_path: Path) -> None:
    for generator in of_dtype(bundle, tmp_path / "other", "bfloat16").values():
        parts = [part for part in generator.pipeline.components.values() if isinstance(part, torch.nn.Module)]
        assert {weight.dtype for part in parts for weight in part.parameters()} == {torch.bfloat16}
        assert not any(weight.requires_grad for part in parts for weight in part.parameters())
        features = encoder.encode(encoder.pixels([photo()]), generator.tap)
        assert generator.draw(features, generator.null_of(encoder), ["a face"], [5])[0].shape == (SIDE, SIDE, 3)


@pytest.mark.parametrize("part", ["unet/config.json", "scheduler/scheduler_config.json", "tokenizer/merges.txt"])
def test_the_fingerprint_covers_files(bundle: Path, tmp_path: Path, part: str) -> None:
    from ireu_cli.generators.pipelines import digest_of_files

    place, adapter = tmp_path / "sd-base", bundle / "sd-base-adapter.safetensors"
    shutil.copytree(bundle / "sd-base", place)
    (place / "tokenizer" / "merges.txt").write_text("#version: 0.2\n")
    before = digest_of_files(place, adapter)
    other = tmp_path / "moved"
    shutil.copytree(place, other)
    assert digest_of_files(other, adapter) == before
    (other / "README.md").write_text("words")
    (other / ".gitattributes").write_text("words")
    (other / ".cache").mkdir()
    (other / ".cache" / "x.metadata").write_text("fetched today")
    (other / "unet" / ".unfinished").write_text("words")
    (other / "image_encoder").mkdir()
    (other / "image_encoder" / "config.json").write_text("{}")
    assert digest_of_files(other, adapter) == before
    assert digest_of_files(other, bundle / "sd-plus-adapter.safetensors") != before
    assert (other / part).exists()
    with (other / part).open("a") as file:
        file.write(" ")
    assert digest_of_files(other, adapter) != before


@pytest.mark.parametrize(
    ("part", "name"),
    [("unet", "conv_in.weight"), ("text_encoder", None), ("vae", "decoder.conv_in.weight")],
)
def test_a_pipeline_that_lacks_weights_is_refused(bundle: Path, tmp_path: Path, part: str, name: str | None) -> None:
    """Diffusers would draw random ones in their place, others with every start."""
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    (path,) = (other / "sd-base" / part).glob("*.safetensors")
    state = load_file(path)
    del state[name or next(key for key in sorted(state) if key.endswith("fc1.weight"))]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(ModelError, match=f"The {part} of the pipeline .* lacks weights"):
        load_generators(str(other), None, "cpu", names=["sd base"])


def test_loading_says_nothing(bundle: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_generators(str(bundle), None, "cpu")
    assert capfd.readouterr() == ("", "")


def test_only_what_is_asked_for_is_loaded(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    shutil.rmtree(other / "flux")
    assert [g.name for g in load_generators(str(other), None, "cpu", names=["sdxl plus"])] == ["sdxl plus"]
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_generators(str(other), None, "cpu", names=["flux"])


@pytest.mark.parametrize("change", [{"side": 20}, {"pipeline": None, "unet": "a/unet", "dtype": "float16"}])
def test_settings_that_no_pipeline_takes_are_refused(bundle: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    index = json.loads((bundle / "portrait.json").read_text())
    index["generators"][0] |= change
    (tmp_path / "portrait.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"portrait\.json"):
        load_generators(str(tmp_path), None, "cpu")


def test_what_cannot_be_driven_is_refused_in_words(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    index = json.loads((other / "portrait.json").read_text())
    (other / "sd-base" / "model_index.json").write_text(
        json.dumps(
            {
                "_class_name": "DDPMPipeline",
                "scheduler": ["diffusers", "DDIMScheduler"],
                "unet": ["diffusers", "UNet2DConditionModel"],
            }
        )
    )
    index["generators"] = index["generators"][:1]
    (other / "portrait.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="takes no IP-Adapter"):
        load_generators(str(other), None, "cpu")
    index["generators"][0]["unet"] = "a/unet"
    (other / "portrait.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"portrait\.json"):
        load_generators(str(other), None, "cpu")
