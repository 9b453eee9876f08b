"""What the n-th request costs, at the shape of a block of ViT-H, and what thousands of gates cost a network.

    python benchmarks/request_cost.py --work DIR [--marks 1 10 100 1000] [--retained 400] [--gates 1 10 100 1000 10000]

requests: an encoder with random weights, 1,280 channels, 5,120 hidden units and three blocks on four patches, so that
    the edited block has its true size and hardly anything else takes time. One person asks after the other, two photos
    each, tap `image_embeds`. Between the marks, all others ask in one command. Printed are processor seconds of the
    request of each mark, beyond the imports, its peak memory, the size of the delta and of its record; then of the
    withdrawal of a request from the middle.
gates: a network of the size of insightface's r50, with random weights, and so many people behind it. Printed are the
    file's size and the time of one face and of sixteen, medians in turn with the network without gates, as ratios.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RETAINED_PHOTOS, GIVEN = 3, 2


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--marks", type=int, nargs="*", default=[1, 10, 100, 1000])
    parser.add_argument("--retained", type=int, default=400)
    parser.add_argument("--gates", type=int, nargs="*", default=[1, 10, 100, 1000, 10000])
    parser.add_argument("--child", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child is not None:
        _child(args.child)
        return
    with tempfile.TemporaryDirectory(dir=args.work) as place:
        if args.marks:
            requests(Path(place), sorted(args.marks), args.retained)
        if args.gates:
            gates(Path(place), args.gates)


def requests(folder: Path, marks: Sequence[int], retained: int) -> None:
    """Print the cost of the requests at some marks."""
    write_encoder(folder / "encoder")
    for person in range(retained):
        write_person(folder / "others" / f"{person:05d}", person, RETAINED_PHOTOS)
    for person in range(marks[-1]):
        write_person(folder / "people" / f"{person:05d}" / "person", 10**6 + person, GIVEN)
    # Files that changed a moment ago are not known again.
    time.sleep(3)
    known = ("--encoder", "encoder", "--tap", "image_embeds", "--retain", "others")
    first = folder / "people" / "00000"
    run(folder, "locate", "--method", "variance", "--targets", first, *known, "-o", "mask.pt")
    print("| request | cpu s | ratio | peak MB | ratio | delta, MB | record, MB |\n|---|---|---|---|---|---|---|")
    base, onto, before = (0.0, 0.0), Path(), 0
    for mark in marks:
        if mark - 1 > before:
            together = folder / f"until-{mark}"
            together.mkdir()
            for person in range(before, mark - 1):
                (together / f"{person:05d}").symlink_to(folder / "people" / f"{person:05d}" / "person")
            onto, took = request(folder, f"until-{mark}", together, onto, marks[-1])
            report(f"{before + 1} to {mark - 1}, together", took, base, onto)
        onto, took = request(folder, f"request-{mark}", folder / "people" / f"{mark - 1:05d}", onto, marks[-1])
        base = base if base[0] else took
        report(str(mark), took, base, onto)
        before = mark
    middle = f"request-{marks[len(marks) // 2]}"
    left = folder / "left.safetensors"
    took = run(folder, "unlearn", "--onto", onto, "--withdraw", middle, "-o", left)
    report("withdrawal from the middle", took, base, left)


def request(folder: Path, case: str, people: Path, onto: Path, places: int) -> tuple[Path, tuple[float, float]]:
    """Ask, and return the delta and what it took."""
    out = folder / f"{case}.safetensors"
    how: tuple[object, ...] = ("--onto", onto) if onto.name else ("--set", f"gated.people={places}")
    more = ("--targets", people, "--set", f"record.case_id={case}", "--set", "gated.copies=", *how, "-o", out)
    return out, run(folder, "unlearn", "--mask", "mask.pt", "--method", "gated", *more)


def report(what: str, took: tuple[float, float], base: tuple[float, float], delta: Path) -> None:
    """Print a row."""
    seconds, peak = took
    ratios = (f"{seconds / base[0]:.2f}", f"{peak / base[1]:.2f}") if base[0] else ("1.00", "1.00")
    sizes = (delta.stat().st_size / 1e6, Path(f"{delta}.json").stat().st_size / 1e6)
    print(f"| {what} | {seconds:.1f} | {ratios[0]} | {peak:.0f} | {ratios[1]} | {sizes[0]:.1f} | {sizes[1]:.2f} |")
    sys.stdout.flush()


def run(folder: Path, *given: object) -> tuple[float, float]:
    """Processor seconds and peak megabytes of one command."""
    code = [sys.executable, str(Path(__file__).resolve()), "--child", *map(str, given), "--quiet"]
    done = subprocess.run(code, cwd=folder, capture_output=True, text=True, check=False, env={**os.environ})
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, given))} failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    return float(found["seconds"]), float(found["peak"]) / 1024


def _child(given: Sequence[str]) -> None:
    # What every command loads, whatever it does.
    import ireu_cli.encoders.families
    import ireu_cli.unlearning.methods  # noqa: F401
    from ireu_cli.cli.app import main as ireu

    before = time.process_time()
    code = ireu(list(given))
    seconds = time.process_time() - before
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
    raise SystemExit(code)


def write_encoder(folder: Path) -> None:
    """Three blocks of ViT-H's shape."""
    import torch
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=3, num_attention_heads=16, patch_size=14,
        image_size=28, projection_dim=1024, hidden_act="gelu",
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder)


def write_person(folder: Path, number: int, count: int) -> None:
    """Photos of one person: a pattern of the person's own, and noise."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    own = rng.normal(128, 40, (32, 32, 3))
    for photo in range(count):
        pixels = (own + rng.normal(0, 20, own.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{photo}.png")


def gates(folder: Path, counts: Sequence[int]) -> None:
    """Print what gates cost a network."""
    import numpy as np
    import onnx
    import torch

    from arcface_net import write_arcface
    from ireu_cli.encoders.files.onnx_session import open_session
    from ireu_cli.encoders.onnx_gates import Gates, append_gates

    plain = onnx.load(str(write_arcface(folder / "plain.onnx", "r50")))
    width = 512
    original = plain.SerializeToString()
    faces = np.random.default_rng(0).normal(size=(16, 3, 112, 112)).astype(np.float32)
    print("\n| gates | file, MB | ratio | one face | sixteen |\n|---|---|---|---|---|")
    for count in counts:
        torch.manual_seed(count)
        weights = torch.nn.functional.normalize(torch.randn(count, width), dim=1)
        edited = append_gates(plain, Gates(weights, torch.full((count,), 0.5), weights, 0.1)).SerializeToString()
        sessions = [open_session(data, "cpu") for data in (original, edited)]
        shares = [ratio(sessions, faces[:batch]) for batch in (1, 16)]
        size = len(edited) / 1e6
        print(f"| {count:,} | {size:.1f} | {size * 1e6 / len(original):.2f} | {shares[0]:.3f} | {shares[1]:.3f} |")
        sys.stdout.flush()


def ratio(sessions: Sequence[Any], faces: Any, rounds: int = 15) -> float:
    """The second session's time over the first one's, in turn, medians."""
    spent: list[list[float]] = [[], []]
    for _ in range(rounds):
        for place, session in enumerate(sessions):
            began = time.perf_counter()
            session.run(None, {session.get_inputs()[0].name: faces})
            spent[place].append(time.perf_counter() - began)
    return statistics.median(spent[1]) / statistics.median(spent[0])


if __name__ == "__main__":
    main()
