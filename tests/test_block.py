"""The method `block`: one block trained on what enters it, as a step on a tiny encoder and as users run it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ireu_cli.encoders.clip import Encoder, read_tap, with_delta
from ireu_cli.errors import InterruptedRunError
from ireu_cli.params import Tap, UnlearnParams
from ireu_cli.support.runtime import generator
from ireu_cli.unlearning.block.one_block import LOOK_EVERY, Entering, States, Tail, block_for, unlearn_block
from ireu_cli.unlearning.ireu.published import TrainState
from ireu_cli.values import WeightDelta
from tests.conftest import run_ireu

TAPS: tuple[Tap, ...] = ("pooled", "image_embeds", "penultimate", "last")
PEOPLE = (0, 0, 0, 1, 1)


def pixels(count: int, *names: str) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=generator(0, *names))


def run(encoder: Encoder, tap: Tap, **more: Any) -> tuple[WeightDelta, dict[str, Any]]:
    block = block_for(encoder.blocks, tap)
    # Other photos of the same people.
    again = pixels(5, "given")[[0, 3]] + 0.3 * pixels(2, "held")
    given, held, others = (encoder.entering(part, block) for part in (pixels(5, "given"), again, pixels(12, "others")))
    nulls = encoder.entering(encoder.null_pixels(), block)
    width = 12 if tap == "image_embeds" else 16
    params = UnlearnParams(steps=more.pop("steps", 100), learning_rate=2e-3)
    held_people = more.pop("held", (0, 1))
    return unlearn_block(
        encoder, tap, block,
        Entering(States(given, PEOPLE), States(held[: len(held_people)], held_people), others, nulls),
        torch.arange(width) < width // 2, 1.0, params, 0, **more,
    )  # fmt: skip


@pytest.mark.parametrize("tap", TAPS)
def test_the_tail_is_the_rest_of_the_encoder(tiny: Encoder, tap: Tap) -> None:
    pictures = pixels(3, "tail")
    for block in range(block_for(tiny.blocks, tap) + 1):
        states = tiny.entering(pictures, block)
        with torch.no_grad():
            torch.testing.assert_close(Tail(tiny, block, tap)(states), read_tap(tiny.model, pictures, tap))


@pytest.mark.parametrize("tap", TAPS)
def test_people_go_to_the_average_and_one_block_changes(tiny: Encoder, tap: Tap) -> None:
    delta, told = run(tiny, tap)
    block = block_for(tiny.blocks, tap)
    assert {name.split(".")[3] for name in delta.tensors} == {str(block)}
    edited = with_delta(tiny, delta)
    with torch.no_grad():
        before, after = (read_tap(one.model, pixels(5, "given"), tap) for one in (tiny, edited))
        others, kept = (read_tap(one.model, pixels(12, "others"), tap) for one in (tiny, edited))
    mask = torch.arange(before.shape[-1]) < before.shape[-1] // 2
    people = torch.tensor(PEOPLE)
    way = torch.stack([others.mean(0) - before[people == p].mean(0) for p in PEOPLE]) * mask
    moved = ((after - before) * way).flatten(1).sum(1) / way.square().flatten(1).sum(1)
    assert moved.mean() > 0.5
    assert (kept - others).norm(dim=-1).mean() < 0.5 * (after - before).norm(dim=-1).mean()
    assert told["held_out"][0][0] == LOOK_EVERY


def test_training_ends_when_held_out_photos_come_no_nearer(tiny: Encoder) -> None:
    _, told = run(tiny, "pooled", steps=5000)
    assert told["steps"] < 5000
    shares = [share for _, share in told["held_out"]]
    # The last four looks brought nothing that the ones before had not.
    assert min(shares[-4:]) > 0.99 * min(shares[:-4])
    assert min(shares[-5:-1]) <= 0.99 * min(shares[:-5])
    _, whole = run(tiny, "pooled", steps=200, held=())
    assert (whole["steps"], whole["held_out"]) == (200, [])


@pytest.mark.parametrize("at", [60, 50, -1])
def test_a_stopped_run_ends_with_the_same_bytes(tiny: Encoder, at: int) -> None:
    whole, told = run(tiny, "pooled", steps=5000)
    # Also where held-out photos are about to be looked at, and at the very end.
    last = told["steps"] if at < 0 else at
    kept: list[tuple[int, dict[str, torch.Tensor]]] = []

    def stop(state: TrainState) -> None:
        if state.step == last:
            kept.append((last, {name: tensor.detach().clone() for name, tensor in state.tensors().items()}))
            raise InterruptedRunError("stop", "go on")

    with pytest.raises(InterruptedRunError):
        run(tiny, "pooled", steps=5000, on_step=stop)
    rest, again = run(tiny, "pooled", steps=5000, start=TrainState.from_tensors(*kept[0]))
    assert (again["held_out"], again["steps"]) == (told["held_out"], told["steps"])
    assert all(torch.equal(whole.tensors[name], rest.tensors[name]) for name in whole.tensors)


def test_the_whole_job(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(samples, folder)
    text = (folder / "ireu.toml").read_text().replace("learning_rate = 5e-5\nbatch = 4\n", "")
    (folder / "ireu.toml").write_text(text)
    assert run_ireu("locate", "--method", "all", cwd=folder).code == 0
    flags = ("--steps", "150", "--layers", "all", "--set", "gated.rise=0.3", "--set", "gated.copies=flip")
    done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "block", *flags, cwd=folder)
    assert done.code == 0, done.err
    assert "The method block ignores gated.rise, unlearn.layers" in done.err
    told = json.loads((folder / "delta.safetensors.json").read_text())["metrics"]
    assert told["reach"]["missed"] == ["penultimate"]
    assert told["held_out"][-1][1] < 0.9
    quiet = ("--set", "attacks.suite=none", "--set", "pictures.generators=none")
    verified = run_ireu("verify", "--delta", "delta.safetensors", *quiet, cwd=folder)
    assert verified.code in {0, 4}, verified.err
    found = {c["name"]: c["found"] for c in json.loads((folder / "report" / "report.json").read_text())["criteria"]}
    assert found["match_seen"] < 0.5
    assert found["retained_similarity"] > 0.9
    assert run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", cwd=folder).code == 0
