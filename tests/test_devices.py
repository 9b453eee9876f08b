"""Networks and what they are given are on one device, and nothing is fetched from it on the way.

A made-up device stands for a GPU: its tensors have shapes and no values. Mixing devices is an error on it, and so is
reading a value.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from ireu_cli.encoders.families import load_encoder
from ireu_cli.encoders.family import HasBlocks, Trainable
from ireu_cli.encoders.mlp_site import MlpSite, watching
from ireu_cli.judges.judging import from_embedded
from ireu_cli.judges.recogniser import load_recogniser
from ireu_cli.maths.token_gate import TokenSums
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams
from ireu_cli.unlearning.gated.site_sums import SiteSums
from tests.tiny_bare import write_bare
from tests.tiny_dinov2 import write_dinov2
from tests.tiny_eva import write_eva
from tests.tiny_ir_se import write_ir_se
from tests.tiny_siglip import write_siglip

DEVICE = "npy:0"


@cache
def _register() -> None:
    """A process can do it once, and may come to this module twice."""
    _setup_privateuseone_for_python_backend("npy")


@pytest.fixture(scope="module")
def elsewhere() -> Callable[[Any], AbstractContextManager[None]]:
    """Moves a network to the made-up device; within it, nothing has values any more."""
    _register()
    mode = FakeTensorMode(allow_non_fake_inputs=True)

    @contextmanager
    def moved(network: Any) -> Iterator[None]:
        with mode:
            for part in network.modules():
                for kind in (part._parameters, part._buffers):
                    for name, tensor in kind.items():
                        if tensor is not None:
                            there = torch.empty(tensor.shape, dtype=tensor.dtype, device=DEVICE)
                            kind[name] = torch.nn.Parameter(there, False) if kind is part._parameters else there
            yield

    return moved


def clip(portrait: Path, _place: Path) -> str:
    return str(portrait / "image_encoder")


def bare(portrait: Path, place: Path) -> str:
    return str(write_bare(portrait / "image_encoder", place / "bare"))


def siglip(_portrait: Path, place: Path) -> str:
    return str(write_siglip(place / "siglip"))


def dinov2(_portrait: Path, place: Path) -> str:
    return str(write_dinov2(place / "dinov2"))


def eva(_portrait: Path, place: Path) -> str:
    return str(write_eva(place / "eva.pt"))


def ir_se(_portrait: Path, place: Path) -> str:
    return str(write_ir_se(place / "recognition_arcface_ir_se50.pth"))


KINDS = [
    (clip, "image_embeds"),
    (clip, "block-1+penultimate"),
    (bare, "penultimate"),
    (siglip, "last"),
    (siglip, "pooled"),
    (dinov2, "last"),
    (eva, "block-1+pooled"),
    (ir_se, "normed_embedding"),
]


def loaded(portrait: Path, place: Path, write: Callable[[Path, Path], str], tap: str) -> Trainable:
    found = load_encoder(EncoderParams(source=write(portrait, place), tap=tap), ARCFACE_LANDMARKS, "cpu")
    assert isinstance(found, Trainable)
    return found


@pytest.mark.parametrize(("write", "tap"), KINDS)
def test_an_encoder_takes_pixels_from_the_cpu_and_gives_features_there(
    portrait: Path, tmp_path: Path, elsewhere: Any, write: Any, tap: str
) -> None:
    encoder = loaded(portrait, tmp_path, write, tap)
    shape = encoder.null_pixels().shape
    with elsewhere(encoder.model):
        pixels = torch.empty(shape)
        with pytest.raises(RuntimeError, match="device"):
            encoder.read(encoder.model, pixels, tap)
        features = encoder.encode(pixels, tap)
        assert isinstance(features, FakeTensor)
        assert features.device.type == "cpu"
        assert features.dtype == torch.float32
        if isinstance(encoder, HasBlocks):
            assert encoder.entering(pixels, 1).device.type == "npy"


@pytest.mark.parametrize("write", [clip, siglip])
def test_sums_over_tokens_stay_on_the_device_until_they_are_kept(
    portrait: Path, tmp_path: Path, elsewhere: Any, write: Any
) -> None:
    encoder = loaded(portrait, tmp_path, write, "pooled")
    assert isinstance(encoder, HasBlocks)
    site, shape = MlpSite(1), encoder.null_pixels().shape
    with elsewhere(encoder.model):
        sums = SiteSums()
        for _ in range(2):
            sums = SiteSums() if sums.done == 0 else kept_and_read(sums)
            for _ in range(2):
                pixels = torch.empty(shape, device=DEVICE)
                with watching(encoder.model, site) as seen, torch.inference_mode():
                    encoder.last_state(encoder.model, pixels)
                    sums.add(encoder.model, site, seen[0])
                sums.done += len(pixels)
            found = {sums.gram.device.type, sums.others.square.device.type, sums.class_token.total.device.type}
            assert found <= {"npy", "cpu"}
            assert sums.gram.device.type == sums.class_token.total.device.type == "npy"


def kept_and_read(sums: SiteSums) -> SiteSums:
    """What a file gives back of sums."""
    kept = sums.tensors()
    assert {part.device.type for part in kept.values()} == {"cpu"}
    kinds = {"class_token": sums.class_token, "others": sums.others}
    read = {name: TokenSums(one.count, kept[f"{name}.total"], kept[f"{name}.square"]) for name, one in kinds.items()}
    return SiteSums(sums.done, 0, read["class_token"], read["others"], kept["gram"])


def test_the_embedded_recogniser_judges_together_where_it_is_not_on_a_cpu(portrait: Path, elsewhere: Any) -> None:
    recogniser = load_recogniser(portrait / "recogniser")
    faces = list(np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8))
    net = from_embedded(recogniser)
    assert net.run_all is None
    together = replace(net, run_all=lambda faces: recogniser.vectors(faces).numpy())
    torch.testing.assert_close(together.embed(faces), net.embed(faces))
    with elsewhere(recogniser.net):
        found = recogniser.vectors(faces)
        assert found.device.type == "cpu"
        assert found.shape == (3, net.width)
    assert recogniser.device.type == "npy"
