"""What delta ID a perfect method could reach: how alike the pictures of two strangers are, drawn from one noise.

    python benchmarks/reachable.py [--photos 40]

Of each person of `eval` one photo is drawn by every generator of portrait-mini, and once more with the noise of another
person's picture. A method that draws a target as somebody else entirely leaves as much likeness to the earlier picture
as two strangers have who share a noise (light, pose and background do), so delta ID cannot exceed one less that. Judged
by recogniser d of IREU_DATA/models. Needs IREU_DATA.
"""

import argparse
import os
from pathlib import Path

import torch
from torch import Tensor

from ireu_cli.encoders.families import load_encoder
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.generators.generator import Generator, load_generators
from ireu_cli.judges.face_check import load_face_check
from ireu_cli.maths.stats import estimate
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.support.runtime import generator as random_generator
from ireu_cli.values import RgbImage
from portrait_table import Judge, read
from target_draws import LANDMARKS


def main() -> None:
    """Draw, compare, a row a generator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=40)
    chosen = parser.parse_args()
    data = Path(os.environ["IREU_DATA"])
    people = sorted((data / "faces" / "eval").iterdir())[: chosen.photos]
    photos = [read(sorted(person.iterdir())[0]) for person in people]
    judge = Judge(data, load_face_check(embedded_folder() / "face_check"), "d")
    taps: tuple[Tap, ...] = ("image_embeds", "penultimate", "normed_embedding")
    print("| generator | strangers, each their own noise | strangers, one noise | delta ID within reach |")
    print("|---|---|---|---|")
    for drawer in load_generators("portrait-mini", taps, "cpu"):
        apart, alike = _likeness(drawer, photos, judge)
        told = estimate([alike[i : i + 1] for i in range(len(alike))], 2000, random_generator(0, "reachable"))
        if told is None:
            raise SystemExit("no face was found")
        print(
            f"| {drawer.name} | {float(apart.mean()):.3f} | {told.value:.3f} [{told.low:.3f}, {told.high:.3f}] | "
            f"{1 - told.value:.3f} |",
            flush=True,
        )


def _likeness(drawer: Generator, photos: list[RgbImage], judge: Judge) -> tuple[Tensor, Tensor]:
    marks = tuple(float(part) for part in LANDMARKS.split(","))
    encoder = load_encoder(EncoderParams(tap=drawer.tap), marks, "cpu")
    features, null = encoder.encode(encoder.pixels(photos), drawer.tap), encoder.null_features(drawer.tap)
    prompts, seeds = ["a photo of a face"] * len(photos), list(range(len(photos)))
    own = drawer.draw(features, null, prompts, seeds)
    # The same noise, the next person's features.
    other = drawer.draw(features.roll(-1, 0), null, prompts, seeds)
    first, second = (torch.stack([judge.look(picture) for picture in drawn]) for drawn in (own, other))
    alike, apart = (first * second).sum(1), (first * first.roll(-1, 0)).sum(1)
    return apart[torch.isfinite(apart)], alike[torch.isfinite(alike)]


if __name__ == "__main__":
    main()
