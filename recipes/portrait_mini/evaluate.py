"""Judge the generators on people who are never trained on: ``evaluate.py --data DIR --out DIR --generators a b``.

Recognisers b and d taught no encoder; b taught the embedded recogniser.
Prints one JSON object; ``--grid FILE`` writes photo and portrait side by side.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from conditions import Conditions, encoder_conditions, face_conditions
from diffusers import AutoencoderTiny
from faces import Photos, add_arguments, data_folder, load_photos, write_atomically
from generator import Generator, sample
from landmarks import load_landmarks
from PIL import Image
from scenes import FRAMES, LATENT, PICTURE, VIEWS
from torch.nn import functional
from torchmetrics.image.kid import KernelInceptionDistance
from train_generator import GUIDANCE, STEPS, Words
from train_vae import CHANNELS
from views import ALIGNED, aligned_frame, centre_frame, plain

from ireu_cli.faces.align import crop_face
from ireu_cli.judges.face_check import FaceCheck, load_face_check
from ireu_cli.maths.images.edits import EDITS, adheres

RECOGNISERS = {"b": (127.5, 128.0), "d": (127.5, 128.0)}
PLAIN = "a photo of a face"


class Recognisers:
    """The measuring recognisers: aligned faces to unit vectors, by name."""

    def __init__(self, data: Path) -> None:
        self.sessions = {
            name: onnxruntime.InferenceSession(
                str(data / "models" / f"recogniser_{name}.onnx"), providers=["CPUExecutionProvider"]
            )
            for name in RECOGNISERS
        }

    def __call__(self, name: str, faces: torch.Tensor) -> torch.Tensor:
        """Faces (n, 3, 112, 112), RGB in [0, 1] -> (n, d)."""
        session, (mean, spread) = self.sessions[name], RECOGNISERS[name]
        rows = []
        for face in faces.clamp(0, 1).mul(255).sub(mean).div(spread).float():
            rows.append(torch.from_numpy(session.run(None, {session.get_inputs()[0].name: face[None].numpy()})[0])[0])
        return functional.normalize(torch.stack(rows).flatten(1), dim=1)


class Features(torch.nn.Module):
    """ImageNet features of MobileNetV2 for KID, in place of Inception: pictures uint8 (n, 3, h, w) -> (n, 1280)."""

    num_features = 1280

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.session = onnxruntime.InferenceSession(
            str(data / "models" / "mobilenet_v2_imagenet.onnx"), providers=["CPUExecutionProvider"]
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """-> (n, 1280)."""
        large = functional.interpolate(pictures.float(), (224, 224), mode="bilinear", antialias=True)
        entry = self.session.get_inputs()[0]
        if entry.shape[-1] == 3:
            large = large.permute(0, 2, 3, 1)
        rows = [self.session.run(None, {entry.name: x[None].numpy()})[0] for x in large]
        return torch.from_numpy(np.concatenate(rows)).flatten(1)


def aligned(pictures: torch.Tensor, check: FaceCheck) -> tuple[torch.Tensor, torch.Tensor, list[Any]]:
    """Bring drawn pictures (n, 3, 112, 112) in [0, 1] to the template -> faces, found (n,) bool, landmarks."""
    shown = pictures.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    looks = check.look(list(shown))
    faces = [
        crop_face(image, look.landmarks.astype(float), ALIGNED, 0.0)[0]
        for image, look in zip(shown, looks, strict=True)
    ]
    found = torch.tensor([look.score >= check.threshold for look in looks])
    points = [look.landmarks if ok else None for look, ok in zip(looks, found.tolist(), strict=True)]
    return torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2).float() / 255, found, points


def identity(drawn: torch.Tensor, real: torch.Tensor, person: torch.Tensor, found: torch.Tensor) -> dict[str, float]:
    """Similarities and true-accept rates of drawn (n, d) against photos (n, d), row i drawn from photo i."""
    same = person[:, None] == person[None]
    own = torch.eye(len(person), dtype=torch.bool)
    to_photos, photos = drawn @ real.T, real @ real.T
    impostor, two_photos = to_photos[~same & found[:, None]], photos[same & ~own]
    threshold, real_threshold = impostor.quantile(0.99), photos[~same].quantile(0.99)
    hit = (to_photos > threshold) & found[:, None]
    figures = {
        "to_photo": to_photos.diagonal()[found].mean(),
        "to_other_photos": to_photos[same & ~own & found[:, None]].mean(),
        "impostor": impostor.mean(),
        "two_real_photos": two_photos.mean(),
        "tar_1e-2": hit.diagonal().float().mean(),
        "tar_1e-2_other_photos": hit[same & ~own].float().mean(),
        "tar_1e-2_two_real_photos": (two_photos > real_threshold).float().mean(),
    }
    figures["share_of_the_way"] = (figures["to_photo"] - figures["impostor"]) / (
        figures["two_real_photos"] - figures["impostor"]
    )
    return {name: round(float(value), 4) for name, value in figures.items()}


class Drawer:
    """One trained generator with its conditions on the photos of ``eval``."""

    def __init__(self, args: Any, name: str, photos: Photos, vae: AutoencoderTiny, words: Words) -> None:
        run = args.out / name
        settings = json.loads((run / "run.json").read_text())["settings"]
        cache, encoder = args.out / "cache" / "seen_1", Path(settings["encoder"])
        kind = settings["kind"]
        held = (
            face_conditions(encoder, photos, cache)
            if kind == "faceid"
            else encoder_conditions(encoder, kind, photos, cache)
        )
        self.held: Conditions = held
        self.generator = Generator(kind, tuple(settings["widths"]), held.null.shape[-1])
        self.generator.load_state_dict(torch.load(run / "last.pt", weights_only=True)["average"])
        self.generator.eval().to(memory_format=torch.channels_last)
        self.vae, self.words = vae, words

    @torch.no_grad()
    def draw(self, index: torch.Tensor, prompt: str, seed: int = 0) -> torch.Tensor:
        """-> (n, 3, 112, 112) in [0, 1]; noise follows from the photo's number."""
        parts = []
        for chunk in torch.split(index, 32):
            noise = torch.stack(
                [
                    torch.randn(CHANNELS, LATENT, LATENT, generator=torch.Generator().manual_seed(seed * 9999 + i))
                    for i in chunk.tolist()
                ]
            )
            text, null = self.words([prompt] * len(chunk)), self.words([""])
            features = self.held.batch((chunk * VIEWS).tolist())
            latents = sample(self.generator, text, features, null, self.held.null, noise, STEPS, GUIDANCE)
            parts.append(self.vae.decoder(latents.float()).clamp(-1, 1).add(1).div(2))
        return torch.cat(parts)


def kid(features: Features, real: torch.Tensor, drawn: torch.Tensor) -> float:
    """Kernel inception distance between pictures (n, 3, h, w) in [0, 1], on MobileNetV2's features."""
    metric = KernelInceptionDistance(features, subset_size=min(100, len(drawn) // 2), normalize=False)
    metric.update(real.mul(255).round().byte(), real=True)
    metric.update(drawn.mul(255).round().byte(), real=False)
    return round(float(metric.compute()[0]), 5)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_arguments(parser)
    parser.add_argument("--generators", nargs="+", default=["a", "b", "c"])
    parser.add_argument("--vae", type=Path, required=True)
    parser.add_argument("--face-check", type=Path, required=True)
    parser.add_argument("--per-person", type=int, default=8)
    parser.add_argument("--edited", type=int, default=40, help="photos drawn with each edit")
    parser.add_argument("--grid", type=Path)
    parser.add_argument("--to", type=Path, help="write the figures here too")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    data = data_folder(args.data)
    photos = load_photos(data, "eval", args.out / "cache")
    score, _ = load_landmarks(data, photos, args.out / "cache" / "landmarks_eval.npz")
    index = torch.cat(
        [
            ((photos.person == p) & (score > 0.9)).nonzero().flatten()[: args.per_person]
            for p in photos.person.unique().tolist()
        ]
    )
    vae = AutoencoderTiny.from_pretrained(args.vae).eval()
    check, recognisers, features = load_face_check(args.face_check), Recognisers(data), Features(data)
    words, person = Words(args.out / "text"), photos.person[index]
    real_faces = plain(photos, index, aligned_frame(), ALIGNED)
    real = {name: recognisers(name, real_faces) for name in RECOGNISERS}
    framed = plain(photos, index, centre_frame(FRAMES["plain"]), PICTURE)
    figures: dict[str, Any] = {"photos": len(index), "people": len(person.unique())}
    figures["kid_two_halves_of_real"] = kid(features, framed[::2], framed[1::2])
    for name in args.generators:
        drawer = Drawer(args, name, photos, vae, words)
        start = time.monotonic()
        drawn = drawer.draw(index, PLAIN)
        seconds = (time.monotonic() - start) / len(index)
        faces, found, plain_points = aligned(drawn, check)
        row: dict[str, Any] = {"face_found": round(float(found.float().mean()), 4), "seconds": round(seconds, 3)}
        for recogniser, vectors in real.items():
            row[recogniser] = identity(recognisers(recogniser, faces), vectors, person, found)
        row["kid"] = kid(features, framed, drawn)
        row["adherence"] = adherence(drawer, index, drawn, plain_points, args.edited, check)
        figures[name] = row
        if args.grid is not None:
            pairs = torch.stack([framed, drawn], 1)[:: max(1, len(drawn) // 32)][:32]
            tiles = pairs.reshape(8, 4, 2, 3, PICTURE, PICTURE).permute(0, 4, 1, 2, 5, 3)
            sheet = tiles.reshape(8 * PICTURE, 8 * PICTURE, 3).mul(255).byte().numpy()
            Image.fromarray(sheet).save(args.grid.with_name(f"{args.grid.stem}_{name}{args.grid.suffix}"))
    text = json.dumps(figures, indent=1)
    if args.to is not None:
        write_atomically(args.to, text + "\n")
    print(text)


def adherence(
    drawer: Drawer, index: torch.Tensor, drawn: torch.Tensor, points: list[Any], count: int, check: FaceCheck
) -> dict[str, float]:
    """Share of pictures that show the edit asked for, by edit."""
    rows = torch.arange(0, len(index), max(1, len(index) // count))[:count]
    before = drawn[rows].mul(255).round().byte().permute(0, 2, 3, 1).numpy()
    found = {}
    for edit, words in EDITS.items():
        edited = drawer.draw(index[rows], f"{PLAIN}, {words}")
        _, _, after_points = aligned(edited, check)
        after = edited.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        hits = [
            adheres(edit, after[i], before[i], after_points[i], points[row]) is True
            for i, row in enumerate(rows.tolist())
        ]
        found[edit] = round(float(np.mean(hits)), 3)
    return found


if __name__ == "__main__":
    main()
