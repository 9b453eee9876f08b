"""The method `gated` where people are found in all tokens: heads, places, the ledger, and the job as users run it."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel

from ireu_cli.encoders.clip import load_encoder, read_tap, with_delta
from ireu_cli.encoders.mlp_site import after_attention, after_mlp, attending
from ireu_cli.errors import ArtifactError, CapacityError
from ireu_cli.maths.room import activation_gram
from ireu_cli.maths.soft_step import SoftStep
from ireu_cli.params import EncoderParams
from ireu_cli.store.artifacts import delta_bytes, read_delta
from ireu_cli.store.ledger import ledger_tensors, read_ledger
from ireu_cli.unlearning.gated.pooled.gathering import gather
from ireu_cli.unlearning.gated.pooled.heads import spare_heads
from ireu_cli.unlearning.gated.pooled.ledger import compose_pooled, join_pooled
from ireu_cli.unlearning.gated.slots import leave
from ireu_cli.values import PooledLedger, RgbImage, WeightDelta
from tests.conftest import Run, manifest, run_ireu

FEATURES = ("--set", "attacks.suite=none", "--set", "pictures.generators=none")
POOLED = ("--method", "gated", "--set", "gated.people=3", "--set", "gated.found_in=all_tokens")


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TestHeads:
    def test_the_head_that_others_can_replace_is_taken(self) -> None:
        attended = normal(400, 6)
        # The second head of two values says what the first one says, mixed.
        attended[:, 2:4] = attended[:, :2] @ normal(2, 2, seed=1) + 3
        written = normal(5, 6, seed=2)
        found = spare_heads(activation_gram(attended.float()), written, 3, 1)
        assert found.heads in {(0,), (1,)}
        taken = written + found.added[:, :-1]
        assert taken[:, found.places].abs().max() == 0
        new = attended @ taken.T + found.added[:, -1]
        torch.testing.assert_close(new, attended @ written.T, atol=1e-3, rtol=1e-3)
        assert found.error < 1e-6
        worse = spare_heads(activation_gram(attended.float()), written, 3, 2)
        assert worse.error > 1e-2

    def test_the_error_is_what_is_left(self) -> None:
        attended, written = normal(500, 8, seed=3), normal(4, 8, seed=4)
        found = spare_heads(activation_gram(attended.float()), written, 4, 2)
        new = attended @ (written + found.added[:, :-1]).T + found.added[:, -1]
        left = (new - attended @ written.T).square().sum(1).mean()
        assert found.error == pytest.approx(float(left), rel=1e-3)


@pytest.fixture(scope="module")
def layer() -> Any:
    torch.manual_seed(0)
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4, image_size=28, patch_size=7
    )
    model = SiglipVisionModel(config).eval().requires_grad_(False)
    found = getattr(model, "vision_model", model).encoder.layers[0]
    return found


def tokens(photos: int, seed: int) -> Tensor:
    """Tokens that hardly vary along some directions, as those of encoders: float32 (photos, 16, 32)."""
    basis = torch.linalg.qr(normal(32, 32, seed=100)).Q
    spread = normal(photos, 16, 32, seed=seed) * torch.logspace(-1.5, 0.7, 32)
    found: Tensor = (spread @ basis).float()
    return found


class TestGathering:
    def test_every_token_shows_the_score_of_the_mean(self, layer: Any) -> None:
        states = tokens(200, 5)
        made, _ = gather(layer, states, 3)
        read, offset = normal(32, seed=6).float(), 0.7
        channel, place = int(made.places["channels"][1]), 1
        edited = {name: made.changes[f"self_attn.{name}"].clone() for name in layer.self_attn.state_dict()}
        edited["v_proj.weight"][channel] += read
        edited["v_proj.bias"][channel] += offset
        edited["out_proj.weight"][:, channel] += made.places["writers"][place]
        changed = _with(layer, edited)
        wanted = layer.layer_norm1(states).mean(1) @ read + offset
        plain = _with(layer, {name: made.changes[f"self_attn.{name}"] for name in layer.self_attn.state_dict()})
        moved = after_attention(changed, states) - after_attention(plain, states)
        expected = wanted[:, None, None] * made.places["writers"][place]
        torch.testing.assert_close(moved, expected.expand_as(moved), atol=1e-4, rtol=1e-3)
        seen = layer.layer_norm2(after_attention(changed, states)) @ made.places["readers"][place]
        seen = seen - made.places["rests"][place]
        together = torch.corrcoef(torch.stack([seen.median(1).values, wanted]))[0, 1]
        assert float(together) > 0.9

    def test_places_are_different_values_and_directions(self, layer: Any) -> None:
        made, _ = gather(layer, tokens(100, 7), 10)
        assert len(set(made.places["channels"].tolist())) == 10
        axes = torch.nn.functional.normalize(made.places["writers"], dim=1)
        torch.testing.assert_close(axes @ axes.T, torch.eye(10), atol=1e-4, rtol=0)
        assert made.told["heads"] == 2

    def test_half_of_the_heads_is_the_most(self, layer: Any) -> None:
        states = tokens(50, 8)
        assert gather(layer, states, 16)[0].told["heads"] == 2
        with pytest.raises(CapacityError, match=r"half of its heads are 2. Set gated.people to 16"):
            gather(layer, states, 17)

    def test_what_attention_wrote_is_taken_out_again(self, layer: Any) -> None:
        states = tokens(200, 9)
        made, _ = gather(layer, states, 2)
        middle = after_attention(
            _with(layer, {n.removeprefix("self_attn."): c for n, c in made.changes.items()}), states
        )
        scores = normal(200, 1, 2, seed=10).float()
        moved = middle + scores @ made.places["writers"]
        read = layer.layer_norm2(moved) @ made.places["readers"].T - made.places["rests"]
        taken = after_mlp(layer, moved) + read @ made.places["takers"]
        errors = [float((each - after_mlp(layer, middle)).norm()) for each in (after_mlp(layer, moved), taken)]
        assert errors[1] < 0.5 * errors[0]


def _with(layer: Any, changes: dict[str, Tensor]) -> Any:
    edited = copy.deepcopy(layer)
    for name, tensor in edited.self_attn.state_dict().items():
        tensor.add_(changes[name])
    return edited


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample people, a mask of all features of tokens, and a request that is found in all tokens."""
    place = tmp_path_factory.mktemp("pooled")
    assert run_ireu("samples", "demo", cwd=place).code == 0
    folder = place / "demo"
    assert run_ireu("locate", "--method", "all", "--tap", "penultimate", cwd=folder).code == 0
    done = run_ireu("unlearn", "--mask", "mask.pt", *POOLED, "--set", "record.case_id=a", cwd=folder)
    assert done.code == 0, done.err
    return folder


@pytest.fixture
def place(job: Path, tmp_path: Path) -> Path:
    """A copy of the job that a test may change."""
    shutil.copytree(job, tmp_path / "demo")
    return tmp_path / "demo"


def pooled_ledger(delta: WeightDelta) -> PooledLedger:
    assert isinstance(delta.ledger, PooledLedger)
    return delta.ledger


def photos_in(folder: Path) -> list[RgbImage]:
    return [np.array(Image.open(path).convert("RGB")) for path in sorted(folder.rglob("*.jpg"))]


def unlearn(folder: Path, *more: str) -> Run:
    return run_ireu("unlearn", "--mask", "mask.pt", *POOLED, *more, cwd=folder)


def another(place: Path) -> tuple[str, ...]:
    """Flags of a request for a second person."""
    second = sorted((place / "others").iterdir())[-1]
    shutil.copytree(second, place / "more" / second.name)
    return ("--targets", "more", "--set", "record.case_id=b")


def test_sample_people_are_found_in_all_tokens(job: Path) -> None:
    told = manifest(job, "delta.safetensors")["metrics"]
    assert told["reach"]["missed"] == []
    assert told["gathered"]["heads"] == 1
    assert told["gathered"]["heads_cost"] < 0.06
    assert told["carried"]["tokens_reached"] > 0.95
    assert "class_tokens_reached" not in told["carried"]
    assert "each_token_for_itself" not in told["carried"]
    verified = run_ireu("verify", "--delta", "delta.safetensors", *FEATURES, "-o", "pooled", cwd=job)
    assert verified.code == 0, verified.err
    found = {c["name"]: c["found"] for c in json.loads((job / "pooled" / "report.json").read_text())["criteria"]}
    assert found["match_unseen"] < 0.2
    assert found["retained_change"] < 0.1


def test_scores_of_the_ledger_are_what_the_edited_attention_writes(job: Path) -> None:
    delta = read_delta(job / "delta.safetensors")
    ledger = pooled_ledger(delta)
    encoder = load_encoder(EncoderParams(), "cpu")
    edited = with_delta(encoder, delta)
    photos = photos_in(job / "faces")
    weights, offsets = ledger.scores
    with torch.no_grad():
        with attending(encoder.model, ledger.block) as seen:
            read_tap(encoder.model, encoder.pixels(photos), "last")
        above = (seen[0].mean(1) @ weights.T + offsets) / (ledger.sharpness / ledger.rises)
        before, after = (read_tap(one.model, one.pixels(photos), "penultimate") for one in (encoder, edited))
    moved = (after - before).norm(dim=2).median(1).values / before.norm(dim=2).median(1).values
    assert (above[:, 0] > 0).float().mean() > 0.7
    assert moved[above[:, 0] > 0.3].min() > 3 * 0.06
    assert (moved[above[:, 0] < -1] < 0.06).all()


def test_requests_one_after_another_and_back(place: Path) -> None:
    first = read_delta(place / "delta.safetensors")
    more = another(place)
    # Where people are found comes from the delta that a request is added to.
    done = run_ireu(
        "unlearn", "--mask", "mask.pt", *more, "--onto", "delta.safetensors", "-o", "both.safetensors", cwd=place
    )
    assert done.code == 0, done.err
    both = read_delta(place / "both.safetensors")
    ledger = pooled_ledger(both)
    assert ledger.slots == (0, 1)
    for case, name in (("b", "first.safetensors"), ("a", "second.safetensors")):
        done = run_ireu("unlearn", "--onto", "both.safetensors", "--withdraw", case, "-o", name, cwd=place)
        assert done.code == 0, done.err
    back = read_delta(place / "first.safetensors").tensors
    assert all(torch.equal(back[name], change) for name, change in first.tensors.items())
    # In another place, a request is written elsewhere, and finds the same.
    moved = join_pooled(leave(ledger, ["a", "b"]), leave(ledger, ["a"]))
    assert moved.slots == (0,)
    encoder, deltas = load_encoder(EncoderParams(), "cpu"), [read_delta(place / "second.safetensors")]
    deltas.append(compose_pooled(encoder, moved))
    photos = photos_in(place / "more")
    with torch.no_grad():
        plain = read_tap(encoder.model, encoder.pixels(photos), "penultimate")
        seen = [read_tap(with_delta(encoder, d).model, encoder.pixels(photos), "penultimate") for d in deltas]
    assert not torch.equal(*(d.tensors["vision_model.encoder.layers.3.self_attn.v_proj.weight"] for d in deltas))
    assert (seen[1] - seen[0]).norm() < 0.5 * (seen[0] - plain).norm()


def test_a_request_that_is_found_elsewhere_is_refused(place: Path) -> None:
    more = ("--set", "gated.found_in=class_token", "--onto", "delta.safetensors", "-o", "no.safetensors")
    done = unlearn(place, *another(place), *more)
    assert (done.code, "other tokens than this one" in done.err) == (3, True), done.err
    assert not (place / "no.safetensors").exists()


def test_shared_parts_are_made_once(place: Path) -> None:
    (kept,) = place.glob(".ireu/features/*/shared/*.safetensors")
    before = kept.read_bytes()
    for damage in (False, True):
        if damage:
            kept.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert unlearn(place, "--set", "record.case_id=a", "-o", "again.safetensors", "--force").code == 0
        assert (place / "again.safetensors").read_bytes() == (place / "delta.safetensors").read_bytes()
        assert ("carry" in manifest(place, "again.safetensors")["timings"]) == damage
        assert kept.read_bytes() == before


def test_verify_attacks_the_averages(place: Path) -> None:
    few = ("--set", "attacks.photos=2", "--set", "attacks.pgd_steps=2", "--set", "pictures.generators=none")
    done = run_ireu("verify", "--delta", "delta.safetensors", *few, "-o", "attacked", cwd=place)
    assert done.code in {0, 4, 5}, done.err
    report = json.loads((place / "attacked" / "report.json").read_text())
    assert "pgd-detector-8" in {figure["attack"] for figure in report["figures"]}


class TestLedger:
    @pytest.fixture
    def ledger(self, job: Path) -> PooledLedger:
        return pooled_ledger(read_delta(job / "delta.safetensors"))

    def test_it_comes_back_from_a_file(self, ledger: PooledLedger) -> None:
        again = read_ledger(ledger_tensors(ledger))
        assert isinstance(again, PooledLedger)
        for name in (*PooledLedger.ENTRY, *PooledLedger.SHARED, "flag"):
            assert torch.equal(getattr(again, name), getattr(ledger, name))
        assert again.apparatus.keys() == ledger.apparatus.keys()
        assert (again.cases, again.slots, again.block) == (ledger.cases, ledger.slots, ledger.block)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("reads", torch.full((1, 192), torch.nan)),
            ("thresholds", torch.zeros(2)),
            ("rises", torch.zeros(1)),
            ("sharpness", -torch.ones(1)),
            ("channels", torch.tensor([0, 0, 1])),
            ("channels", torch.tensor([0, 1, -1])),
            ("channels", torch.zeros(3)),
            ("writers", torch.zeros(2, 192)),
            ("flag", torch.zeros(3)),
            ("units", torch.arange(4)),
            ("units", torch.tensor(4)),
            ("thresholds", torch.tensor([3e38])),
            ("rises", torch.tensor([1e-44])),
            ("openings", torch.zeros(3, 1)),
            ("apparatus.x", torch.tensor([torch.nan])),
            ("apparatus.x", torch.tensor([1])),
        ],
    )
    def test_damage_is_refused(self, name: str, value: Tensor, ledger: PooledLedger) -> None:
        with pytest.raises(ValueError, match=r"."):
            read_ledger(ledger_tensors(ledger) | {f"ledger.{name}": value})

    def test_channels_that_the_encoder_lacks_are_refused(self, job: Path, ledger: PooledLedger) -> None:
        delta = read_delta(job / "delta.safetensors")
        beyond = replace(delta, ledger=replace(ledger, channels=ledger.channels + 10_000))
        (job / "beyond.safetensors").write_bytes(delta_bytes(beyond))
        with pytest.raises(ArtifactError, match="lacks the heads"):
            compose_pooled(load_encoder(EncoderParams(), "cpu"), pooled_ledger(read_delta(job / "beyond.safetensors")))

    def test_scores_are_the_input_of_the_unit_that_opens(self, ledger: PooledLedger) -> None:
        """As in a ledger of the class token, so that an attack weighs both alike."""
        weights, offsets = ledger.scores
        one = SoftStep(float(ledger.rises[0]), float(ledger.sharpness[0]))
        wanted = one.rows(ledger.reads[0], float(ledger.thresholds[0] - ledger.offsets[0]))
        torch.testing.assert_close(weights[0], wanted[0][0])
        torch.testing.assert_close(offsets[0], wanted[1][0])

    def test_units_of_a_fuller_ledger_open_earlier(self, ledger: PooledLedger) -> None:
        many = replace(ledger, **{name: getattr(ledger, name).repeat_interleave(3, 0) for name in PooledLedger.ENTRY})
        many = replace(many, cases=("a", "b", "c"), slots=(0, 1, 2))
        encoder = load_encoder(EncoderParams(), "cpu")
        bias, weight = (f"vision_model.encoder.layers.{ledger.block}.mlp.fc1.{part}" for part in ("bias", "weight"))
        opens = []
        for one in (ledger, many):
            unit, delta = int(one.room.units[0]), compose_pooled(encoder, one).tensors
            state = encoder.model.state_dict()
            steep = (state[weight] + delta[weight])[unit] / ledger.readers[0]
            opens.append(float(-(state[bias] + delta[bias])[unit] / steep.median() - ledger.rests[0]))
        assert opens[1] / opens[0] == pytest.approx((1 + 0.8**2 * 2 / 192) ** -0.5, rel=1e-3)

    def test_nothing_changes_without_requests(self, ledger: PooledLedger) -> None:
        empty = compose_pooled(load_encoder(EncoderParams(), "cpu"), leave(ledger, ["a"]))
        assert all(not change.any() for change in empty.tensors.values())
