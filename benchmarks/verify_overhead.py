"""What `verify` costs beyond drawing: its whole time over the bare time of drawing as many pictures, in one run.

The job is `ireu samples` with a delta of one step: what a picture costs does not depend on the edit. `--drawn` is the
number of photos of each target that generators draw from under attack.
"""

import argparse
import contextlib
import io
import json
import tempfile
import time
from pathlib import Path

import torch

from ireu_cli.cli.app import main
from ireu_cli.generators.generator import load_generators


def run(*arguments: object) -> int:
    """Run `ireu` in this process, without its output."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main([str(argument) for argument in arguments])


def bare_seconds(rounds: int) -> float:
    """Seconds a picture, generators in turn, features and prompt as `verify` hands them in."""
    generators = load_generators("portrait-mini", None, "cpu")
    shapes = {"image_embeds": (1, 256), "penultimate": (1, 37, 256)}
    total = 0.0
    for number in range(rounds + 1):
        for generator in generators:
            shape = shapes[generator.tap]
            rng = torch.Generator().manual_seed(number)
            features = torch.randn(shape, generator=rng)
            started = time.perf_counter()
            generator.draw(features, torch.zeros(shape[1:]), ["a photo of a face"], [number])
            # The first round warms the libraries up.
            total += (time.perf_counter() - started) * (number > 0)
    return total / (rounds * len(generators))


def main_() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--drawn", type=int, default=1)
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "demo"
        assert run("samples", folder) == 0  # noqa: S101
        with contextlib.chdir(folder):
            assert run("locate", "--method", "variance", "--set", "locate.interchange_pairs=0") == 0  # noqa: S101
            assert run("unlearn", "--mask", "mask.pt", "--steps", "1") == 0  # noqa: S101
            before = bare_seconds(options.rounds)
            sets = {"pictures.people": options.people, "pictures.photos": 2, "pictures.seeds": 2}
            sets |= {"attacks.drawn": options.drawn, "attacks.suite": "all"}
            flags = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
            started = time.perf_counter()
            run("verify", "--delta", "delta.safetensors", *flags)
            whole = time.perf_counter() - started
            count = len(list((folder / ".ireu" / "pictures").rglob("*.png")))
            bare = (before + bare_seconds(options.rounds)) / 2
            timings = json.loads((folder / "report" / "manifest.json").read_text())["timings"]
    print(
        f"{count} pictures; verify {whole:.0f} s, drawing alone {count * bare:.0f} s ({1000 * bare:.0f} ms each): "
        f"{whole / (count * bare):.2f}"
    )
    print(", ".join(f"{name} {seconds:.0f} s" for name, seconds in sorted(timings.items(), key=lambda item: -item[1])))


if __name__ == "__main__":
    main_()
