"""How well a linear detector of `gated` finds people of whom it has a few photos, by where it looks.

    python benchmarks/detector_table.py [--encoder portrait-mini] [--photos 1 3 5 10] [--draws 2]

Directions, covariances and thresholds come from `train`, as in the product; the share of other `eval` people's photos,
who played no part, that are found is printed beside each rate. TAR: share of the photos of a person that the detector
never saw and finds, mean over people and draws. Needs IREU_DATA, a folder with `faces/eval` and `faces/train`.
"""

import argparse
import contextlib
import os
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.encoders.mlp_site import MlpSite, attending, watching
from ireu_cli.faces.align import template_points
from ireu_cli.faces.disguise import disguise
from ireu_cli.maths.detector import FOLDS, Deal, PeopleInFolds, sum_people
from ireu_cli.params import EncoderParams, GatedParams
from ireu_cli.unlearning.gated.pooled.run import SHRINKAGE
from ireu_cli.unlearning.gated.solve import Found, Rows, directions, with_thresholds
from ireu_cli.values import RgbImage
from portrait_table import read
from target_draws import LANDMARKS

RATES = (1e-2, 1e-3)
AVERAGED = "all tokens, averaged"
ATTACKS = ("crop-0.8", "shift", "glasses", "rotate-left-20", "brightness-0.5", "grey")
VIEWED = 80
"""Every so many photos of train are changed as the targets' copies are."""
UNSEEN = 8
"""Photos of a person that are disguised, beyond those given."""


def main() -> None:
    """Encode, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="portrait-mini")
    parser.add_argument("--photos", type=int, nargs="+", default=[1, 3, 5, 10])
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--every", type=int, default=1, help="take every n-th photo of train")
    chosen = parser.parse_args()
    faces = Path(os.environ["IREU_DATA"]) / "faces"
    encoder = load_encoder(EncoderParams(source=chosen.encoder), "cpu")
    train, people = encode_all(encoder, sorted((faces / "train").glob("*/*.jpg"))[:: chosen.every])
    files = sorted((faces / "eval").glob("*/*.jpg"))
    test, who = encode_all(encoder, files)
    print("| looks at | photos given | " + " | ".join(f"TAR at {rate:g} | others found" for rate in RATES) + " |")
    print("|---|---|" + "---|" * (2 * len(RATES)))
    for place in train:
        for count in chosen.photos if place == f"class token, block {encoder.blocks - 1}" else (5,):
            print(_row(place, count, chosen.draws, train[place], people, test[place], who))
    _disguised(encoder, files, who, train, people)


def encode_all(encoder: Encoder, files: Sequence[Path]) -> tuple[dict[str, Tensor], Tensor]:
    """What enters each block's hidden layer: the class token, one patch, and the mean of all patches.

    And the mean of all tokens that enter the attention of the third-last block.
    """
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(files), 64):
        images = [read(file) for file in files[start : start + 64]]
        inputs, averaged = _inputs(encoder, images)
        found.setdefault(f"{AVERAGED}, block {encoder.blocks - 3}", []).append(averaged)
        for block, tokens in inputs.items():
            found.setdefault(f"class token, block {block}", []).append(tokens[:, 0])
            if block >= encoder.blocks - 3:
                found.setdefault(f"mean of patches, block {block}", []).append(tokens[:, 1:].mean(1))
                found.setdefault(f"best patch, block {block}", []).append(tokens[:, 1:].half())
    number = {name: i for i, name in enumerate(sorted({file.parent.name for file in files}))}
    return {place: torch.cat(rows) for place, rows in found.items()}, torch.tensor(
        [number[file.parent.name] for file in files]
    )


def _inputs(encoder: Encoder, images: Sequence[RgbImage]) -> tuple[dict[int, Tensor], Tensor]:
    with torch.inference_mode(), contextlib.ExitStack() as stack:
        sites = range(encoder.blocks)
        seen = [stack.enter_context(watching(encoder.model, MlpSite(block))) for block in sites]
        attended = stack.enter_context(attending(encoder.model, encoder.blocks - 3))
        encoder.model.vision_model(encoder.pixels(images))
    return {block: seen[block][0] for block in sites}, attended[0].mean(1)


def _row(place: str, count: int, draws: int, train: Tensor, people: Tensor, test: Tensor, who: Tensor) -> str:
    """One place; of single patches, the best one."""
    if train.ndim == 3:
        rows = [_tar(count, 1, train[:, i].float(), people, test[:, i].float(), who) for i in range(train.shape[1])]
        best = max(rows, key=lambda row: row[0][0])
    else:
        share = SHRINKAGE if place.startswith(AVERAGED) else 1.0
        best = _tar(count, draws, train, people, test, who, share)
    return f"| {place} | {count} | " + " | ".join(f"{tar:.3f} | {others:.4f}" for tar, others in best) + " |"


def rows_by_fold(photos: Tensor, who: Tensor) -> Rows:
    """What thresholds are set on; people are numbered from 0 in the order in which they were summed."""
    return lambda fold: [photos[who % FOLDS == fold]]


class Strangers:
    """People whom detectors tell a person from: photos as a detector sees them (n, d), person by person."""

    def __init__(self, photos: Tensor, who: Tensor, views: Sequence[Tensor] = (), share: float = 1.0) -> None:
        self._shrinkage = share * GatedParams().shrinkage
        counts = torch.unique_consecutive(who, return_counts=True)[1].tolist()
        self.people: PeopleInFolds = sum_people(torch.split(photos, counts), views, Deal(tuple(counts)))
        self.rows = rows_by_fold(photos, who)

    def find(self, given: Sequence[Tensor], rates: Sequence[float]) -> list[list[Found]]:
        """The detectors of some people at some false-alarm rates; null images play no part."""
        none = self.people.every.mean()[None][:0]
        found = directions(given, self.people, none, self._shrinkage)
        return [with_thresholds(found, given, self.people, self.rows, rate) for rate in rates]


def _tar(
    count: int, draws: int, train: Tensor, people: Tensor, test: Tensor, who: Tensor, share: float = 1.0
) -> list[tuple[float, float]]:
    strangers, rng = Strangers(train, people, share=share), random.Random(0)
    mine = []
    for person in range(int(who.max()) + 1):
        rows = (who == person).nonzero().flatten().tolist()
        for _ in range(draws):
            rng.shuffle(rows)
            if len(rows) > count:
                mine.append((person, rows[:count], rows[count:]))
    told = []
    for detectors in strangers.find([test[given] for _, given, _ in mine], RATES):
        hits, alarms = [], []
        for (person, _, unseen), one in zip(mine, detectors, strict=True):
            found = test.double() @ one.weight > one.threshold.value
            hits.append(float(found[unseen].double().mean()))
            alarms.append(float(found[who != person].double().mean()))
        told.append((float(np.mean(hits)), float(np.mean(alarms))))
    return told


def _disguised(encoder: Encoder, files: Sequence[Path], who: Tensor, train: dict[str, Tensor], people: Tensor) -> None:
    """Photos that somebody disguised, for detectors that were and were not given changed copies.

    Others' photos in the same disguise say whether a detector took the person or the disguise.
    """
    rng, sites = random.Random(1), (encoder.blocks - 3, encoder.blocks - 1)
    given: list[dict[tuple[str, int], Tensor]] = []
    tried: list[dict[tuple[str, int], Tensor]] = []
    for person in range(int(who.max()) + 1):
        rows = (who == person).nonzero().flatten().tolist()
        rng.shuffle(rows)
        photos = [read(files[i]) for i in rows[: 5 + UNSEEN]]
        given.append(_views(encoder, photos[:5], ("", *GatedParams().copies), sites))
        tried.append(_views(encoder, photos[5:], ("", *ATTACKS), sites))
    names, some = (
        ("", *GatedParams().copies),
        sorted((files[0].parent.parent.parent / "train").glob("*/*.jpg"))[::VIEWED],
    )
    viewed = _views(encoder, [read(file) for file in some], names, sites)
    heads = " | ".join(name or "as it is" for name in ("", *ATTACKS))
    print(f"\n| class token | copies | of | {heads} |\n|---|---|---|---|" + "---|" * len(ATTACKS))
    for site in sites:
        for copies in (False, True):
            changed = zip(*(viewed[name, site] for name in names), strict=True) if copies else ()
            views = [torch.stack(photo) for photo in changed]
            strangers = Strangers(train[f"class token, block {site}"], people, views)
            mine = [
                torch.cat([rows for (name, place), rows in looks.items() if place == site and (copies or not name)])
                for looks in given
            ]
            found: dict[tuple[str, str], list[float]] = {}
            for person, one in enumerate(strangers.find(mine, RATES[:1])[0]):
                for name in ("", *ATTACKS):
                    hits = [
                        float((look[name, site] @ one.weight > one.threshold.value).double().mean()) for look in tried
                    ]
                    found.setdefault(("the person", name), []).append(hits[person])
                    found.setdefault(("others", name), []).append(float(np.mean(hits[:person] + hits[person + 1 :])))
            for of in ("the person", "others"):
                cells = [f"{np.mean(found[of, name]):.3f}" for name in ("", *ATTACKS)]
                print(f"| block {site} | {'yes' if copies else 'no'} | {of} | " + " | ".join(cells) + " |")


def _views(
    encoder: Encoder, photos: Sequence[RgbImage], names: Sequence[str], sites: Sequence[int]
) -> dict[tuple[str, int], Tensor]:
    """What the class token of photos in some disguises brings to some sites: float64 (n, d) each."""
    looks = {name: _inputs(encoder, [_change(photo, name) for photo in photos])[0] for name in names}
    return {(name, site): looks[name][site][:, 0].double() for name in names for site in sites}


def _change(photo: RgbImage, name: str) -> RgbImage:
    points = template_points(tuple(float(part) for part in LANDMARKS.split(",")), photo)
    return disguise(name).apply(photo, points, photo, photo) if name else photo


if __name__ == "__main__":
    main()
