"""Time and memory of the commands by the number of retained photos: what grows, and how fast.

    python benchmarks/scale.py [--photos 1000 10000 100000] [--layouts people flat]

Every photo is a PNG of its own, of 32 pixels a side, and the commands run whole: session, digests, caches, statistics,
manifests. The encoder is a CLIP of three blocks and 64 channels on a corner of 16 pixels, so that hardly anything but
the commands themselves takes time. Retained people have 1 to 50 photos (`people`), or all photos lie in one folder
(`flat`), where locating by variance is not possible and takes all features. `first` is the
first request of the method gated, `later` one for another person with the same retained photos; `verify` measures
features, without attacks. Each command runs in a process of its own. Printed are processor time, beyond the imports,
and peak memory (`ru_maxrss`) over those of the fewest photos, beside the number of photos over the fewest; and what the
run folder holds by then, for each retained photo.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COMMANDS: dict[str, tuple[str, ...]] = {
    "locate": ("locate", "--targets", "one", "-o", "mask.pt"),
    "first": (
        "unlearn", "--mask", "mask.pt", "--method", "gated", "--set", "gated.people=8", "-o", "first.safetensors",
    ),
    "later": (
        "unlearn", "--mask", "mask.pt", "--method", "gated", "--targets", "two", "--set", "gated.people=8",
        "-o", "later.safetensors",
    ),
    "verify": (
        "verify", "--delta", "first.safetensors", "--targets", "one", "--set", "attacks.suite=none",
        "--set", "pictures.generators=none", "-o", "report",
    ),
}  # fmt: skip
SHARED = ("--set", "run.batch_size=256")
LOCATING = ("--encoder", "encoder", "--tap", "image_embeds", "--retain")
_MOST = 50
"""Photos of one retained person."""
_GIVEN = 6
"""Photos of each target."""
_DONE = {0, 4, 5}


def main() -> None:
    """Make photos, run the commands, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--layouts", nargs="+", default=["people", "flat"], choices=["people", "flat"])
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        _child(chosen.child)
        return
    print("| retained photos | layout | command | photos | time | memory | run folder, bytes a photo |")
    print("|---|---|---|---|---|---|---|")
    for layout in chosen.layouts:
        base: dict[str, tuple[float, float]] = {}
        for photos in chosen.photos:
            with tempfile.TemporaryDirectory() as name:
                folder = _write(Path(name), layout, photos)
                for command, given in COMMANDS.items():
                    seconds, peak = _run(folder, layout, command, given)
                    first = base.setdefault(command, (seconds, peak))
                    ratios = f"{photos / chosen.photos[0]:g} × | {seconds / first[0]:.2f} × | {peak / first[1]:.2f} ×"
                    held = sum(path.stat().st_size for path in (folder / ".ireu").rglob("*") if path.is_file())
                    print(f"| {photos:,} | {layout} | {command} | {ratios} | {held / photos:,.0f} |", flush=True)
                    print(f"{layout} {photos} {command}: {seconds:.1f} s, {peak:.0f} MB", file=sys.stderr, flush=True)


def _write(folder: Path, layout: str, photos: int) -> Path:
    """An encoder, two targets and so many retained photos, each a file that holds its numbers."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, patch_size=8, image_size=16,
        projection_dim=48, hidden_act="gelu",
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "encoder")
    for target, name in enumerate(("one", "two")):
        _person(folder / name / "person", 10**6 + target, _GIVEN, "0")
    person, left = 0, photos
    while left:
        # Sizes from 1 to 50, in no order.
        count = min(left, 1 + person * 17 % _MOST)
        if layout == "people":
            _person(folder / "others" / f"{person:06d}", person, count, "0")
        else:
            _person(folder / "others", person, count, f"{person:06d}")
        person, left = person + 1, left - count
    # Files that changed a moment ago are not known again.
    time.sleep(3)
    return folder


def _person(folder: Path, number: int, count: int, prefix: str) -> None:
    """Photos of one person: a pattern of the person's own, and noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(number)
    own = rng.normal(128, 40, (32, 32, 3))
    for photo in range(count):
        pixels = (own + rng.normal(0, 20, own.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{prefix}-{photo:03d}.png")


def _run(folder: Path, layout: str, command: str, given: Sequence[str]) -> tuple[float, float]:
    """Processor seconds and peak megabytes of one command."""
    if command == "locate":
        given = (*given, *LOCATING, "others", "--method", "variance" if layout == "people" else "all")
    code = [sys.executable, str(Path(__file__).resolve()), "--child", *given, *SHARED]
    done = subprocess.run(code, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode not in _DONE:
        raise SystemExit(f"{command} failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["seconds"]), float(found["peak"]) / 1024


def _child(given: Sequence[str]) -> None:
    """Run one command with pictures taken as they are, and print what it took."""
    import numpy as np
    import torch

    from ireu_cli.cli.app import main as ireu
    from ireu_cli.encoders.clip import Encoder

    def pixels(_self: Encoder, images: Sequence[Any]) -> torch.Tensor:
        rows = np.stack([image[:16, :16] for image in images]) if len(images) else np.empty((0, 16, 16, 3), np.uint8)
        return torch.from_numpy(rows).permute(0, 3, 1, 2).float() / 64 - 2

    Encoder.pixels = pixels  # type: ignore[method-assign,assignment]
    before = time.process_time()
    code = ireu(list(given))
    seconds = time.process_time() - before
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
    raise SystemExit(code)


if __name__ == "__main__":
    main()
