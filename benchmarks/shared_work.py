"""How much faster two processes of one thread encode than one: `shared_work.py --data DIR --work DIR`.

Runs `ireu locate --method variance` with one process and with two, on two numbers of photos each. Starting a worker
takes seconds, whatever there is to do; so the photos a second are those of the photos that the larger run has more. The
bare forward pass of the same encoder, on the same number of photos that are read and prepared already, comes with it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from target_draws import link_photos


def photos(data: Path, folder: Path, count: int) -> None:
    """Link so many photos, of people with two and more, and four of one more person, the target."""
    people = [sorted(path.glob("*.jpg")) for path in sorted((data / "faces" / "train").iterdir())]
    people = [person[:8] for person in people if len(person) > 1]
    target = next(person for person in people if len(person) > 3)
    link_photos(folder / "faces" / "target", target[:4])
    left = count
    for number, person in enumerate(person for person in people if person is not target):
        link_photos(folder / "others" / str(number), person[:left])
        left -= len(person[:left])
        if not left:
            return
    raise SystemExit(f"there are {count - left} photos, and not {count}")


def seconds(folder: Path, source: str, processes: int) -> float:
    """How long the command takes."""
    shutil.rmtree(folder / ".ireu", ignore_errors=True)
    flags = [
        "--method",
        "variance",
        "--encoder",
        source,
        "--tap",
        "image_embeds",
        "--set",
        "locate.interchange_pairs=0",
    ]
    flags += ["--targets", "faces", "--retain", "others", "--processes", str(processes), "--force", "--quiet"]
    flags += ["--set", "data.retain_holdout=0", "--set", "run.shard_batches=1"]
    began = time.monotonic()
    command = [sys.executable, "-m", "ireu_cli", "locate", *flags]
    subprocess.run(
        command,
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(processes)},
    )
    return time.monotonic() - began


def bare(source: str, count: int) -> float:
    """Seconds of the forward pass alone, one thread."""
    from ireu_cli.encoders.clip import load_encoder
    from ireu_cli.params import EncoderParams

    torch.set_num_threads(1)
    encoder = load_encoder(EncoderParams(source=source), "cpu")
    pixels = encoder.null_pixels()[:1].expand(16, -1, -1, -1).contiguous()
    encoder.encode(pixels, "image_embeds")
    began = time.monotonic()
    for _ in range(count // 16):
        encoder.encode(pixels, "image_embeds")
    return time.monotonic() - began


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=os.environ.get("IREU_DATA"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--encoder", default="portrait-mini", help="portrait-mini, or a folder that true_size.py wrote")
    parser.add_argument("--few", type=int, default=640)
    parser.add_argument("--more", type=int, default=2560)
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    source = args.encoder if args.encoder == "portrait-mini" else str(Path(args.encoder).absolute())
    spent: dict[tuple[int, int], float] = {}
    for count in (args.few, args.more):
        folder = args.work / f"{count} photos"
        if not folder.exists():
            photos(args.data.absolute(), folder, count)
        for processes in (1, 2):
            spent[count, processes] = seconds(folder, source, processes)
            print(f"{count:6} photos, {processes} process(es): {spent[count, processes]:7.1f} s", flush=True)
    further = args.more - args.few
    one, two = (further / (spent[args.more, count] - spent[args.few, count]) for count in (1, 2))
    alone = further // 16 * 16 / bare(source, further)
    print(f"photos a second: one {one:.1f}, two {two:.1f} ({two / one:.2f} x)")
    print(f"the bare forward pass {alone:.1f}; one process does {one / alone:.2f} of it")


if __name__ == "__main__":
    main()
