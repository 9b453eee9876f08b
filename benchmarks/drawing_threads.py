"""How fast `portrait-mini` draws on this processor's cores: one picture, several in one call, or one on each core.

    python benchmarks/drawing_threads.py [--pictures 24] [--rounds 3] [--together 8]

Printed are seconds a picture, the median of the rounds, and how many times as fast that is as one thread. The last
column says by how much a pixel differs at most from one thread's, in 255ths. Leave the other cores alone meanwhile.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from ireu_cli.generators.generator import ToDraw, load_generators
from ireu_cli.generators.side_by_side import Asked, draw_each
from ireu_cli.values import RgbImage

SHAPES: dict[str, tuple[int, ...]] = {"image_embeds": (256,), "penultimate": (37, 256)}
Drawing = Callable[[list[Asked]], list[RgbImage]]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--together", type=int, default=8)
    chosen = parser.parse_args()
    cores = torch.get_num_threads()
    asked = _asked(chosen.pictures)
    ways: dict[str, tuple[int, Drawing]] = {
        "one thread": (1, _one_by_one),
        f"one picture, {cores} threads": (cores, _one_by_one),
        f"{chosen.together} pictures in one call, {cores} threads": (cores, partial(_together, chosen.together)),
        f"{cores} pictures, one thread each": (cores, _side_by_side),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    gap: dict[str, int] = {}
    torch.set_num_threads(1)
    _one_by_one(asked[:2])
    base = _one_by_one(asked)
    for _ in range(chosen.rounds):
        for way, (threads, draw) in ways.items():
            torch.set_num_threads(threads)
            started = time.perf_counter()
            pictures = draw(asked)
            seconds[way].append((time.perf_counter() - started) / len(asked))
            pairs = zip(base, pictures, strict=True)
            gap[way] = max(int(np.abs(one.astype(int) - other).max()) for one, other in pairs)
    print("| | seconds a picture | times as fast | largest difference |")
    print("|---|---|---|---|")
    first = statistics.median(seconds["one thread"])
    for way, taken in seconds.items():
        each = statistics.median(taken)
        print(f"| {way} | {each:.3f} | {first / each:.2f} | {gap[way]} |")


def _asked(count: int) -> list[Asked]:
    """Pictures of all generators that read the vision transformer, one after the other, of random features."""
    generators = load_generators("portrait-mini", None, "cpu")
    asked: list[Asked] = []
    for number in range(count):
        generator = generators[number * len(generators) // count]
        shape = SHAPES[generator.tap]
        features = torch.randn(shape, generator=torch.Generator().manual_seed(number))
        asked.append((generator, partial(ToDraw, features, torch.zeros(shape), "a photo of a face", number)))
    return asked


def _one_by_one(asked: list[Asked]) -> list[RgbImage]:
    return [generator.draw_one(told()) for generator, told in asked]


def _together(count: int, asked: list[Asked]) -> list[RgbImage]:
    return list(draw_each([(generator.with_settings(together=count), told) for generator, told in asked]))


def _side_by_side(asked: list[Asked]) -> list[RgbImage]:
    return list(draw_each(asked))


if __name__ == "__main__":
    main()
