"""What a first request costs by the number of retained photos: time over encoding them, and memory.

    python benchmarks/retained_table.py --work DIR [--photos 1000 10000] [--tap image_embeds] [--rounds 1]

`ireu unlearn` with nothing prepared, one person of five photos, no copies, retained photos of `train`, in a new run
folder each time, beside reading and encoding the same photos in this process. Gathering: what the command takes
for photos, whole: with its start. Memory: the most that the command held, as the system counts it. Needs IREU_DATA.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from ireu_cli.encoders.clip import load_encoder
from ireu_cli.params import EncoderParams
from portrait_table import read
from target_draws import LANDMARKS, ireu, link_photos

BATCH = 16


def main() -> None:
    """Run and print, a row a number of photos."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--photos", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--tap", default="image_embeds")
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    print("| photos | encoding them, s | gathering over that | whole request over that | memory, MB |")
    print("|---|---|---|---|---|")
    for count in chosen.photos:
        _lay_out(chosen.work / str(count), count)
        rounds = [_round(chosen.work / str(count), chosen.tap) for _ in range(chosen.rounds)]
        bare, gathered, whole, memory = (sorted(values)[len(values) // 2] for values in zip(*rounds, strict=True))
        print(f"| {count} | {bare:.1f} | {gathered / bare:.2f} | {whole / bare:.2f} | {memory:.0f} |", flush=True)


def _lay_out(folder: Path, count: int) -> None:
    """Link one person to unlearn, and retained people until there are `count` photos."""
    faces, left = Path(os.environ["IREU_DATA"]) / "faces", count
    person = sorted((faces / "eval").iterdir())[0]
    link_photos(folder / "targets" / person.name, sorted(person.iterdir())[:5])
    for retained in sorted((faces / "train").iterdir()):
        photos = sorted(retained.glob("*.jpg"))[:left]
        if photos:
            link_photos(folder / "retain" / retained.name, photos)
        left -= len(photos)
    if left:
        raise SystemExit(f"There are {count - left} photos in {faces / 'train'}, not {count}")


def _round(folder: Path, tap: str) -> tuple[float, float, float, float]:
    """Seconds of encoding, of gathering and of the request, and megabytes."""
    shutil.rmtree(folder / ".ireu", ignore_errors=True)
    run = ["--run-dir", str(folder / ".ireu"), "--quiet"]
    people = ["--targets", str(folder / "targets"), "--retain", str(folder / "retain"), "--tap", tap]
    sets = ["--set", f"data.landmarks={LANDMARKS}", "--set", "data.retain_holdout=0"]
    mask, delta = str(folder / "mask.pt"), folder / "delta.safetensors"
    ireu("locate", *run, *people, *sets, "--method", "all", "--force", "-o", mask)
    sets = ["--set", "gated.copies=", "--set", f"run.batch_size={BATCH}"]
    start = time.perf_counter()
    memory = _peak(["unlearn", *run, "--mask", mask, *sets, "--force", "-o", str(delta)])
    whole = time.perf_counter() - start
    gathered = json.loads(delta.with_name(f"{delta.name}.json").read_text())["timings"]["encode"]
    return _encode(sorted((folder / "retain").glob("*/*"))), gathered, whole, memory


def _peak(arguments: Sequence[str]) -> float:
    """Run a command; the most memory that it held, in megabytes."""
    process = subprocess.Popen([sys.executable, "-m", "ireu_cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"ireu {' '.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / 1024


def _encode(photos: Sequence[Path]) -> float:
    """Seconds to read and encode photos, a batch at a time."""
    encoder = load_encoder(EncoderParams(), "cpu")
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(photos), BATCH):
            encoder.encode(encoder.pixels([read(photo) for photo in photos[first : first + BATCH]]), "image_embeds")
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
