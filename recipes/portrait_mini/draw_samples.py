"""Draw the sample people: ``draw_samples.py --data DIR --out DIR --generator a --to FOLDER``.

A person is a point between no real people: drawn from the normal distribution of people's mean features, then varied
from photo to photo as one person's photos vary. Candidates whose photos do not agree, who look like another sample
person or like anybody in the photos the generator learned from, are passed over.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conditions import Conditions, encoder_conditions
from diffusers import AutoencoderTiny
from evaluate import Recognisers, aligned
from faces import add_arguments, data_folder, load_photos, split_validation, write_atomically
from generator import Generator, sample
from PIL import Image
from scenes import LATENT, VIEWS
from train_generator import GUIDANCE, STEPS, Words
from train_vae import CHANNELS
from views import ALIGNED, aligned_frame, plain

from ireu_cli.judges.face_check import load_face_check

# The encoder expects the wide frame. Light, direction and tone vary; what is left out (sepia, close-up) is no photo.
PROMPTS = (
    "wide",
    "wide",
    "wide, facing left",
    "wide, facing right",
    "wide, dark",
    "wide, bright",
    "wide, blue background",
    "wide, green background, facing left",
    "wide, facing right, bright",
    "wide, black and white",
)
WITHIN = 0.6  # share of the usual variation between photos of one person; prompts and noise add theirs
JUDGE = "b"
# Similarities: the least of a photo with its person's mean, the most of that mean with real photos and sample people.
AGREEMENT, REAL, SAMPLE = 0.55, 0.6, 0.55


@dataclass(frozen=True)
class Variation:
    """How people differ, and how photos of one person do: mean (d,) and square roots (d, d) of both covariances."""

    mean: torch.Tensor
    between: torch.Tensor
    within: torch.Tensor


def variation(features: torch.Tensor, person: torch.Tensor) -> Variation:
    """From labelled features (n, d)."""
    sums = torch.zeros(int(person.max()) + 1, features.shape[1]).index_add_(0, person, features)
    counts = torch.bincount(person, minlength=len(sums))
    means = sums / counts.clamp_min(1)[:, None]
    several = counts >= 2
    kept = several[person]
    rest = (features - means[person])[kept]
    within = rest.T @ rest / (len(rest) - several.sum())
    centred = means[several] - means[several].mean(0)
    noise = within * (1 / counts[several]).float().mean()
    between = centred.T @ centred / len(centred) - noise
    return Variation(means[several].mean(0), _root(between), _root(within))


def _root(covariance: torch.Tensor) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(covariance.double())
    return (vectors * values.clamp_min(0).sqrt()).float()


class Artist:
    """Draws candidates with one generator."""

    def __init__(self, args: Any, seen: Conditions, spread: Variation) -> None:
        run = args.out / args.generator
        settings = json.loads((run / "run.json").read_text())["settings"]
        self.generator = Generator(settings["kind"], tuple(settings["widths"]), seen.null.shape[-1])
        self.generator.load_state_dict(torch.load(run / "last.pt", weights_only=True)["average"])
        self.generator.eval().to(memory_format=torch.channels_last)
        self.vae = AutoencoderTiny.from_pretrained(args.vae).eval()
        self.words, self.null, self.spread = Words(args.out / "text"), seen.null, spread

    @torch.no_grad()
    def draw(self, number: int) -> torch.Tensor:
        """All photos of candidate ``number`` -> (10, 3, 112, 112) in [0, 1]."""
        g = torch.Generator().manual_seed(90_000 + number)
        width = len(self.spread.mean)
        centre = self.spread.mean + self.spread.between @ torch.randn(width, generator=g)
        features = torch.stack(
            [centre + WITHIN * (self.spread.within @ torch.randn(width, generator=g)) for _ in PROMPTS]
        )
        noise = torch.randn(len(PROMPTS), CHANNELS, LATENT, LATENT, generator=g)
        text, null = self.words([f"a photo of a face, {prompt}" for prompt in PROMPTS]), self.words([""])
        latents = sample(self.generator, text, features, null, self.null, noise, STEPS, GUIDANCE)
        pictures: torch.Tensor = self.vae.decoder(latents).clamp(-1, 1).add(1).div(2)
        return pictures


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--generator", default="a", help="a run that reads image_embeds")
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--face-check", type=Path, required=True)
    parser.add_argument("--people", type=int, default=48)
    parser.add_argument("--to", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data, cache = data_folder(args.data), args.out / "cache"
    photos = load_photos(data, "train", cache)
    settings = json.loads((args.out / args.generator / "run.json").read_text())["settings"]
    seen = encoder_conditions(Path(settings["encoder"]), "base", photos, cache / "seen_0")
    allowed = split_validation(photos.person)[0]
    spread = variation(seen.batch((allowed * VIEWS).tolist()), photos.person[allowed])
    artist, check, recognisers = Artist(args, seen, spread), load_face_check(args.face_check), Recognisers(data)
    real = _real(recognisers, photos, cache / "judged_train.pt")
    kept: list[torch.Tensor] = []
    facts, number = [], -1
    while len(kept) < args.people:
        number += 1
        pictures = artist.draw(number)
        faces, found, _ = aligned(pictures, check)
        if not found.all():
            continue
        vectors = recognisers(JUDGE, faces)
        centre = torch.nn.functional.normalize(vectors.mean(0), dim=0)
        agreement = float((vectors @ centre).min())
        nearest_real = float((real @ centre).max())
        nearest_sample = max((float(other @ centre) for other in kept), default=-1.0)
        row = {"candidate": number, "agreement": agreement, "real": nearest_real, "sample": nearest_sample}
        if agreement < AGREEMENT or nearest_real > REAL or nearest_sample > SAMPLE:
            print(json.dumps(row), flush=True)
            continue
        folder = args.to / f"person-{len(kept):02d}"
        folder.mkdir(parents=True, exist_ok=True)
        for place, picture in enumerate(pictures):
            pixels = picture.mul(255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / f"{place:02d}.jpg", quality=90)
        kept.append(centre)
        facts.append({name: round(value, 3) for name, value in row.items()})
    write_atomically(args.to / "people.json", json.dumps({"prompts": PROMPTS, "people": facts}, indent=1) + "\n")


def _real(recognisers: Recognisers, photos: Any, cache: Path) -> torch.Tensor:
    if not cache.exists():
        parts = [
            recognisers(JUDGE, plain(photos, index, aligned_frame(), ALIGNED))
            for index in torch.split(torch.arange(len(photos.person)), 64)
        ]
        torch.save(torch.cat(parts), cache)
    held: torch.Tensor = torch.load(cache, weights_only=True)
    return held


if __name__ == "__main__":
    main()
