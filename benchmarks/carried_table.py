"""How well the units that all people share erase identity: by their number, and by what the class token counts.

    python benchmarks/carried_table.py [--ranks 96 128 160] [--weights 0 0.25 1] [--gain 2] [--tap penultimate]

A perfect detector is assumed: every photo of the people of `eval` is flagged. The units are learnt from 1,024 photos
of `train`. Match: share of pairs of two photos of a person, one through the edited encoder and one through the
original, that are more alike than 99 of 100 pairs of two people are with the original. Itself: the same for a photo
and itself, which are alike in pose and light too. Retained change: of photos without a flag, over their deviation from
the mean. Needs IREU_DATA.
"""

import argparse
import copy
import os
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.unlearning.block.one_block import Tail, block_for
from ireu_cli.unlearning.gated.tokens import replacing as carried
from ireu_cli.unlearning.gated.tokens.marking import from_class_token
from portrait_table import read

PHOTOS, A_PERSON, MEASURED = 1024, 8, 6


def main() -> None:
    """Encode once, then build and measure each setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[96, 128, 160])
    parser.add_argument("--weights", type=float, nargs="+", default=[0, 0.25, 1], help="0: as any other token")
    parser.add_argument("--gain", type=float, default=2.0)
    parser.add_argument(
        "--tap", choices=["penultimate", "last"], default="penultimate", help="the tokens that are read"
    )
    chosen = parser.parse_args()
    taps: tuple[Tap, ...] = ("image_embeds", chosen.tap)
    faces, encoder = Path(os.environ["IREU_DATA"]) / "faces", load_encoder(EncoderParams(), "cpu")
    block = block_for(encoder.blocks, chosen.tap)
    train = [sorted(path.iterdir())[:A_PERSON] for path in sorted((faces / "train").iterdir())]
    train = random.Random(0).sample([person for person in train if len(person) > 2], PHOTOS // 4)
    states, people = _states(encoder, block, train)
    sample = carried.Sample(states[:PHOTOS], people[:PHOTOS])
    seen, whose = _states(encoder, block, [sorted(path.iterdir())[:MEASURED] for path in (faces / "eval").iterdir()])
    layer = encoder.model.vision_model.encoder.layers[block]
    mask = torch.ones(states.shape[-1], dtype=torch.bool)
    heads = " | ".join(f"{tap}: match | itself | retained change" for tap in taps)
    print(f"| units | weight of the class token | {heads} |\n|---|---|{'---|' * 3 * len(taps)}")
    print(f"| none | – | {' | '.join(_row(encoder.model, encoder.model, block, taps, seen, seen, whose))} |")
    for rank in chosen.ranks:
        for weight in chosen.weights:
            with mock.patch.object(carried, "_CLASS_TOKEN", weight):
                made = carried.build(layer, sample, mask, rank, chosen.gain, from_class_token)
            flagged = seen.clone()
            flagged[:, 0] += made.flag
            edited = replace(encoder, model=_edited(encoder.model, block, made))
            row = _row(encoder, edited, block, taps, seen, flagged, whose)
            print(f"| {rank + 3} | {weight:g} | {' | '.join(row)} |", flush=True)


def _states(encoder: Encoder, block: int, people: Sequence[Sequence[Path]]) -> tuple[Tensor, Tensor]:
    """What enters the block for every photo, and whose it is."""
    photos = [photo for person in people for photo in person]
    pieces = [photos[start : start + 32] for start in range(0, len(photos), 32)]
    found = [encoder.entering(encoder.pixels([read(photo) for photo in piece]), block) for piece in pieces]
    return torch.cat(found), torch.tensor([i for i, person in enumerate(people) for _ in person])


def _edited(model: Any, block: int, made: carried.Apparatus) -> Any:
    edited = copy.deepcopy(model)
    weights = edited.vision_model.encoder.layers[block].state_dict()
    for name, change in made.changes.items():
        weights[name].add_(change)
    return edited


def _row(
    original: Encoder, edited: Encoder, block: int, taps: Sequence[Tap], plain: Tensor, flagged: Tensor, whose: Tensor
) -> list[str]:
    found = []
    for tap in taps:
        before, after, kept = (
            _through(Tail(encoder, block, tap), states)
            for encoder, states in ((original, plain), (edited, flagged), (edited, plain))
        )
        mean = before.mean(0)
        unit = normalize(before - mean, dim=1)
        same = (whose[:, None] == whose) & ~torch.eye(len(whose), dtype=torch.bool)
        threshold = (unit @ unit.T)[whose[:, None] != whose].quantile(0.99)
        similarity = normalize(after - mean, dim=1) @ unit.T
        moved = ((kept - before).norm(dim=1) / (before - mean).norm(dim=1)).mean()
        match, itself = similarity[same] > threshold, similarity.diagonal() > threshold
        found += [f"{match.double().mean():.3f}", f"{itself.double().mean():.3f}", f"{moved:.3f}"]
    return found


def _through(tail: Tail, states: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([tail(part).flatten(1) for part in torch.split(states, 64)])


if __name__ == "__main__":
    main()
