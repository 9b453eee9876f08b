"""Which tokens carry identity to a generator that reads all of them, and what has to be done to them.

    python benchmarks/token_identity.py [--pairs 25] [--people 15]

First, the class token or the patches of one person's photo are replaced by those of another's, and portraits are drawn:
the share of the way to the other person that identity goes. Then tokens are changed as if a perfect detector had found
the person, in the ways that an edit could: similarity of the portrait to the photo, and the share nearer to it than
a hundredth of other people's photos. The judge is d of IREU_DATA/models. Needs IREU_DATA.
"""

import argparse
import os
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.generators.generator import Generator, load_generators
from ireu_cli.judges.face_check import load_face_check
from ireu_cli.maths.erase import eraser
from ireu_cli.params import EncoderParams
from portrait_table import Judge, read

GIVEN, DRAWN = 5, 3
PEOPLE = 1200
"""People of `train` with two photos or more that erasing is learnt from."""
Change = Callable[[Tensor, Tensor], Tensor]
"""(tokens of a photo, tokens of the given photos of the same person) to tokens."""


def main() -> None:
    """Draw and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--people", type=int, default=15)
    chosen = parser.parse_args()
    data, encoder, bundle = (
        Path(os.environ["IREU_DATA"]),
        load_encoder(EncoderParams(), "cpu"),
        find_bundle("portrait-mini"),
    )
    if bundle is None:
        raise SystemExit("portrait-mini is not there")
    judge = Judge(data, load_face_check(bundle.folder / bundle.face_check), "d")
    drawer = next(g for g in load_generators("portrait-mini", None, "cpu") if g.tap == "penultimate")
    null = encoder.null_features("penultimate")

    def tokens(files: Sequence[Path]) -> Tensor:
        return torch.cat(
            [encoder.encode(encoder.pixels([read(file) for file in files[i : i + 64]]), "penultimate")
             for i in range(0, len(files), 64)]
        )  # fmt: skip

    def face(features: Tensor, seed: int) -> Tensor:
        return judge.look(_draw(drawer, features, null, seed))

    _swap(sorted((data / "faces" / "eval").glob("*/*.jpg")), tokens, face, judge, chosen.pairs)
    several = [p for p in sorted((data / "faces" / "train").iterdir()) if len(list(p.iterdir())) > 1][:PEOPLE]
    files = [file for person in several for file in sorted(person.iterdir())]
    number = {person.name: i for i, person in enumerate(several)}
    people = torch.tensor([number[file.parent.name] for file in files])
    _oracle(
        _changes(tokens(files), people), sorted((data / "faces" / "eval").iterdir()), tokens, face, judge, chosen.people
    )


def _draw(
    drawer: Generator, features: Tensor, null: Tensor, seed: int
) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    return drawer.draw(features[None], null, ["a photo of a face"], [seed])[0]


def _swap(
    files: Sequence[Path],
    tokens: Callable[[Sequence[Path]], Tensor],
    face: Callable[[Tensor, int], Tensor],
    judge: Judge,
    pairs: int,
) -> None:
    rng = random.Random(1)
    moved: dict[str, list[float]] = {"class token": [], "patches": [], "all": []}
    for seed in range(pairs):
        first, second = rng.sample(list(files), 2)
        if first.parent == second.parent:
            continue
        one, other = tokens([first, second])
        lean, start = judge(second) - judge(first), face(one, seed)
        for name, mixed in (
            ("class token", torch.cat([other[:1], one[1:]])),
            ("patches", torch.cat([one[:1], other[1:]])),
            ("all", other),
        ):
            moved[name].append(float((face(mixed, seed) - start) @ lean))
    way = np.nanmean(moved["all"])
    print(f"| replaced | share of the way to the other person, {len(moved['all'])} pairs |\n|---|---|")
    for name, values in moved.items():
        print(f"| {name} | {np.nanmean(values) / way:.2f} |")


def _changes(train: Tensor, people: Tensor) -> dict[str, Change]:
    mean, (_, places, size) = train.mean(0), train.shape
    groups = torch.unique(people[:, None] * places + torch.arange(places), return_inverse=True)[1][:, 1:].flatten()
    rows = (train - mean)[:, 1:].reshape(-1, size)
    found: dict[str, Change] = {
        "as it is": lambda photo, _given: photo,
        "the person's mean to everybody's, place by place": lambda photo, given: photo - (given.mean(0) - mean),
        "the same, twice as far": lambda photo, given: photo - 2 * (given.mean(0) - mean),
        "the same, one vector for all places": lambda photo, given: photo - 2 * (given.mean(0) - mean)[1:].mean(0),
        "everybody's mean": lambda _photo, _given: mean,
    }
    for rank, gain in ((16, 1.0), (48, 1.0), (96, 1.0), (48, 1.5), (96, 1.5), (96, 2.0)):
        project = gain * eraser(rows, groups, rank).float()
        found[f"erased, rank {rank}, gain {gain:g}"] = lambda photo, _given, project=project: (  # type: ignore[misc]
            photo - (photo - mean) @ project.T
        )
    return found


def _oracle(
    changes: dict[str, Change],
    everybody: Sequence[Path],
    tokens: Callable[[Sequence[Path]], Tensor],
    face: Callable[[Tensor, int], Tensor],
    judge: Judge,
    count: int,
) -> None:
    rng = random.Random(2)
    people = [rng.sample(sorted(person.iterdir()), GIVEN + DRAWN) for person in rng.sample(list(everybody), count)]
    print("\n| tokens | ID^o | matches | impostors | face found |\n|---|---|---|---|---|")
    threshold = None
    for name, change in changes.items():
        own, impostors = [], []
        for photos in people:
            given = tokens(photos[:GIVEN])
            for number, file in enumerate(photos[GIVEN:]):
                drawn = face(change(tokens([file])[0], given), number)
                own.append(float(drawn @ judge(file)))
                impostors += [
                    float(drawn @ judge(f)) for others in people if others is not photos for f in others[GIVEN:]
                ]
        threshold = threshold or np.nanquantile(impostors, 0.99)
        seen = np.array(own)[np.isfinite(own)]
        shares = f"{(seen > threshold).mean():.2f} | {np.nanmean(impostors):.3f} | {len(seen) / len(own):.2f}"
        print(f"| {name} | {seen.mean():.3f} | {shares} |")


if __name__ == "__main__":
    main()
