"""Whether more than a linear score would find more of a person: what the class token knows at two blocks.

    python benchmarks/detector_ceiling.py [--photos 5] [--epochs 12]

Beside the detector of `gated`: the best linear score where the person and strangers spread differently (Anderson and
Bahadur, 1962), the exact likelihood ratio of two Gaussians (probabilistic linear discriminant analysis,
which is quadratic in the features), the cosine in its space, and a network of one wide hidden layer trained on the
people of `train` to tell them apart (additive-margin softmax), with the detector of `gated` behind it; and the detector
of `gated` where it sees several blocks, or the patches too. Thresholds are
set on a quarter of the people of `train`, who play no other part; TAR is of photos never given, people of `eval`.
Needs IREU_DATA.
"""

import argparse
import os
import random
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from detector_table import encode_all
from ireu_cli.encoders.clip import load_encoder
from ireu_cli.maths.detector import PeopleSums
from ireu_cli.params import EncoderParams, GatedParams

RATES = (1e-2, 1e-3)
MARGIN, SCALE, BATCH, NOISE = 0.2, 24.0, 256, 0.1
Score = Callable[[Tensor], Callable[[Tensor], Tensor]]
"""From the photos given of a person to a score of photos, (n, d) to (n,)."""


def main() -> None:
    """Encode, then a row a score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12)
    chosen = parser.parse_args()
    faces, encoder = Path(os.environ["IREU_DATA"]) / "faces", load_encoder(EncoderParams(), "cpu")
    train, people = encode_all(encoder, sorted((faces / "train").glob("*/*.jpg")))
    test, who = encode_all(encoder, sorted((faces / "eval").glob("*/*.jpg")))
    held = people % 4 == 0
    print("| class token | score | " + " | ".join(f"TAR at {rate:g} | others found" for rate in RATES) + " |")
    print("|---|---|" + "---|" * (2 * len(RATES)))
    for block in (encoder.blocks - 3, encoder.blocks - 1):
        place = f"class token, block {block}"
        rows, others, mine = train[place][~held].double(), train[place][held].double(), test[place].double()
        head = _trained(rows.float(), people[~held], chosen.epochs)
        with torch.inference_mode():
            spaces = {"": (rows, others, mine), "behind a trained layer": tuple(map(head, (rows, others, mine)))}
        for name, (some, strangers, asked) in spaces.items():
            sums = _sums(some, people[~held])
            scores = {"linear": _linear(sums)}
            if not name:
                scores |= {"linear, two spreads": _two_spreads(sums, chosen.photos), "cosine": _cosine(sums)}
                scores |= {"likelihood ratio": _ratio(sums, chosen.photos)}
            for kind, score in scores.items():
                cells = _tar(score, strangers, asked, who, chosen.photos)
                print(f"| block {block} | {kind} {name} | {cells} |", flush=True)
    more: dict[str, tuple[str, ...]] = {
        f"block {block}": (f"class token, block {block}",) for block in range(encoder.blocks)
    }
    third = encoder.blocks - 3
    more[f"blocks 0 to {third}"] = tuple(f"class token, block {block}" for block in range(third + 1))
    more[f"block {third}, and mean of patches"] = (f"class token, block {third}", f"mean of patches, block {third}")
    for name, places in more.items():
        rows, asked = (torch.cat([found[place] for place in places], 1).double() for found in (train, test))
        cells = _tar(_linear(_sums(rows[~held], people[~held])), rows[held], asked, who, chosen.photos)
        print(f"| {name} | linear | {cells} |", flush=True)


def _sums(rows: Tensor, people: Tensor) -> PeopleSums:
    sums = PeopleSums()
    for person in torch.split(rows, torch.unique_consecutive(people, return_counts=True)[1].tolist()):
        sums.add_person(person)
    return sums


def _tar(score: Score, strangers: Tensor, test: Tensor, who: Tensor, count: int) -> str:
    rng, hits, alarms = random.Random(0), [], []
    for person in range(int(who.max()) + 1):
        rows = (who == person).nonzero().flatten().tolist()
        rng.shuffle(rows)
        of = score(test[rows[:count]])
        thresholds = of(strangers).quantile(torch.tensor([1 - rate for rate in RATES], dtype=torch.float64))
        found = of(test)[:, None] > thresholds
        hits.append(found[rows[count:]].double().mean(0))
        alarms.append(found[who != person].double().mean(0))
    tar, taken = torch.stack(hits).mean(0).tolist(), torch.stack(alarms).mean(0).tolist()
    return " | ".join(f"{a:.3f} | {b:.4f}" for a, b in zip(tar, taken, strict=True))


def _linear(sums: PeopleSums) -> Score:
    mean, factor = sums.mean(), torch.linalg.cholesky(sums.whitener(GatedParams().shrinkage))

    def given(photos: Tensor) -> Callable[[Tensor], Tensor]:
        weight = torch.cholesky_solve((photos.mean(0) - mean)[:, None], factor)[:, 0]
        return lambda rows: rows @ weight

    return given


def _cosine(sums: PeopleSums) -> Score:
    mean = sums.mean()
    whiten = torch.linalg.cholesky(torch.linalg.inv(sums.whitener(GatedParams().shrinkage)))

    def given(photos: Tensor) -> Callable[[Tensor], Tensor]:
        own = (photos - mean).mean(0) @ whiten
        return lambda rows: functional.cosine_similarity((rows - mean) @ whiten, own[None])

    return given


def _space(sums: PeopleSums, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Axes (d, d) along which photos of one person spread by one, and along each how people spread, (d,).

    Then what `count` photos of a person say: the share of their mean to expect, and the spread that is left.
    """
    mean, within = sums.mean(), sums.whitener(GatedParams().shrinkage)
    every = sums.square / sums.photos - torch.outer(mean, mean)
    whiten = torch.linalg.cholesky(torch.linalg.inv(within))
    between, turn = torch.linalg.eigh(whiten.T @ (every - sums.spread()) @ whiten)
    between = between.clamp_min(0)
    return whiten @ turn, between, count * between / (1 + count * between), between / (1 + count * between)


def _two_spreads(sums: PeopleSums, count: int) -> Score:
    """The person's expected mean, over the mean of what the person's photos and everybody's spread by."""
    mean, (space, between, gain, left) = sums.mean(), _space(sums, count)
    each = gain / (0.5 * (1 + left) + 0.5 * (1 + between))

    def given(photos: Tensor) -> Callable[[Tensor], Tensor]:
        weight = space @ (((photos - mean) @ space).mean(0) * each)
        return lambda rows: rows @ weight

    return given


def _ratio(sums: PeopleSums, count: int) -> Score:
    """Log p(photo | person, of whom `count` photos are known) - log p(photo | anybody), both Gaussian."""
    mean, (space, between, gain, left) = sums.mean(), _space(sums, count)

    def given(photos: Tensor) -> Callable[[Tensor], Tensor]:
        own = ((photos - mean) @ space).mean(0) * gain

        def score(rows: Tensor) -> Tensor:
            placed = (rows - mean) @ space
            ratio: Tensor = (placed**2 / (1 + between) - (placed - own) ** 2 / (1 + left)).sum(1)
            return ratio

        return score

    return given


def _trained(rows: Tensor, people: Tensor, epochs: int) -> Callable[[Tensor], Tensor]:
    torch.manual_seed(0)
    names, numbers = torch.unique(people, return_inverse=True)
    mean, deviation, width = rows.mean(0), rows.std(0), rows.shape[1]
    wide = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(0.3), nn.Linear(4 * width, width))
    plain = nn.Linear(width, width, bias=False)
    heads = nn.Parameter(0.01 * torch.randn(len(names), width))
    parameters = [*wide.parameters(), *plain.parameters(), heads]
    optimiser = torch.optim.AdamW(parameters, 1e-3, weight_decay=0.05)
    steps = epochs * (len(rows) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)

    def embed(some: Tensor) -> Tensor:
        scaled = (some.float() - mean) / deviation
        found: Tensor = wide(scaled) + plain(scaled)
        return found

    for step in range(steps):
        if step % (len(rows) // BATCH) == 0:
            order = torch.randperm(len(rows))
        batch = order[step % (len(rows) // BATCH) * BATCH :][:BATCH]
        noisy = rows[batch] + NOISE * deviation * torch.randn(BATCH, width)
        cosines = functional.normalize(embed(noisy), dim=1) @ functional.normalize(heads, dim=1).T
        margins = MARGIN * functional.one_hot(numbers[batch], len(names))
        optimiser.zero_grad()
        functional.cross_entropy(SCALE * (cosines - margins), numbers[batch]).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    wide.eval()
    return lambda some: functional.normalize(embed(some), dim=1).double()


if __name__ == "__main__":
    main()
