"""An exported encoder in a stock diffusers pipeline: every way of mounting it draws the same."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from ireu_cli.encoders.clip import load_encoder, with_delta
from ireu_cli.params import EncoderParams
from ireu_cli.store.artifacts import read_delta
from tests.conftest import run_ireu
from tests.tiny_generator import adapter_weights, draw, tiny_pipeline

ADAPTERS = {"base": "ip-adapter_sd15.safetensors", "plus": "ip-adapter-plus_sd15.safetensors"}


@pytest.fixture(scope="module")
def job(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with two adapters, and `out`, its export with an edit that reaches both."""
    folder = tmp_path_factory.mktemp("routes") / "demo"
    shutil.copytree(samples, folder)
    models = folder / "repo" / "models"
    shutil.copytree(samples / "encoder", models / "image_encoder")
    config = CLIPVisionModelWithProjection.config_class.from_pretrained(models / "image_encoder")
    for kind, name in ADAPTERS.items():
        sizes = {"hidden": config.hidden_size, "projection": config.projection_dim}
        save_file(adapter_weights(tiny_pipeline().unet, kind, **sizes), models / name)
    source = models / "image_encoder"
    for command in (
        ("locate", "--encoder", source, "--tap", "penultimate", "--method", "all"),
        ("unlearn", "--mask", "mask.pt", "--layers", "blocks:0-1", "--steps", "40"),
        ("export", "--allow-failed", "--delta", "delta.safetensors", "--format", "ip-adapter", "-o", "out"),
        (
            "export",
            "--allow-failed",
            "--delta",
            "delta.safetensors",
            "--format",
            "ip-adapter",
            "--dtype",
            "float16",
            "-o",
            "half",
        ),
    ):
        done = run_ireu(*command, cwd=folder)
        assert done.code == 0, done.err
    return folder


def photo(job: Path) -> Any:
    return Image.open(sorted((job / "faces").rglob("*.png"))[0]).convert("RGB")


def mounted(repository: Path, kind: str, pipeline: Any | None = None, **more: Any) -> Any:
    """A pipeline that loads encoder and adapter from a repository, as its README says."""
    pipeline = tiny_pipeline() if pipeline is None else pipeline
    pipeline.load_ip_adapter(
        str(repository), subfolder="models", weight_name=ADAPTERS[kind], low_cpu_mem_usage=False, **more
    )
    pipeline.set_ip_adapter_scale(1.0)
    return pipeline


@pytest.mark.parametrize("kind", ADAPTERS)
def test_every_way_of_mounting_draws_the_same(job: Path, tmp_path: Path, kind: str) -> None:
    exported = job / "out" / "models" / "image_encoder"
    encoder = CLIPVisionModelWithProjection.from_pretrained(exported).eval()
    after_loading = mounted(job / "repo", kind)
    original = draw(after_loading, photo(job))
    after_loading.image_encoder = encoder
    before_loading = tiny_pipeline()
    before_loading.register_modules(image_encoder=encoder)
    beside = tmp_path / "repo"
    shutil.copytree(job / "repo", beside)
    shutil.copytree(exported, beside / "models" / "image_encoder_edited")
    pictures = [
        draw(pipeline, photo(job))
        for pipeline in (
            mounted(job / "out", kind),
            after_loading,
            mounted(job / "repo", kind, before_loading),
            mounted(beside, kind, image_encoder_folder="image_encoder_edited"),
        )
    ]
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)
    assert not np.array_equal(pictures[0], original)


def test_unloading_and_loading_again_brings_the_original_back(job: Path) -> None:
    """What the documentation warns of: diffusers loads the encoder of the adapter's own repository."""
    original = draw(mounted(job / "repo", "plus"), photo(job))
    pipeline = mounted(job / "repo", "plus")
    pipeline.image_encoder = CLIPVisionModelWithProjection.from_pretrained(job / "out" / "models" / "image_encoder")
    edited = draw(pipeline, photo(job))
    pipeline.unload_ip_adapter()
    assert np.array_equal(draw(mounted(job / "repo", "plus", pipeline), photo(job)), original)
    pipeline.unload_ip_adapter()
    assert np.array_equal(draw(mounted(job / "out", "plus", pipeline), photo(job)), edited)


def test_a_pipeline_that_is_saved_keeps_the_edit(job: Path, tmp_path: Path) -> None:
    encoder = CLIPVisionModelWithProjection.from_pretrained(job / "out" / "models" / "image_encoder")
    pipeline = tiny_pipeline()
    pipeline.register_modules(image_encoder=encoder, feature_extractor=CLIPImageProcessorPil())
    pipeline.save_pretrained(tmp_path)
    saved = CLIPVisionModelWithProjection.from_pretrained(tmp_path / "image_encoder").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_pipeline_in_half_precision_draws_with_the_edit(job: Path, kind: str) -> None:
    """Weights of half precision throughout, the encoder's too, as services run them."""
    pictures = []
    for repository in (job / "repo", job / "half"):
        pipeline = mounted(repository, kind)
        pipeline = pipeline.to(torch.float16)
        assert pipeline.image_encoder.dtype == torch.float16
        pictures.append(draw(pipeline, photo(job)))
    assert np.isfinite(pictures[1]).all()
    assert not np.array_equal(pictures[0], pictures[1])


def test_both_null_images_are_held(job: Path, tmp_path: Path) -> None:
    """Grey after normalisation, and a black picture: each goes through the encoder whenever somebody draws."""
    work = tmp_path / "demo"
    shutil.copytree(job, work)
    for command in (
        ("locate", "--tap", "pooled", "--method", "all", "-o", "all.pt"),
        ("unlearn", "--mask", "all.pt", "--method", "gated", "--set", "gated.people=1", "-o", "gated.safetensors"),
    ):
        assert run_ireu(*command, cwd=work).code == 0
    original = load_encoder(EncoderParams(source=str(work / "encoder")), "cpu")
    edited = with_delta(original, read_delta(work / "gated.safetensors"))
    before, after = (encoder.encode(encoder.null_pixels(), "pooled") for encoder in (original, edited))
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in sorted((work / "faces").rglob("*.png"))]
    shown, changed = (encoder.encode(encoder.pixels(photos), "pooled") for encoder in (original, edited))
    null = ((after - before).norm(dim=1) / before.norm(dim=1)).max()
    assert float(null) < 0.02 * float(((changed - shown).norm(dim=1) / shown.norm(dim=1)).max())
    assert not torch.allclose(before[0], before[1])
