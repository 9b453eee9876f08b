"""What `locate` costs beyond the bare forward passes over the same photos, as a ratio, on a warm model, in one run.

    python benchmarks/locate_overhead.py [--encoder DIR | --size vit-b-16] [--method variance] [--people 60]

The bare passes run over preprocessed pixels that lie in memory, in batches of the same size. `locate` does everything
but load the model: it scans, digests, reads and preprocesses photos, encodes them into an empty cache, scores, and
writes mask and manifest. Without IREU_DATA, photos are the drawn people. Rounds alternate; medians count.
"""

import argparse
import os
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from ireu_cli import session
from ireu_cli.config import load_config
from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.faces.folder import scan_people
from ireu_cli.faces.read import PhotoReader
from ireu_cli.locating.run import run_locate
from ireu_cli.params import DataParams, EncoderParams
from ireu_cli.samples import write_samples

PARTNERS = 10
SIZES = {
    "vit-b-16": (768, 3072, 12, 12, 16),
    "vit-l-14": (1024, 4096, 24, 16, 14),
}
"""Width, MLP width, blocks, heads, patch of published encoders."""


class Silent:
    """A `Talk` that says nothing."""

    verbose = False

    def note(self, text: str) -> None:
        """Say nothing."""

    def progress(self, _label: str, _total: int) -> Any:
        """Show nothing."""
        return nullcontext(lambda _count, _words: None)


def main() -> None:
    """Measure and print."""
    options = _options()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        targets, retain = _photos(work, options.people)
        encoder = _encoder(options)
        flags = {
            "data.targets": targets,
            "data.retain": retain,
            "data.retain_holdout": 0.0,
            "locate.method": options.method,
            "locate.partners": PARTNERS,
            "encoder.tap": options.tap,
            "run.batch_size": options.batch,
        }
        pixels = _pixels(encoder, [targets] if options.method == "swap" else [targets, retain])
        if options.method == "swap":
            pixels = pixels.repeat(1 + PARTNERS, 1, 1, 1)
        bare, whole = [], []
        for number in range(options.rounds + 1):
            bare.append(_bare(encoder, options, pixels))
            whole.append(_locate(encoder, flags, work / str(number)))
    ratio = statistics.median(whole[1:]) / statistics.median(bare[1:])
    each = [1000 * statistics.median(times[1:]) / len(pixels) for times in (bare, whole)]
    print(f"{encoder.architecture}, {options.method}, {len(pixels)} photos, {torch.get_num_threads()} threads")
    print(f"bare forward {each[0]:.2f} ms a photo, locate {each[1]:.2f} ms a photo")
    print(f"ratio {ratio:.3f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--size", choices=list(SIZES))
    parser.add_argument("--method", default="variance", choices=["variance", "swap"])
    parser.add_argument("--tap", default="pooled")
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def _photos(work: Path, people: int) -> tuple[Path, Path]:
    """One target folder with a few people, one retain folder; real faces where they are at hand."""
    data = os.environ.get("IREU_DATA")
    if not data:
        write_samples(work / "drawn", 0, force=False)
        return work / "drawn" / "faces", work / "drawn" / "others"
    found = [
        path
        for path in sorted((Path(data) / "faces" / "train").iterdir())
        if path.is_dir() and len(list(path.iterdir())) >= 8
    ]
    for group, chosen in (("targets", found[:4]), ("retain", found[4 : 4 + people])):
        (work / group).mkdir()
        for path in chosen:
            (work / group / path.name).symlink_to(path)
    return work / "targets", work / "retain"


def _encoder(options: argparse.Namespace) -> Encoder:
    if options.size is None:
        if options.encoder is None:
            raise SystemExit("Name an encoder with --encoder, or a size with --size")
        return load_encoder(EncoderParams(source=str(options.encoder)), "cpu")
    torch.manual_seed(0)
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size")
    sizes = dict(zip(names, SIZES[options.size], strict=True))
    config = CLIPVisionConfig(image_size=224, projection_dim=768, hidden_act="quick_gelu", **sizes)
    model = CLIPVisionModelWithProjection(config).eval().requires_grad_(False)
    return Encoder(model, CLIPImageProcessorPil(), f"random-{options.size}")


def _pixels(encoder: Encoder, folders: list[Path]) -> torch.Tensor:
    photos = [photo for folder in folders for photo in scan_people(folder, "--targets", "one person").flat]
    reader = PhotoReader(DataParams(), None)
    return encoder.pixels([reader.image(photo) for photo in photos])


def _bare(encoder: Encoder, options: argparse.Namespace, pixels: torch.Tensor) -> float:
    start = time.perf_counter()
    for first in range(0, len(pixels), options.batch):
        encoder.encode(pixels[first : first + options.batch], options.tap)
    return time.perf_counter() - start


def _locate(encoder: Encoder, flags: dict[str, Any], folder: Path) -> float:
    resolved = load_config(None, {}, {**flags, "run.run_dir": folder / ".ireu"}, cwd=folder)
    with mock.patch.object(session, "load_encoder", return_value=encoder):
        start = time.perf_counter()
        run_locate(resolved, Silent(), folder / "mask.pt", force=False)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
