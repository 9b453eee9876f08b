"""Photos for the recipes: decoded once into a memory map, people numbered, validation people set apart, bytes digested.

The data folder (``--data`` or ``IREU_DATA``) holds ``faces/train/<person>/*.jpg`` and ``faces/eval/<person>/*.jpg``:
160 x 160 pictures in one common frame. People of ``eval`` are only measured on, never trained on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile

SIDE = 160
VALIDATION_PEOPLE, VALIDATION_PHOTOS = 60, 8  # so many people of train, each with so many photos at least
VALIDATION_SEED = 20240

ImageFile.LOAD_TRUNCATED_IMAGES = True  # a few photos are cut short in their source; the grey rest is real life


@dataclass(frozen=True)
class Photos:
    """Decoded photos of one split."""

    pixels: NDArray[np.uint8]  # (n, 3, 160, 160), a read-only memory map
    person: torch.Tensor  # (n,) int64, numbered from 0 in the order of the folder names
    digest: str  # sha256 over the sorted relative names and the digests of the files

    def batch(self, index: torch.Tensor) -> torch.Tensor:
        """Photos (b,) -> float pixels (b, 3, 160, 160) in [0, 1]."""
        return torch.from_numpy(self.pixels[index.numpy()]).float().div_(255)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that every recipe shares."""
    parser.add_argument("--data", type=Path, default=os.environ.get("IREU_DATA"), help="folder with faces/ and models/")
    parser.add_argument("--out", type=Path, required=True, help="folder for caches, checkpoints, curves and exports")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)


def data_folder(value: Path | str | None) -> Path:
    """The data folder, or a message that says how to give it."""
    if value is None:
        raise SystemExit("give the data folder with --data or IREU_DATA")
    folder = Path(value)
    if not (folder / "faces" / "train").is_dir():
        raise SystemExit(f"{folder} holds no faces/train")
    return folder


def load_photos(data: Path, split: str, cache: Path) -> Photos:
    """Decode ``faces/<split>`` into ``cache`` the first time; map the result afterwards."""
    pixels_file, facts_file = cache / f"{split}.npy", cache / f"{split}.json"
    if not facts_file.exists():
        _decode(data / "faces" / split, pixels_file, facts_file)
    facts = json.loads(facts_file.read_text())
    pixels: NDArray[np.uint8] = np.load(pixels_file, mmap_mode="r")
    return Photos(pixels, torch.tensor(facts["person"]), facts["digest"])


def _decode(root: Path, pixels_file: Path, facts_file: Path) -> None:
    files = sorted(root.glob("*/*.jpg"), key=lambda f: f.relative_to(root).as_posix())
    people = {name: i for i, name in enumerate(sorted({f.parent.name for f in files}))}
    pixels_file.parent.mkdir(parents=True, exist_ok=True)
    part = pixels_file.with_suffix(".part.npy")
    pixels = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(files), 3, SIDE, SIDE))
    whole = hashlib.sha256()
    for i, file in enumerate(files):
        whole.update(f"{file.relative_to(root).as_posix()} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        with Image.open(file, formats=("JPEG", "PNG")) as picture:
            pixels[i] = np.asarray(picture.convert("RGB").resize((SIDE, SIDE))).transpose(2, 0, 1)
    pixels.flush()
    part.replace(pixels_file)
    # The facts come last: while they are missing, the map beside them counts as unfinished.
    write_atomically(
        facts_file, json.dumps({"person": [people[f.parent.name] for f in files], "digest": whole.hexdigest()})
    )


def write_atomically(file: Path, text: str) -> None:
    """Write through a temporary name, so that a kill leaves either the old file or the new one."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(file)


def split_validation(person: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Photo numbers for training and for validation, on which every choice is made; ``eval`` is for reporting only."""
    several = (torch.bincount(person) >= VALIDATION_PHOTOS).nonzero().flatten()
    order = torch.randperm(len(several), generator=torch.Generator().manual_seed(VALIDATION_SEED))
    held_out = several[order[:VALIDATION_PEOPLE]]
    is_held_out = torch.isin(person, held_out)
    return (~is_held_out).nonzero().flatten(), is_held_out.nonzero().flatten()
