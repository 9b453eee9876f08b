"""How often different photos of one person are called copies, copies are found, and folders are called two people's.

    python benchmarks/photo_pairs.py --data DATA [--people 250]

DATA/faces holds `eval/<person>/*.jpg` and `train/<person>/*.jpg`. Web photos of celebrities hold true copies of one
another; pairs that count as copies are listed with --show FILE to be looked at.
"""

import argparse
import random
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.families import load_encoder
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.faces.decode import decode
from ireu_cli.faces.likeness import FEATURES_NEAR, NEAR, SAME, Grey, likeness, small_picture
from ireu_cli.locating.alike import halves
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams, Tap
from ireu_cli.values import RgbImage

_MOST = 24
TAPS: tuple[Tap, ...] = ("penultimate", "image_embeds")


def saved(image: RgbImage, quality: int) -> RgbImage:
    """Saved again as JPEG."""
    data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return decode(data.tobytes(), 100)


def cut(image: RgbImage, share: float, right: float = 0.5, down: float = 0.5) -> RgbImage:
    """Cut to a share of its sides."""
    height, width = image.shape[:2]
    top, left = round((1 - share) * down * height), round((1 - share) * right * width)
    return np.ascontiguousarray(image[top : top + round(share * height), left : left + round(share * width)])


def turned(image: RgbImage, degrees: float) -> RgbImage:
    """Turned about its middle."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return np.asarray(cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT))


def lit(image: RgbImage, factor: float) -> RgbImage:
    """Lighter or darker."""
    return np.asarray(np.clip(image * factor, 0, 255), dtype=np.uint8)


COPIES: dict[str, Callable[[RgbImage], RgbImage]] = {
    "JPEG 97": lambda i: saved(i, 97),
    "JPEG 95": lambda i: saved(i, 95),
    "JPEG 92": lambda i: saved(i, 92),
    "JPEG 20": lambda i: saved(i, 20),
    "half the size": lambda i: np.asarray(cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)),
    "twice the size": lambda i: np.asarray(cv2.resize(i, None, fx=2, fy=2)),
    "mirrored": lambda i: np.ascontiguousarray(i[:, ::-1]),
    "brightness .6": lambda i: lit(i, 0.6),
    "brightness 1.4": lambda i: lit(i, 1.4),
    "grey": lambda i: np.repeat(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY)[..., None], 3, 2),
    "cut to 95 %, off the middle": lambda i: cut(i, 0.95, 0.3, 0.8),
    "cut to 90 %, off the middle": lambda i: cut(i, 0.9, 0.75, 0.3),
    "cut to 87 %, off the middle": lambda i: cut(i, 0.87, 0.9, 0.2),
    "cut to 80 %": lambda i: cut(i, 0.8),
    "cut to 75 %": lambda i: cut(i, 0.75),
    "a border of 6 % around it": lambda i: cv2.copyMakeBorder(i, 9, 9, 9, 9, cv2.BORDER_REFLECT),
    "turned by 3 degrees": lambda i: turned(i, 3),
    "turned by 5 degrees": lambda i: turned(i, 5),
    "mirrored, cut to 93 %, JPEG 80": lambda i: saved(cut(np.ascontiguousarray(i[:, ::-1]), 0.93, 0.2, 0.6), 80),
}


def read(path: Path) -> RgbImage:
    """A photo as the commands read it."""
    return decode(path.read_bytes(), 64)


def features(encoder: ImageEncoder, tap: Tap, images: list[RgbImage]) -> Tensor:
    """One vector a picture (n, d)."""
    rows = [encoder.encode(encoder.pixels(images[n : n + 32]), tap) for n in range(0, len(images), 32)]
    found = torch.cat(rows).float()
    return found.mean(1) if found.ndim == 3 else found


def pairs(people: list[list[Path]], encoded: list[Tensor], show: Path | None) -> None:
    """Different photos of one person."""
    mean = torch.cat(encoded).mean(0)
    total, alike, near, listed = 0, 0, 0, []
    for person, rows in zip(people, encoded, strict=True):
        small = [small_picture(read(path)) for path in person]
        found = likeness(small, small)
        centred = torch.nn.functional.normalize(rows - mean, dim=1)
        cosine = (centred @ centred.T).numpy()
        for i in range(len(person)):
            for j in range(i):
                total += 1
                by_features = NEAR <= found[i, j] < SAME and cosine[i, j] >= FEATURES_NEAR
                alike, near = alike + int(found[i, j] >= SAME), near + int(by_features)
                if found[i, j] >= SAME or by_features:
                    listed.append(f"{found[i, j]:.3f} {cosine[i, j]:.3f} {person[i]} {person[j]}")
    if show is not None:
        show.write_text("\n".join(listed) + "\n")
    print(
        f"different photos of one person: {total} pairs of {len(people)} people; {alike} of likeness {SAME}, ", end=""
    )
    print(f"{near} more of likeness {NEAR} and features {FEATURES_NEAR}: {(alike + near) / total:.2%}")


def copies(photos: list[Path], encoder: ImageEncoder, tap: Tap, mean: Tensor) -> None:
    """How many copies of each kind are found."""
    images = [read(path) for path in photos]
    small = [small_picture(image) for image in images]
    rows = features(encoder, tap, images) - mean
    for name, make in COPIES.items():
        made = [make(image) for image in images]
        found = np.array([_one(one, small_picture(two)) for one, two in zip(small, made, strict=True)])
        cosine = torch.cosine_similarity(rows, features(encoder, tap, made) - mean).numpy()
        called = (found >= SAME) | ((found >= NEAR) & (cosine >= FEATURES_NEAR))
        print(f"| {name} | {called.mean():.0%} | {found.min():.2f} | {np.median(found):.2f} |")


def _one(first: Grey, second: Grey) -> float:
    return float(likeness([first], [second])[0, 0])


def folders(encoded: list[Tensor], others: list[Tensor], size: int) -> None:
    """Folders of one person and of two, of `size` photos."""
    rng = torch.Generator().manual_seed(size)
    enough = [rows for rows in encoded if len(rows) >= size]
    false = [_two(rows[torch.randperm(len(rows), generator=rng)[:size]], others) for rows in enough]
    mixed = []
    for n, rows in enumerate(enough):
        other = enough[(n + 1) % len(enough)]
        half = size // 2
        mixed.append(_two(torch.cat([rows[: size - half], other[:half]]), others))
    print(f"folders of {size} photos: {np.mean(false):.1%} of {len(false)} of one person called two people's, ", end="")
    print(f"{np.mean(mixed):.1%} of {len(mixed)} of two people, half each")


def _two(rows: Tensor, others: list[Tensor]) -> bool:
    found = halves(rows, others)
    return found is not None and found.are_two


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--people", type=int, default=250)
    parser.add_argument("--encoder", default="portrait-mini")
    parser.add_argument("--show", type=Path)
    options = parser.parse_args()
    rng = random.Random(0)
    folders_ = [
        sorted(p.glob("*.jpg")) for part in ("eval", "train") for p in sorted((options.data / "faces" / part).iterdir())
    ]
    several = [person for person in folders_ if len(person) >= 4]
    people = [rng.sample(person, min(_MOST, len(person))) for person in several[: options.people]]
    strangers = [rng.sample(person, min(4, len(person))) for person in several[options.people : options.people + 60]]
    print(f"{options.encoder}, {len(people)} people, {len(strangers)} strangers")
    for tap in TAPS:
        encoder = load_encoder(EncoderParams(source=options.encoder, tap=tap), ARCFACE_LANDMARKS, "cpu")
        encoded = [features(encoder, tap, [read(path) for path in person]) for person in people]
        others = [features(encoder, tap, [read(path) for path in person]) for person in strangers]
        print(f"## {tap}")
        for size in (4, 5, 6, 8, 10, 16):
            folders(encoded, others, size)
        if tap == TAPS[0]:
            pairs(people, encoded, options.show)
            mean = torch.cat(others).mean(0)
            copies([path for person in people[:100] for path in person[:2]], encoder, tap, mean)


if __name__ == "__main__":
    main()
