"""How fast one device encodes and draws, beside the bare networks, and whether an edit ends as on the CPU.

    python benchmarks/device.py [--device cuda] [--sizes vit-h-14 vit-bigg-14] [--photos 512] [--skip-edit]

Printed are photos a second of encoders with random weights at their true sizes, of the bare forward pass on pixels that
lie on the device already and of ireu's loop (photos read from files, prepared, encoded, features kept); pictures a
second of portrait-mini's first generator, of the bare pipeline and of ireu, by how many go together; and, of the people
and the settings of `ireu samples`, figures of a whole job on the CPU and on the device.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ireu_cli.encoders.clip import Encoder
from ireu_cli.encodings.lens import AtTap, PlainPhoto
from ireu_cli.encodings.loop import Item, stream
from ireu_cli.faces.read import PhotoReader
from ireu_cli.generators.generator import Generator, ToDraw, load_generators
from ireu_cli.params import DataParams
from ireu_cli.params.steps import RunParams
from ireu_cli.store.features import FeatureCache
from ireu_cli.support.made import batched
from ireu_cli.support.runtime import settle
from ireu_cli.values import DTYPES, Photo

# width, hidden units, blocks, heads, projection
SIZES = {
    "tiny": (64, 128, 2, 4, 32),
    "vit-h-14": (1280, 5120, 32, 16, 1024),
    "vit-bigg-14": (1664, 8192, 48, 16, 1280),
}
TAP, BATCH, SIDE = "penultimate", 32, 224
FIGURES = ("delta_id", "match_rate", "reidentified", "psnr", "ssim")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["vit-h-14", "vit-bigg-14"])
    parser.add_argument("--photos", type=int, default=512)
    parser.add_argument("--pictures", type=int, default=64)
    parser.add_argument("--skip-edit", action="store_true")
    args = parser.parse_args()
    settle(args.device)
    print("| encoder | dtype | bare, photos/s | ireu, photos/s | share | peak GiB |\n|---|---|---|---|---|---|")
    for size in args.sizes:
        for dtype in ("float32", "bfloat16"):
            encode(size, dtype, args.device, args.photos)
    print("\n| together | bare pipeline, pictures/s | ireu, pictures/s |\n|---|---|---|")
    draw(args.device, args.pictures)
    if not args.skip_edit:
        edit(args.device)


def encode(size: str, dtype: str, device: str, photos: int) -> None:
    """Print one row: the bare forward pass, and the loop."""
    encoder = built(size, dtype, device)
    weight = next(encoder.model.parameters())
    pixels = torch.randn(BATCH, 3, SIDE, SIDE, device=device, dtype=weight.dtype)

    def forward() -> None:
        with torch.inference_mode():
            encoder.read(encoder.model, pixels, TAP)

    batches = photos // BATCH
    alone = BATCH * batches / seconds(partial(each, lambda _: forward(), range(batches)), device)
    with tempfile.TemporaryDirectory() as place:
        files = written(Path(place), photos)
        looped = photos / seconds(partial(loop, encoder, files, Path(place) / "features", device), device, warm=False)
    peak = torch.cuda.max_memory_allocated(device) / 2**30 if device.startswith("cuda") else float("nan")
    print(f"| {size} | {dtype} | {alone:.1f} | {looped:.1f} | {looped / alone:.2f} | {peak:.1f} |", flush=True)


def built(size: str, dtype: str, device: str) -> Encoder:
    """An encoder with random weights."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    width, hidden, blocks, heads, projection = SIZES[size]
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=hidden,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        projection_dim=projection,
        image_size=SIDE,
        patch_size=14,
    )
    with torch.device(device):
        model = CLIPVisionModelWithProjection(config)
    model = model.to(DTYPES[dtype]).eval().requires_grad_(False)
    return Encoder(model, CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size=SIDE), "0" * 64)


def written(place: Path, count: int) -> list[Photo]:
    """Photos in files: 256 px, JPEG."""
    rng, found = np.random.default_rng(0), []
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8))
        path = place / f"{number:05d}.jpg"
        small.resize((256, 256), Image.Resampling.BICUBIC).save(path, quality=90)
        found.append(Photo(0, number, str(path), hashlib.sha256(path.read_bytes()).hexdigest()))
    return found


def loop(encoder: Encoder, photos: list[Photo], folder: Path, device: str) -> None:
    """What every step does with photos: read ahead, prepare, encode, keep."""
    reader, look, cache = PhotoReader(DataParams(), None), AtTap(encoder, TAP), FeatureCache(folder)
    items: list[Item] = [PlainPhoto(photo.sha256, photo.label, photo) for photo in photos]

    batches = map(list, batched(items, BATCH))
    for batch in stream(batches, lambda item: look.prepare(item.load(reader)), RunParams(device=device).photos_at_once):
        cache.put(batch.keys, look.rows(batch.prepared)[0])


def draw(device: str, count: int) -> None:
    """Print how many pictures a second, by how many go together."""
    generator = load_generators("portrait-mini", ["image_embeds"], device)[0]
    layer = generator.pipeline.unet.encoder_hid_proj.image_projection_layers[0]
    features = torch.randn(2, layer.image_embeds.in_features, generator=torch.Generator().manual_seed(0))
    asked = [ToDraw(features[0], features[1], "a photo of a face", number) for number in range(count)]
    for together in (1, 8, 32):
        parts = list(batched(asked, together))
        alone = count / seconds(partial(each, partial(bare, generator), parts), device)
        ours = count / seconds(partial(each, generator.draw_together, parts), device)
        print(f"| {together} | {alone:.2f} | {ours:.2f} |", flush=True)


def each(work: Callable[[Any], Any], parts: Iterable[Any]) -> None:
    """Do the work of all parts."""
    for part in parts:
        work(part)


def bare(generator: Generator, asked: Sequence[ToDraw]) -> None:
    """The pipeline as it is called by its users, with one photo for all."""
    one = asked[0]
    sent = torch.stack([one.null, one.feature])[:, None].to(generator.pipeline.device)
    generator.pipeline(
        prompt=[one.prompt] * len(asked),
        ip_adapter_image_embeds=[sent],
        guidance_scale=generator.guidance,
        generator=[torch.Generator().manual_seed(part.seed) for part in asked],
        num_inference_steps=generator.steps,
        height=generator.side,
        width=generator.side,
        output_type="np",
    )


def seconds(work: Callable[[], Any], device: str, *, warm: bool = True) -> float:
    """How long work takes; once before, uncounted, where it should be warm."""
    if warm:
        work()
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def synchronise(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def edit(device: str) -> None:
    """Print figures of a whole job, on the CPU and on the device."""
    found = {}
    for name in dict.fromkeys(("cpu", device)):
        with tempfile.TemporaryDirectory() as place:
            ireu(Path(place), "samples", "demo")
            folder = Path(place) / "demo"
            for command in (
                ("locate",),
                ("unlearn", "--mask", "mask.pt"),
                ("verify", "--delta", "delta.safetensors", "--set", "attacks.people=0"),
            ):
                ireu(folder, *command, "--device", name, "--quiet")
            found[name] = json.loads((folder / "report/report.json").read_text())
    print("\n| figure | generator | role | " + " | ".join(found) + " |\n|---|---|---|" + "---|" * len(found))
    rows = {name: {key(row): row["value"] for row in report["figures"]} for name, report in found.items()}
    for which in next(iter(rows.values())):
        if which[0] in FIGURES and which[1]:
            values = [rows[name].get(which) for name in rows]
            told = " | ".join("-" if value is None else f"{value:.3f}" for value in values)
            print(f"| {which[0]} | {which[1]} | {' '.join(filter(None, which[2:]))} | {told} |")


def key(row: dict[str, Any]) -> tuple[str | None, ...]:
    """What a figure is of."""
    parts = ("name", "generator", "role", "state", "measure", "edit", "attack", "group", "false_match_rate")
    return tuple(None if row[part] is None else str(row[part]) for part in parts)


def ireu(folder: Path, *arguments: str) -> None:
    """Run a command."""
    done = subprocess.run(
        [sys.executable, "-m", "ireu_cli", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode not in {0, 4, 5}:
        raise SystemExit(f"ireu {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")


if __name__ == "__main__":
    main()
