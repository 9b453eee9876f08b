"""SigLIP: told by its tensors, read as transformers reads it, edited in its pooling head or by training."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

from ireu_cli.encoders import families as encoders
from ireu_cli.encoders.clip import Encoder, last_state, load_encoder, read_out, read_tap, readout_inverse, with_delta
from ireu_cli.encoders.files.checkpoint import open_checkpoint
from ireu_cli.encoders.files.clip_files import config_of
from ireu_cli.encoders.groups import groups_of
from ireu_cli.encoders.mlp_site import HEAD, MlpSite
from ireu_cli.encoders.reach import SIGLIP, reach_of, select_weights
from ireu_cli.encoders.systems import SYSTEMS
from ireu_cli.encoders.towers import siglip, tower
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams, Tap
from ireu_cli.store.artifacts import read_delta
from ireu_cli.unlearning.block.one_block import Tail, block_for
from ireu_cli.unlearning.gated.solve import Readout, Wanted, change_of
from ireu_cli.values import WeightDelta
from tests.conftest import manifest, run_ireu
from tests.tiny_siglip import SIZES, write_siglip

GATED = ("--method", "gated", "--set", "gated.people=2", "--set", "gated.max_false_alarm=0.2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_siglip(tmp_path / "siglip")


@pytest.fixture
def tiny(folder: Path) -> Encoder:
    return load(folder)


def load(place: Path) -> Encoder:
    return load_encoder(EncoderParams(source=str(place), tap="pooled"), "cpu")


def pixels(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 30, 30, generator=torch.Generator().manual_seed(3))


class TestReading:
    @pytest.mark.parametrize("prefix", tower.PREFIXES)
    def test_taps_are_what_transformers_gives(self, prefix: str, tmp_path: Path) -> None:
        write_siglip(place := tmp_path / "place", prefix)
        reference = SiglipVisionModel(SiglipVisionConfig(**SIZES)).eval()
        named = load_file(place / "model.safetensors")
        own = {name.removeprefix(prefix): part for name, part in named.items() if not name.startswith("text_model.")}
        vision = getattr(reference, "vision_model", reference)
        vision.load_state_dict(own)
        with torch.no_grad():
            wanted = reference(pixels(), output_hidden_states=True)
            found = {tap: read_tap(load(place).model, pixels(), tap) for tap in SIGLIP.taps}
        assert torch.equal(found["penultimate"], wanted.hidden_states[-2])
        assert torch.equal(found["last"], wanted.last_hidden_state)
        torch.testing.assert_close(found["pooled"], wanted.pooler_output)

    def test_files_of_every_kind_hold_the_same_encoder(self, folder: Path, tmp_path: Path) -> None:
        alone = write_siglip(tmp_path / "alone", "")
        shutil.copytree(folder, tmp_path / "half")
        halves = {name: part.half().float() for name, part in load_file(folder / "model.safetensors").items()}
        save_file(halves, tmp_path / "half" / "model.safetensors")
        lone = tmp_path / "file" / "sigclip.safetensors"
        lone.parent.mkdir()
        shutil.copyfile(folder / "model.safetensors", lone)
        shutil.copyfile(folder / "config.json", lone.parent / "config.json")
        prints = [load(place).fingerprint for place in (folder, alone, lone)]
        assert len(set(prints)) == 1
        assert load(tmp_path / "half").fingerprint not in prints
        assert open_checkpoint(lone).layout.name == "single-file"
        assert open_checkpoint(folder).layout.name == "siglip-folder"

    def test_a_whole_models_config_is_read(self, folder: Path) -> None:
        vision = json.loads((folder / "config.json").read_text())
        whole = {"model_type": "siglip", "text_config": {}, "vision_config": vision | {"layer_norm_eps": 1e-3}}
        (folder / "config.json").write_text(json.dumps(whole))
        assert load(folder).model.config.layer_norm_eps == 1e-3

    def test_a_picture_is_prepared_whole(self, tiny: Encoder) -> None:
        wide = np.zeros((20, 60, 3), np.uint8)
        wide[:, :30] = 255
        found = tiny.pixels([wide])
        assert found.shape == (1, 3, 30, 30)
        assert found[0, :, :, :10].eq(1).all()
        assert found[0, :, :, -10:].eq(-1).all()
        assert tiny.null_pixels()[0].eq(0).all()
        assert tiny.null_pixels()[1].eq(-1).all()

    @pytest.mark.parametrize(
        "sizes",
        [(1152, 4304, 27, 16, 384, 14), (1152, 4304, 27, 16, 512, 16), (768, 3072, 12, 12, 224, 16),
         (768, 3072, 12, 12, 256, 16)],
    )  # fmt: skip
    def test_published_ones_are_told_by_their_tensors(self, sizes: tuple[int, ...]) -> None:
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size",
                 "patch_size")  # fmt: skip
        with torch.device("meta"):
            config = SiglipVisionConfig(**dict(zip(names, sizes, strict=True)))
            state = siglip.SiglipTower(config).state_dict()
        found = SiglipVisionConfig(**siglip.sizes_in(state))
        assert {name: value for name, value in found.to_dict().items() if config.to_dict()[name] != value} == {}

    def test_sizes_that_nobody_published_need_a_config(self, folder: Path) -> None:
        assert config_of(open_checkpoint(folder)).hidden_size == 32
        (folder / "config.json").unlink()
        with pytest.raises(ModelError, match="cannot be told from its tensors"):
            config_of(open_checkpoint(folder))

    @pytest.mark.parametrize(
        "text",
        ["{not json", "[]", '{"model_type": "clip_vision_model"}', '{"model_type": "siglip", "vision_config": 1}'],
    )
    def test_a_config_that_is_not_its_own_is_refused(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text)
        with pytest.raises(ModelError, match="cannot be used: it"):
            load(folder)

    def test_a_config_cannot_take_the_head_off(self, folder: Path) -> None:
        wanted = load(folder).fingerprint
        told = json.loads((folder / "config.json").read_text()) | {"vision_use_head": False}
        (folder / "config.json").write_text(json.dumps(told))
        assert load(folder).fingerprint == wanted

    def test_without_its_head_it_is_refused(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        save_file({name: part for name, part in state.items() if ".head." not in name}, folder / "model.safetensors")
        with pytest.raises(ModelError, match="holds SigLIP without its pooling head"):
            load(folder)

    @pytest.mark.parametrize(
        "settings",
        [
            {"size": {"shortest_edge": 30}, "crop_size": {"height": 30, "width": 30}},
            {"size": 30},
            {"size": {"height": 28, "width": 28}},
            [],
            {"size": {"height": 30, "width": 30}, "image_mean": [0.5]},
        ],
    )
    def test_preprocessing_of_another_kind(self, folder: Path, settings: Any) -> None:
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
            load(folder)
        # Beside a lone file lies what is of others.
        lone = folder / "sigclip.safetensors"
        (folder / "model.safetensors").rename(lone)
        if "image_mean" not in settings:
            assert load(lone).pixels([np.zeros((20, 60, 3), np.uint8)]).shape == (1, 3, 30, 30)

    def test_its_own_preprocessing_is_read(self, folder: Path) -> None:
        settings = {"size": {"height": 30, "width": 30}, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings))
        assert load(folder).pixels([np.full((9, 9, 3), 255, np.uint8)]).max() == 1

    def test_a_damaged_one_is_refused(self, folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        del state["vision_model.encoder.layers.1.mlp.fc1.bias"]
        save_file(state, folder / "model.safetensors")
        with pytest.raises(ModelError, match=r"lacks 1 weights, first .*\.1\.mlp\.fc1\.bias"):
            load(folder)

    def test_it_has_no_image_embeds(self, folder: Path) -> None:
        params = EncoderParams(source=str(folder), tap="image_embeds")
        with pytest.raises(ConfigError, match="no tap image_embeds: it is a SigLIP vision transformer"):
            encoders.load_encoder(params, ARCFACE_LANDMARKS, "cpu")

    def test_inspect_says_what_it_is(self, folder: Path) -> None:
        card = run_ireu("inspect", folder, "--json").json
        assert card["kind"] == "SigLIP vision transformer"
        assert card["architecture"] == "32 wide, 3 blocks, patches of 7, 30 px, gelu_pytorch_tanh"
        assert list(card["taps"]) == ["last", "penultimate", "pooled"]
        assert card["edit_sites"]["post_layernorm"] == ["last", "pooled"]
        assert card["edit_sites"]["head"] == ["pooled"]
        assert "at others up to 16, who take half" in card["gated_holds"]
        assert groups_of(open_checkpoint(folder)) == ()


_TRANSFORMERS_4 = """
import sys, torch
from pathlib import Path
from ireu_cli.encoders.clip import load_encoder, read_tap
from ireu_cli.encoders.reach import SIGLIP
from ireu_cli.params import EncoderParams
encoder = load_encoder(EncoderParams(source=sys.argv[1], tap="pooled"), "cpu")
pixels = torch.load(sys.argv[2], weights_only=True)
with torch.no_grad():
    found = {tap: read_tap(encoder.model, pixels, tap) for tap in SIGLIP.taps}
torch.save(found | {"entering": encoder.entering(pixels, 1).clone()}, sys.argv[2])
print(encoder.fingerprint)
"""


@pytest.mark.parametrize("prefix", tower.PREFIXES)
def test_transformers_4_computes_the_same(tmp_path: Path, prefix: str) -> None:
    place = os.environ.get("TEST_TRANSFORMERS4")
    if not place:
        pytest.skip("TEST_TRANSFORMERS4 is not set: a folder with transformers 4.57, from pip install --target")
    encoder = load(write_siglip(tmp_path / "place", prefix))
    torch.save(pixels(), tmp_path / "pixels.pt")
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-c",
        _TRANSFORMERS_4,
        str(tmp_path / "place"),
        str(tmp_path / "pixels.pt"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": place})
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == encoder.fingerprint
    found = torch.load(tmp_path / "pixels.pt", weights_only=True)
    with torch.no_grad():
        for tap in SIGLIP.taps:
            torch.testing.assert_close(found[tap], read_tap(encoder.model, pixels(), tap))
    torch.testing.assert_close(found["entering"], encoder.entering(pixels(), 1))


class TestReach:
    @pytest.mark.parametrize(
        "name",
        [
            "vision_model.embeddings.position_embedding.weight",
            "vision_model.encoder.layers.1.mlp.fc2.weight",
            "vision_model.encoder.layers.2.mlp.fc2.weight",
            "vision_model.post_layernorm.weight",
            "vision_model.head.probe",
            "vision_model.head.mlp.fc1.weight",
        ],
    )
    def test_taps_change_as_is_said(self, tiny: Encoder, name: str) -> None:
        change = 0.1 * torch.randn(tiny.model.state_dict()[name].shape, generator=torch.Generator().manual_seed(0))
        edited = with_delta(tiny, WeightDelta({name: change}))
        with torch.no_grad():
            both = [{tap: read_tap(one.model, pixels(), tap) for tap in SIGLIP.taps} for one in (tiny, edited)]
        changed = tuple(tap for tap in SIGLIP.taps if not torch.equal(both[0][tap], both[1][tap]))
        assert changed == reach_of([name], tiny.blocks, SIGLIP).taps
        assert changed

    def test_layers_are_named_by_its_own_parts(self, tiny: Encoder) -> None:
        names = list(tiny.model.state_dict())
        head = select_weights(names, "head", 3, "pooled", SIGLIP)
        assert head == sorted(name for name in names if ".head." in name)
        with pytest.raises(ConfigError, match="cannot change last"):
            select_weights(names, "head", 3, "last", SIGLIP)
        with pytest.raises(ConfigError, match="projection"):
            select_weights(names, "projection", 3, "pooled", SIGLIP)

    @pytest.mark.parametrize("tap", SIGLIP.taps)
    def test_the_tail_is_the_rest_of_the_encoder(self, tiny: Encoder, tap: Tap) -> None:
        for block in range(block_for(tiny.blocks, tap) + 1):
            states = tiny.entering(pixels(), block)
            with torch.no_grad():
                torch.testing.assert_close(Tail(tiny, block, tap)(states), read_tap(tiny.model, pixels(), tap))


class TestTheHead:
    def test_the_site_is_the_heads_hidden_layer(self, tiny: Encoder) -> None:
        site = MlpSite(HEAD)
        state = tiny.model.state_dict()
        assert site.names == [f"vision_model.head.mlp.{part}" for part in
                              ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")]  # fmt: skip
        for name, weight in site.weights(tiny.model).items():
            assert torch.equal(weight.float(), state[name])

    def test_a_change_of_the_pooled_vector_is_what_is_written(self, tiny: Encoder) -> None:
        with torch.no_grad():
            # Far from unit deviation, which a layer norm would take off.
            states = 5 * last_state(tiny.model, pixels(4))
        assert torch.equal(read_out(tiny.model, states, "pooled"), states)
        readout = Readout(lambda x: read_out(tiny.model, x, "pooled"), readout_inverse(tiny.model, "pooled"), False)
        average, mask = torch.arange(32.0), torch.arange(32) < 20
        change = change_of(Wanted(states, states, states), readout, average, mask, 1.5)
        wanted = 1.5 * mask * (average - states.mean(0))
        torch.testing.assert_close(change, wanted.double(), atol=1e-4, rtol=1e-4)


@pytest.fixture(scope="module")
def located(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose mask is located on `pooled`; tests copy it."""
    job = tmp_path_factory.mktemp("siglip") / "job"
    shutil.copytree(samples, job)
    # Random weights know nobody: so the target's photos are nearly one.
    photo, *more = sorted((job / "faces").rglob("*.png"))
    noise = np.random.default_rng(0)
    for path in more:
        shaken = np.array(Image.open(photo).convert("RGB")).astype(int) + noise.integers(-9, 10, (112, 112, 3))
        Image.fromarray(shaken.clip(0, 255).astype(np.uint8)).save(path)
    encoder = write_siglip(job / "siglip")
    assert run_ireu("locate", "--encoder", encoder, "--tap", "pooled", "--method", "all", cwd=job).code == 0
    return job


@pytest.fixture
def job(located: Path, tmp_path: Path) -> Path:
    shutil.copytree(located, tmp_path / "job")
    return tmp_path / "job"


def ok(job: Path, *command: Any) -> Any:
    done = run_ireu(*command, cwd=job)
    assert done.code == 0, done.err
    return done


class TestRequests:
    def test_only_what_is_found_changes(self, job: Path) -> None:
        ok(job, "unlearn", "--mask", "mask.pt", *GATED)
        delta = read_delta(job / "delta.safetensors")
        assert set(delta.tensors) == set(MlpSite(HEAD).names)
        assert manifest(job, "delta.safetensors")["metrics"]["edit_site"] == "head"
        original = load(job / "siglip")
        edited = with_delta(original, delta)
        people = {place: [np.array(Image.open(path).convert("RGB")) for path in sorted((job / place).rglob("*.png"))]
                  for place in ("faces", "others")}  # fmt: skip
        moved = {}
        with torch.no_grad():
            for place, images in people.items():
                before, after = (read_tap(one.model, one.pixels(images), "pooled") for one in (original, edited))
                moved[place] = (after - before).norm(dim=1) / before.norm(dim=1)
        assert moved["faces"].median() > 5 * moved["others"].median()

    def test_one_after_another_and_back(self, job: Path) -> None:
        ok(job, "unlearn", "--mask", "mask.pt", *GATED, "--set", "record.case_id=a")
        first = read_delta(job / "delta.safetensors").tensors
        second = sorted((job / "others").iterdir())[-1]
        shutil.copytree(second, job / "more" / second.name)
        again = ("--targets", "more", "--onto", "delta.safetensors", "-o", "both.safetensors")
        ok(job, "unlearn", "--mask", "mask.pt", *GATED, "--set", "record.case_id=b", *again)
        ok(job, "unlearn", "--onto", "both.safetensors", "--withdraw", "b", "-o", "back.safetensors")
        found = read_delta(job / "back.safetensors").tensors
        assert all(torch.equal(found[name], change) for name, change in first.items())

    def test_the_class_token_is_refused(self, job: Path) -> None:
        more = ("--for", "sd3-ip-adapter", "--set", "encoder.groups=S", "--set", "gated.found_in=class_token")
        done = run_ireu("unlearn", "--mask", "mask.pt", *GATED, *more, cwd=job)
        assert (done.code, "The encoder has no class token" in done.err) == (3, True)
        assert not (job / "delta.safetensors").exists()

    @pytest.mark.parametrize(("tap", "system"), [("penultimate", "sd3-ip-adapter"), ("last", "flux-redux")])
    def test_tokens_are_reached_through_all_of_them(self, job: Path, tap: Tap, system: str) -> None:
        ok(job, "locate", "--encoder", "siglip", "--tap", tap, "--method", "all", "-o", "tokens.pt")
        more = ("--set", "gated.rank=8", "--set", "encoder.groups=S", "--for", system)
        done = ok(job, "unlearn", "--mask", "tokens.pt", *GATED, *more)
        assert f"{SYSTEMS[system].title}: covered" in done.err
        told = manifest(job, "delta.safetensors")["metrics"]
        original = load(job / "siglip")
        carrying = block_for(original.blocks, tap)
        assert told["edit_site"] == f"block:{carrying - 1}"
        delta = read_delta(job / "delta.safetensors")
        assert {name.split(".")[3] for name in delta.tensors} == {str(carrying - 1), str(carrying)}
        # Random queries have nothing in common, so no key attracts them all.
        assert told["carried"]["each_token_for_itself"] == 1
        edited = with_delta(original, delta)
        photos = {place: [np.array(Image.open(path).convert("RGB")) for path in sorted((job / place).rglob("*.png"))]
                  for place in ("faces", "others")}  # fmt: skip
        moved = {}
        with torch.no_grad():
            for place, images in photos.items():
                before, after = (read_tap(one.model, one.pixels(images), tap) for one in (original, edited))
                moved[place] = ((after - before).norm(dim=2) / before.norm(dim=2)).amin(1)
        # Every token of the target moves further than most tokens of others.
        assert moved["faces"].median() > 3 * moved["others"].median()
        assert run_ireu("verify", "--delta", "delta.safetensors", cwd=job).code in {0, 4, 5}
        ok(job, "export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out")
        assert load(job / "out").fingerprint == edited.fingerprint

    def test_coverage_of_its_generators(self, job: Path) -> None:
        more = ("--for", "instantx-flux-ip-adapter", "--set", "encoder.groups=S")
        done = ok(job, "unlearn", "--mask", "mask.pt", *GATED, *more)
        assert "InstantX FLUX IP-Adapter: covered" in done.err
        done = ok(
            job, "export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", "--set", "encoder.groups=S"
        )
        assert "FLUX Redux: not covered: reads last of SigLIP so400m" in done.err

    @pytest.mark.parametrize("tap", ["penultimate", "last"])
    @pytest.mark.parametrize("method", ["ireu", "block"])
    def test_training_reaches_tokens(self, job: Path, tap: Tap, method: str) -> None:
        encoder = ("--encoder", "siglip", "--tap", tap)
        ok(job, "locate", *encoder, "--method", "variance", "-o", "tokens.pt")
        ok(job, "unlearn", "--mask", "tokens.pt", "--method", method, "--steps", "4")
        original = load(job / "siglip")
        edited = with_delta(original, read_delta(job / "delta.safetensors"))
        with torch.no_grad():
            taps = [{one: read_tap(each.model, pixels(), one) for one in SIGLIP.taps} for each in (original, edited)]
        reached = SIGLIP.taps[SIGLIP.taps.index(tap) :]
        assert all(not torch.equal(taps[0][one], taps[1][one]) for one in reached)
        if method == "block":
            block = block_for(original.blocks, tap)
            assert {name.split(".")[3] for name in read_delta(job / "delta.safetensors").tensors} == {str(block)}

    def test_verify_tries_its_attacks(self, job: Path) -> None:
        ok(job, "unlearn", "--mask", "mask.pt", *GATED)
        done = run_ireu("verify", "--delta", "delta.safetensors", cwd=job)
        assert done.code in {0, 4, 5}, done.err
        report = json.loads((job / "report" / "report.json").read_text())
        tried = {figure["attack"] for figure in report["figures"]}
        assert {"flip", "pgd-8", "pgd-detector-8", "relearn-10"} <= tried

    @pytest.mark.parametrize(("dtype", "kept"), [("float16", torch.float16), ("bfloat16", torch.bfloat16)])
    def test_an_export_is_loaded_by_transformers(self, job: Path, dtype: str, kept: torch.dtype) -> None:
        ok(job, "unlearn", "--mask", "mask.pt", *GATED)
        ok(job, "export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", "--dtype", dtype)
        model, info = SiglipVisionModel.from_pretrained(job / "out", output_loading_info=True, dtype=dtype)
        assert not info["missing_keys"]
        assert model.dtype == kept
        assert load_file(job / "out" / "model.safetensors")["text_model.head.weight"].dtype == torch.float32
        named = json.loads((job / "out" / "preprocessor_config.json").read_text())
        assert named["image_processor_type"] == "SiglipImageProcessor"
        assert json.loads((job / "out" / "config.json").read_text())["architectures"] == ["SiglipVisionModel"]

    def test_other_layouts(self, job: Path) -> None:
        ok(job, "unlearn", "--mask", "mask.pt", *GATED)
        done = run_ireu(
            "export", "--allow-failed", "--delta", "delta.safetensors", "-o", "no", "--format", "clip-folder", cwd=job
        )
        assert (done.code, "Use --format siglip-folder, single-file" in done.err) == (3, True)
        ok(job, "export", "--allow-failed", "--delta", "delta.safetensors", "-o", "file", "--format", "single-file")
        told = manifest(job / "file", "ireu")["metrics"]["edited_encoder"]
        assert load(job / "file" / "model.safetensors").fingerprint == told
