"""What detectors cost others in a gated hidden layer with a layer norm inside, as EVA02-CLIP's blocks have.

    python benchmarks/sub_layer_norm.py [--people 300] [--steps 1500] [--slots 1 8 32]

`gated` takes hidden units, lets the others stand in for them, and writes detectors into them. In CLIP's hidden layer a
shut detector adds nothing. In EVA02-CLIP's, units that are taken away also leave the mean and the deviation over all
units, by which every other unit is scaled. We have no trained EVA02-CLIP. So a layer of its kind is trained to do what
the hidden layer of portrait-mini's last block does, on every token of photos of `train`, and put in its place.

Room: both layers, with places for some people and nobody in them. Change: of image_embeds of photos of `eval`, as a
share of their deviation; worst is the photo that moves most. Detectors: of one person each, at a rate of .01. Written:
how far the token of found photos moves from where it should, as a share of the way. Needs IREU_DATA.
"""

import argparse
import copy
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, silu

from detector_table import Strangers
from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.encoders.eva.tower import GatedMlp
from ireu_cli.encoders.mlp_site import after_attention
from ireu_cli.maths.room import activation_gram, folded, make_room
from ireu_cli.maths.soft_step import SoftStep
from ireu_cli.params import EncoderParams, GatedParams
from ireu_cli.values import Room
from portrait_table import read

PER_PERSON, OTHERS, RATE = 4, 4, 1e-2
HEIGHTS = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Photos:
    """What enters the hidden layer (n, tokens, d), what it is added to at the class token (n, d), and who they show."""

    inputs: Tensor
    before: Tensor
    who: Tensor

    @property
    def some(self) -> Tensor:
        """The class token and a few others, as `gated` gathers them: (m, d)."""
        places = torch.linspace(1, self.inputs.shape[1] - 1, OTHERS).long()
        return torch.cat([self.inputs[:, :1], self.inputs[:, places]], 1).flatten(0, 1)


def main() -> None:
    """Train the layer, then print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=300)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--slots", type=int, nargs="+", default=[1, 8, 32])
    chosen = parser.parse_args()
    encoder = load_encoder(EncoderParams(), "cpu")
    folders = Path(os.environ["IREU_DATA"]) / "faces"
    train, test = (_photos(encoder, sorted((folders / name).iterdir())[: chosen.people]) for name in ("train", "eval"))
    layer = encoder.model.vision_model.encoder.layers[-1].mlp
    with torch.inference_mode():
        aims = layer(train.inputs)
    student = _trained(train.inputs.flatten(0, 1), aims.flatten(0, 1), chosen.steps)
    with torch.inference_mode():
        left = (student(test.inputs) - layer(test.inputs)).square().mean() / layer(test.inputs).var()
        print(f"the trained layer leaves {left:.3f} of the variance at all tokens of eval\n")
        _rooms(encoder, layer, student, train, test, chosen.slots)
        _detectors(student, train, test)


def _photos(encoder: Encoder, people: Sequence[Path]) -> Photos:
    files = [file for person in people for file in sorted(person.glob("*.jpg"))[:PER_PERSON]]
    who = [number for number, person in enumerate(people) for _ in sorted(person.glob("*.jpg"))[:PER_PERSON]]
    layer, inputs, before = encoder.model.vision_model.encoder.layers[-1], [], []
    for start in range(0, len(files), 64):
        states = encoder.entering(
            encoder.pixels([read(file) for file in files[start : start + 64]]), encoder.blocks - 1
        )
        with torch.inference_mode():
            middle = after_attention(layer, states)
            inputs.append(layer.layer_norm2(middle))
            before.append(middle[:, 0])
    return Photos(torch.cat(inputs).clone(), torch.cat(before).clone(), torch.tensor(who))


def _trained(rows: Tensor, aims: Tensor, steps: int) -> GatedMlp:
    """A layer of EVA02-CLIP's kind, as wide as its own are beside the tokens."""
    torch.manual_seed(0)
    width = rows.shape[1]
    layer = GatedMlp(width, 8 * width // 3)
    rows, aims = rows.clone(), aims.clone()
    optimiser = torch.optim.AdamW(layer.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, steps)
    for _ in range(steps):
        some = torch.randint(len(rows), (512,))
        loss = (layer(rows[some]) - aims[some]).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return layer.eval().requires_grad_(False)


def _hidden(layer: GatedMlp, inputs: Tensor) -> Tensor:
    """The hidden units before the layer norm."""
    found: Tensor = silu(layer.w1(inputs)) * layer.w2(inputs)
    return found


def _embeds(encoder: Encoder, before: Tensor, added: Tensor) -> Tensor:
    return encoder.read_out(encoder.model, before + added, "image_embeds")


def _rooms(
    encoder: Encoder,
    layer: Any,
    student: GatedMlp,
    train: Photos,
    test: Photos,
    slots: Sequence[int],
) -> None:
    """What empty places change."""
    print("| layer | people | units of all | change | worst | cosine, worst |")
    print("|---|---|---|---|---|---|")
    for people in slots:
        with_places: dict[str, tuple[Any, Any, int]] = {}
        plain = make_room(activation_gram(gelu(layer.fc1(train.some))), layer.fc2.weight.square().sum(0), 2 * people)
        with_places["CLIP's"] = layer, _clip_with(layer, plain), len(layer.fc2.weight[0])
        room = make_room(
            activation_gram(student.ffn_ln(_hidden(student, train.some))), student.w3.weight.square().sum(0), 2 * people
        )
        units = len(student.w3.weight[0])
        with_places["EVA02-CLIP's, others stand in"] = student, _emptied(student, room), units
        with_places["the same, unseen by the layer norm"] = student, _unseen(student, room), units
        for name, (whole, edited, count) in with_places.items():
            first, second = (_embeds(encoder, test.before, each(test.inputs[:, 0])) for each in (whole, edited))
            moved = (second - first).norm(dim=1) / (first - first.mean(0)).norm(dim=1).mean()
            cosine = torch.nn.functional.cosine_similarity(first, second)
            figures = f"{moved.mean():.4f} | {moved.max():.4f} | {cosine.min():.5f}"
            print(f"| {name} | {people} | {2 * people} of {count} | {figures} |")
    print(flush=True)


def _clip_with(layer: Any, room: Room) -> Callable[[Tensor], Tensor]:
    """CLIP's hidden layer with shut detectors."""
    added, weight = folded(layer.fc2.weight, room).float(), layer.fc2.weight[:, room.kept]
    return lambda inputs: linear(
        gelu(layer.fc1(inputs))[..., room.kept], weight + added[:, :-1], layer.fc2.bias + added[:, -1]
    )


def _emptied(student: GatedMlp, room: Room) -> GatedMlp:
    """The other layer with shut detectors: their units are zero, and count in the layer norm."""
    edited = copy.deepcopy(student)
    added = folded(student.w3.weight, room).float()
    edited.w2.weight[room.units], edited.w2.bias[room.units] = 0, 0
    edited.w3.weight[:, room.kept] += added[:, :-1]
    edited.w3.bias.add_(added[:, -1])
    edited.ffn_ln.weight[room.units], edited.ffn_ln.bias[room.units] = 1, 0
    edited.w3.weight[:, room.units] = 0
    return edited


def _unseen(student: GatedMlp, room: Room) -> Callable[[Tensor], Tensor]:
    """The same, if the layer norm still saw the units that are taken: others cannot stand in for what is left."""
    added, weight = folded(student.w3.weight, room).float(), student.w3.weight[:, room.kept]
    return lambda inputs: linear(
        student.ffn_ln(_hidden(student, inputs))[..., room.kept],
        weight + added[:, :-1],
        student.w3.bias + added[:, -1],
    )


def _detectors(student: GatedMlp, train: Photos, test: Photos) -> None:
    """What open detectors write, by how high they reach beside the deviation of the other units."""
    print("| height | given photos found | written, in float32 | in bfloat16 | others' change, less that of the room |")
    print("|---|---|---|---|---|")
    defaults = GatedParams()
    step = SoftStep(defaults.rise, defaults.sharpness)
    strangers = Strangers(train.inputs[:, 0], train.who)
    gram = activation_gram(student.ffn_ln(_hidden(student, train.some)))
    room = make_room(gram, student.w3.weight.square().sum(0), 2)
    empty = _emptied(student, room)
    scale = _hidden(empty, train.inputs[:, 0]).std(1, correction=0).mean()
    for height in HEIGHTS:
        seen, wrong, short, moved = 0, [], [], []
        for person in range(int(test.who.max()) + 1):
            own = test.who == person
            (found,) = strangers.find([test.inputs[own, 0]], [RATE])[0]
            change = (train.before.mean(0) - test.before[own].mean(0)).double()
            edited = _written(empty, room, step, found.weight, found.threshold.value, change, height * scale, scale)
            score = test.inputs[:, 0].double() @ found.weight - found.threshold.value
            opened = own & (score > defaults.rise)
            way = edited(test.inputs[:, 0]) - empty(test.inputs[:, 0])
            coarse = copy.deepcopy(edited).bfloat16()(test.inputs[opened, 0].bfloat16()).float()
            flat = copy.deepcopy(empty).bfloat16()(test.inputs[opened, 0].bfloat16()).float()
            seen += int(opened.sum())
            wrong.append((way[opened] - change.float()).norm(dim=1) / change.norm())
            short.append((coarse - flat - change.float()).norm(dim=1) / change.norm())
            moved.append(way[score < 0].norm(dim=1) / train.before.std(0).norm())
        parts = [torch.cat(each) for each in (wrong, short, moved)]
        means = " | ".join(f"{part.mean():.4f}" for part in parts[:2])
        print(f"| {height:g} | {seen} | {means} | {parts[2].max():.6f} |", flush=True)


def _written(
    empty: GatedMlp,
    room: Room,
    step: SoftStep,
    weight: Tensor,
    threshold: float,
    change: Tensor,
    height: Tensor,
    scale: Tensor,
) -> GatedMlp:
    """The layer with one detector: two units that are scores on one side and a small constant on the other."""
    edited = copy.deepcopy(empty)
    rows, biases = step.rows(weight, threshold)
    edited.w1.weight[room.units], edited.w1.bias[room.units] = rows.float(), biases.float()
    edited.w2.bias[room.units] = height
    edited.w3.weight[:, room.units] = (step.columns(change) * (scale / height)).float()
    return edited


if __name__ == "__main__":
    main()
