"""Taps at several depths: what they may be called, what is read, what an edit changes of them, and a whole bundle."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from pydantic import ValidationError
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from ireu_cli.encoders.clip import Encoder, load_encoder, read_tap, with_delta
from ireu_cli.encoders.families import family_of
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.reach import Reach, reach_of, select_weights
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.generators.generator import load_generators
from ireu_cli.manifest import EncoderRecord
from ireu_cli.params import EncoderParams
from ireu_cli.values import WeightDelta
from tests.conftest import Run, run_ireu, tiny_model
from tests.test_generator import photos
from tests.tiny_portrait import write_face_encoder
from tests.tiny_siglip import write_siglip

JOINED = "block-1+block-2+pooled"
EVERY = ("block-0", "block-1", "block-2", "penultimate", "last", "pooled")
LONG = "+".join(EVERY)
FEW = ("pictures.people=2", "pictures.look_alikes=1", "pictures.target_photos=1", "pictures.photos=1",
       "verify.pictures=true", "attacks.suite=none")  # fmt: skip


def record(tap: str) -> EncoderRecord:
    return EncoderRecord(fingerprint="0" * 64, architecture="a", tap=tap, layers=3)


@pytest.mark.parametrize("tap", ["block-0", "block-999", JOINED, "penultimate+image_embeds", LONG,
                                 "+".join(f"block-{n}" for n in range(100, 116))])  # fmt: skip
def test_a_tap_may_be_what_enters_a_block_and_may_join_several(tap: str) -> None:
    assert EncoderParams(tap=tap).tap == tap
    assert record(tap).tap == tap


@pytest.mark.parametrize(
    ("tap", "why"),
    [
        ("block-01", "no tap"),
        ("block-", "no tap"),
        ("block--1", "no tap"),
        ("block-1000", "no tap"),
        ("block-1+", "no tap"),
        ("pooled+patches", "no tap"),
        ("pooled+block-1+pooled", "twice"),
        ("+".join(f"block-{n}" for n in range(17)), "at most 16"),
    ],
)
def test_nothing_else_is_a_tap(tap: str, why: str, portrait: Path, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match=why):
        EncoderParams(tap=tap)
    with pytest.raises(ModelError, match=r"generators\.3\.tap.*The tap"):
        find_bundle(str(bundle_with(portrait, tmp_path / "b", tap)))


@pytest.mark.parametrize(
    "tap", ["Pooled", "pooled ", "block-01", "../pooled", "a+", "block-1\n", "a" * 41, "a+" * 16 + "a"]
)
def test_a_record_refuses_other_taps(tap: str) -> None:
    with pytest.raises(ValidationError):
        record(tap)


def truth(model: Any, pixels: Tensor) -> dict[str, Tensor]:
    """Every tap, from transformers' own record of what its blocks pass on."""
    with torch.no_grad():
        found = model.vision_model(pixels, output_hidden_states=True)
    states = found.hidden_states
    named = {"penultimate": states[-2], "last": found.last_hidden_state, "pooled": found.pooler_output}
    return named | {f"block-{n}": states[n] for n in range(3)}


def test_parts_are_read_in_their_order_and_one_vector_is_one_token(tiny: Encoder) -> None:
    pixels = torch.randn(2, 3, 16, 16)
    want = truth(tiny.model, pixels)
    for tap in EVERY:
        assert torch.equal(read_tap(tiny.model, pixels, tap), want[tap])
    found = read_tap(tiny.model, pixels, "pooled+block-2+block-0")
    assert torch.equal(found, torch.cat([want["pooled"][:, None], want["block-2"], want["block-0"]], 1))
    assert found.shape == (2, 1 + 5 + 5, 16)


def test_block_0_is_what_leaves_the_first_layer_norm(tiny: Encoder) -> None:
    vision, pixels = tiny.model.vision_model, torch.randn(2, 3, 16, 16)
    want = vision.pre_layrnorm(vision.embeddings(pixels))
    assert torch.equal(read_tap(tiny.model, pixels, "block-0"), want)


def test_all_parts_come_of_one_pass_with_gradients(tiny: Encoder) -> None:
    passes: list[int] = []
    handle = tiny.model.vision_model.register_forward_hook(lambda *_: passes.append(1))
    pixels = torch.randn(1, 3, 16, 16, requires_grad=True)
    tokens = read_tap(tiny.model, pixels, JOINED)
    handle.remove()
    assert len(passes) == 1
    for place in (0, 5, 10):
        (gradient,) = torch.autograd.grad(tokens[:, place].square().sum(), pixels, retain_graph=True)
        assert bool(gradient.any())


def test_siglip_is_read_at_depths(tmp_path: Path) -> None:
    encoder = load_encoder(EncoderParams(source=str(write_siglip(tmp_path / "s", hidden_size=1152)), tap=JOINED), "cpu")
    pixels, seen = encoder.pixels(photos(2)), list[Tensor]()
    layers = encoder.model.vision_model.encoder.layers
    handles = [layers[n].register_forward_hook(lambda _m, _i, out: seen.append(out)) for n in (0, 1)]
    with torch.no_grad():
        pooled = encoder.model.vision_model(pixels).pooler_output
    for handle in handles:
        handle.remove()
    states = [out[0] if isinstance(out, tuple) else out for out in seen]
    assert torch.equal(encoder.encode(pixels, JOINED), torch.cat([*states, pooled[:, None]], 1))
    with pytest.raises(ConfigError, match="no tap image_embeds"):
        encoder.encode(pixels, "block-1+image_embeds")


def test_a_block_that_the_encoder_does_not_have_is_refused(tiny: Encoder, tiny_folder: Path) -> None:
    for tap in ("block-3", "pooled+block-3"):
        with pytest.raises(ConfigError, match="no tap block-3: its blocks are block-0 to block-2"):
            load_encoder(EncoderParams(source=str(tiny_folder), tap=tap), "cpu")
        with pytest.raises(ConfigError, match="block-0 to block-2"):
            tiny.encode(torch.zeros(1, 3, 16, 16), tap)


def test_parts_have_one_width(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_embeds, which is 12 wide, with parts that are 16 wide"):
        load_encoder(EncoderParams(source=str(tiny_folder), tap="block-1+image_embeds"), "cpu")
    model = tiny_model()
    model.config.projection_dim = 16
    model.visual_projection = torch.nn.Linear(16, 16, bias=False)
    model.save_pretrained(tmp_path / "square")
    square = load_encoder(EncoderParams(source=str(tmp_path / "square"), tap="block-1+image_embeds"), "cpu")
    assert square.null_features("block-1+image_embeds").shape == (6, 16)


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("vision_model.embeddings.class_embedding", EVERY),
        ("vision_model.pre_layrnorm.weight", EVERY),
        ("vision_model.encoder.layers.0.mlp.fc2.weight", EVERY[1:]),
        ("vision_model.encoder.layers.1.mlp.fc2.weight", EVERY[2:]),
        ("vision_model.encoder.layers.2.mlp.fc2.weight", EVERY[4:]),
        ("vision_model.post_layernorm.weight", EVERY[5:]),
        ("visual_projection.weight", ()),
    ],
)
def test_what_reach_says_is_what_changes(tiny: Encoder, name: str, changed: tuple[str, ...]) -> None:
    edited = with_delta(tiny, WeightDelta({name: torch.randn_like(tiny.model.state_dict()[name])}))
    pixels = torch.randn(2, 3, 16, 16)
    reach = edited.reach([name])
    assert (
        tuple(tap for tap in EVERY if not torch.equal(tiny.encode(pixels, tap), edited.encode(pixels, tap))) == changed
    )
    assert tuple(tap for tap in EVERY if reach.includes(tap)) == changed
    assert reach.includes(JOINED) == ("block-1" in changed)
    assert reach.changes(JOINED) == ("pooled" in changed)
    assert not reach.includes("block-3")


def test_sentences_say_which_parts_change() -> None:
    late = reach_of(["vision_model.encoder.layers.1.x"], 3)
    assert late.parts(JOINED) == (
        f"Of what is read at {JOINED}, the edit changes block-2, pooled. It does NOT change block-1",
    )
    assert "NOT change anything" in late.parts("block-1")[0]
    assert "changes everything" in late.parts("block-2+last")[0]
    assert late.parts("penultimate") == ()
    assert late.sentence() == Reach(late.taps, ()).sentence()
    class_token = reach_of(["vision_model.encoder.layers.1.x"], 3, class_token_only=True)
    assert not class_token.includes("block-2")


def test_weights_that_change_any_part_are_trained() -> None:
    names = tiny_model().state_dict()
    trained = {name.split(".")[3] for name in select_weights(names, "blocks:0-2", 3, "block-1+block-2")}
    assert trained == {"0", "1"}
    with pytest.raises(ConfigError, match="cannot change block-1") as refused:
        select_weights(names, "blocks:1-2", 3, "block-1")
    assert "blocks:0-0" in str(refused.value.remedy)


def test_the_family_of_a_joined_tap(portrait: Path, tmp_path: Path) -> None:
    bundle, network = str(portrait), str(write_face_encoder(tmp_path / "n.onnx", 1))
    assert family_of(bundle, JOINED) is family_of(bundle, "penultimate")
    with pytest.raises(ConfigError, match="has no tap block-1"):
        family_of(network, "block-1")
    with pytest.raises(ConfigError, match="No kind of encoder has all parts"):
        family_of("somewhere", "block-1+embedding")


def bundle_with(portrait: Path, folder: Path, tap: str) -> Path:
    """The bundle with a fourth generator D, whose plus adapter reads a tap."""
    shutil.copytree(portrait, folder)
    shutil.copytree(folder / "b", folder / "d")
    index = json.loads((folder / "portrait.json").read_text())
    index["generators"].append(index["generators"][1] | {
        "name": "D", "tap": tap, "unet": "d/unet", "adapter": "d/ip_adapter.safetensors"
    })  # fmt: skip
    (folder / "portrait.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="module")
def deep(portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundle_with(portrait, tmp_path_factory.mktemp("deep") / "bundle", JOINED)


def stock(folder: Path, tokens: Tensor, null: Tensor, seed: int) -> Any:
    """The picture of the pipeline that a user builds from files and hands tokens to."""
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(folder / "vae").float(),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder").float(),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "d" / "unet").float(),
        scheduler=DDIMScheduler.from_pretrained(folder / "scheduler"), safety_checker=None,
        feature_extractor=None, image_encoder=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.load_ip_adapter(
        str(folder / "d"), subfolder="", weight_name="ip_adapter.safetensors", image_encoder_folder=None,
        low_cpu_mem_usage=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.set_ip_adapter_scale(0.8)
    drawn = pipeline(
        "a face", ip_adapter_image_embeds=[torch.stack([null, tokens])[:, None]], num_inference_steps=2,
        guidance_scale=2.0, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return np.asarray(drawn.images[0])


def test_a_generator_that_reads_depths_draws_what_the_stock_pipeline_draws(deep: Path) -> None:
    (generator,) = load_generators(str(deep), {JOINED}, "cpu")
    assert [one.name for one in load_generators(str(deep), None, "cpu")] == ["A", "B", "D"]
    encoder = load_encoder(EncoderParams(source=str(deep), tap=JOINED), "cpu")
    pixels = encoder.pixels(photos(1))
    tokens, null = (
        torch.cat([found["block-1"], found["block-2"], found["pooled"][:, None]], 1)[0]
        for found in (truth(encoder.model, each) for each in (pixels, torch.zeros_like(pixels)))
    )
    drawn = generator.draw(encoder.encode(pixels, JOINED), generator.null_of(encoder), ["a face"], [3])[0]
    np.testing.assert_array_equal(drawn, stock(deep, tokens, null, 3))
    other = generator.draw(torch.zeros(1, 11, 16), generator.null_of(encoder), ["a face"], [3])[0]
    assert bool((drawn != other).any())


def test_a_late_edit_leaves_early_tokens(tiny: Encoder) -> None:
    name = "vision_model.encoder.layers.2.mlp.fc2.weight"
    edited = with_delta(tiny, WeightDelta({name: torch.randn_like(tiny.model.state_dict()[name])}))
    pixels = tiny.pixels(photos(2))
    before, after = tiny.encode(pixels, JOINED), edited.encode(pixels, JOINED)
    assert torch.equal(before[:, :10], after[:, :10])
    assert bool((before[:, 10] != after[:, 10]).any())


def ireu(folder: Path, deep: Path, *arguments: str, sets: tuple[str, ...] = ()) -> Run:
    given = [part for text in sets for part in ("--set", text)]
    return run_ireu(*arguments, "--encoder", str(deep), *given, cwd=folder)


@pytest.fixture
def demo(samples: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    shutil.copytree(samples, folder, ignore=shutil.ignore_patterns("encoder", "ireu.toml"))
    return folder


PEOPLE = ("--targets", "faces", "--retain", "others", "--max-photos", "4")
FAST = ("--method", "ireu", "--steps", "3")
WILD = ("unlearn.learning_rate=0.02", "unlearn.divergence_factor=1e9")


def test_verify_lists_what_a_late_edit_leaves_to_a_generator(demo: Path, deep: Path) -> None:
    located = ireu(demo, deep, "locate", "--tap", "pooled", *PEOPLE, sets=("locate.interchange_pairs=0",))
    assert located.code == 0, located.err
    assert ireu(demo, deep, "unlearn", "--mask", "mask.pt", *FAST, "--layers", "block:2", sets=WILD).code == 0
    found = ireu(demo, deep, "verify", "--delta", "delta.safetensors", sets=FEW)
    assert found.code in {0, 4, 5}, found.err
    report = json.loads((demo / "report" / "report.json").read_text())
    assert {figure["generator"] for figure in report["figures"]} == {None, "A", "B", "D"}
    assert report["record"]["systems_covered"] == ["generator A (image_embeds)"]
    missed = [one for one in report["record"]["systems_missed"] if one.startswith("generator D")]
    assert missed == [
        f"generator D ({JOINED}): Of what is read at {JOINED}, the edit changes pooled. It does NOT change block-1, "
        "block-2"
    ]


def test_a_joined_tap_is_located_and_trained_at(demo: Path, deep: Path) -> None:
    for method in ("variance", "swap"):
        located = ireu(
            demo, deep, "locate", "--tap", LONG, "--method", method, "-o", f"{method}.pt", *PEOPLE,
            sets=("locate.interchange_pairs=0",),
        )  # fmt: skip
        assert located.code == 0, located.err
    names = [path.name for path in (demo / ".ireu" / "features").iterdir()]
    assert names
    assert all("-taps-" in name and "+" not in name for name in names)
    assert json.loads((demo / "swap.pt.json").read_text())["encoder"]["tap"] == LONG
    trained = ireu(demo, deep, "unlearn", "--mask", "swap.pt", *FAST, "--layers", "blocks:1-2", sets=WILD)
    assert trained.code == 0, trained.err
    assert "the edit changes block-2, penultimate, last, pooled. It does NOT change block-0, block-1" in " ".join(
        trained.err.split()
    )
    for other in ("gated", "block"):
        refused = ireu(demo, deep, "unlearn", "--mask", "swap.pt", "--method", other, "-o", "x.safetensors")
        assert refused.code == 3
        assert f"The method {other} does not support the tap" in " ".join(refused.err.split())
