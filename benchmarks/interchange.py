"""Interchange curves of all locators: how far identity moves, and everything else, as masked features become B's.

    python benchmarks/interchange.py --work DIR --targets DIR --retain DIR [--tap image_embeds] [--pairs 40] [--json]

Masks are made by `ireu locate` from the targets and the retained people that `data.retain_holdout` leaves it. The pairs
are drawn among the people it holds out, each person once as long as there are enough: then pairs are independent.
Every picture of a pair has the same noise and prompt; docs/locate.md defines the figures. The random order is another
one for each pair. Needs an encoder with a generator for the tap.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.config import load_config
from ireu_cli.encodings.lens import Lens, photo_reader
from ireu_cli.faces.folder import split_people
from ireu_cli.locating.interchanged import Interchanged
from ireu_cli.locating.saliency import need_studio
from ireu_cli.locating.through_generator import choose_pairs, run_interchange
from ireu_cli.maths.interchange import Curve, Moves, compare, curve, identity_span
from ireu_cli.maths.masks import top_mask
from ireu_cli.maths.stats import Interval
from ireu_cli.opening import open_session
from ireu_cli.photos import load_cast
from ireu_cli.store.artifacts import read_mask
from ireu_cli.support.runtime import generator

LOCATORS = ("swap", "variance", "saliency", "random")
SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
RESAMPLES = 2000


class Told:
    """A `Talk` that writes lines to stderr, for progress about one a minute."""

    verbose = False

    def note(self, text: str) -> None:
        """One line."""
        print(text, file=sys.stderr, flush=True)

    @contextmanager
    def progress(self, label: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Tell how far it is, and how long the rest will take."""
        start = last = time.monotonic()
        done = 0

        def advance(count: int, _words: str) -> None:
            nonlocal done, last
            done += count
            if count and time.monotonic() - last > 60:
                last = time.monotonic()
                rest = (last - start) / done * (total - done)
                self.note(f"{label}: {done} of {total}, about {rest / 60:.0f} min to go")

        yield advance


def main() -> None:
    """Locate, draw, print."""
    options = _options()
    scores = {name: _score(options, name) for name in options.locators if name != "random"}
    done = _interchange(options, scores)
    if done.moves is None:
        raise SystemExit(f"None of the {done.left_out} pairs is drawn with two faces: nothing can be said")
    found = {name: _curve(done.moves, options, name) for name in options.locators}
    span = identity_span(done.moves, RESAMPLES, generator(options.seed, "interchange", "bootstrap"))
    better = {name: _against_random(done.moves, options, name) for name in options.locators if name != "random"}
    if options.json:
        record = {
            "tap": options.tap,
            "pairs": len(done.moves.identity),
            "pairs_without_face": done.left_out,
            "identity_span": span and asdict(span),
            "curves": {name: asdict(one) for name, one in found.items()},
            "area_against_random": {name: one and asdict(one) for name, one in better.items()},
        }
        print(json.dumps(record, sort_keys=True))
    else:
        print(_tables(options, done, span, found, better))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="masks and the run folder are kept here")
    parser.add_argument("--encoder", default="portrait-mini")
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--retain", type=Path, required=True)
    parser.add_argument("--tap", default="image_embeds")
    parser.add_argument("--max-photos", type=int, default=5, help="photos of each target for locating")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES), help="ascending; end with 1")
    parser.add_argument("--locators", nargs="+", choices=LOCATORS, default=list(LOCATORS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if "random" not in options.locators:
        options.locators.append("random")
    return options


def _flags(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "encoder.source": options.encoder,
        "encoder.tap": options.tap,
        "data.targets": options.targets.absolute(),
        "data.retain": options.retain.absolute(),
        "data.max_photos": options.max_photos,
        "data.bad_photos": "skip",
        "locate.interchange_pairs": 0,
        "run.run_dir": (options.work / ".ireu").absolute(),
        "seed": options.seed,
    }


def _score(options: argparse.Namespace, method: str) -> Tensor:
    """The locator's score of each feature, from the mask that the command writes."""
    mask = options.work / f"{options.tap}-{method}-{options.seed}.pt"
    options.work.mkdir(parents=True, exist_ok=True)
    settings = [part for key, value in _flags(options).items() for part in ("--set", f"{key}={value}")]
    command = ["locate", *settings, "--method", method, "--quiet", "-o", str(mask)]
    done = subprocess.run([sys.executable, "-m", "ireu_cli", *command], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"ireu locate --method {method} ended with {done.returncode}: {done.stderr}")
    return read_mask(mask).score


def _interchange(options: argparse.Namespace, scores: dict[str, Tensor]) -> Interchanged:
    """One sweep for each locator, side by side, so that the drawings of A and B are made once for all."""
    session = open_session("locate", load_config(None, {}, _flags(options)), Told(), force=False)
    encoder = session.encoder()
    lens, studio = Lens(session, encoder, photo_reader(session.config)), need_studio(session, encoder)
    held = lens.encode(load_cast(session).held, "--retain", "held-out people")
    firsts, seconds = split_people(held, 0.5, generator(options.seed, "interchange", "sides"))
    if not firsts.photos or not seconds.photos:
        raise SystemExit("Fewer than two people are held out: add people to --retain")
    pairs = choose_pairs(session, firsts, seconds, options.pairs)
    features = lens.features([pairs[0][0]]).shape[-1]

    def masks(number: int) -> Tensor:
        rng = generator(options.seed, "interchange", "mask", number)
        every = {**scores, "random": torch.rand(features, generator=rng)}
        return torch.stack([top_mask(every[name], share) for name in options.locators for share in options.shares])

    return run_interchange(session, lens, studio, pairs, [masks(number) for number in range(len(pairs))])


def _sweep(moves: Moves, options: argparse.Namespace, name: str) -> Moves:
    start = options.locators.index(name) * len(options.shares)
    return moves.points(range(start, start + len(options.shares)))


def _curve(moves: Moves, options: argparse.Namespace, name: str) -> Curve:
    rng = generator(options.seed, "interchange", "bootstrap")
    return curve(_sweep(moves, options, name), options.shares, RESAMPLES, rng)


def _against_random(moves: Moves, options: argparse.Namespace, name: str) -> Interval | None:
    if abs(options.shares[-1] - 1) > 1e-9:
        return None
    rng = generator(options.seed, "interchange", "bootstrap")
    return compare(_sweep(moves, options, name), _sweep(moves, options, "random"), RESAMPLES, rng)


def _tables(
    options: argparse.Namespace,
    done: Interchanged,
    span: Interval | None,
    found: dict[str, Curve],
    better: dict[str, Interval | None],
) -> str:
    count = 0 if done.moves is None else len(done.moves.identity)
    lines = [
        f"tap {options.tap}, {count} pairs ({done.left_out} more are drawn without a face); [95 % over pairs]",
        f"identity spans {_cell(span)} in cosines from A's drawings to B's\n",
        "| locator | area | area less random's | share at half-way | rest at half-way |",
        "|---|---|---|---|---|",
    ]
    for name, one in found.items():
        summary = (one.area, better.get(name), one.half_share, one.half_rest)
        lines.append(f"| {name} | {' | '.join(_cell(cell) for cell in summary)} |")
    lines += [
        "\n| locator | share | identity | rest | pose | light | background | no face |",
        "|---|---|---|---|" + "---|" * 4,
    ]
    for name, one in found.items():
        for point in one.points:
            cells = (point.identity, point.rest, *point.aspects.values())
            shown = " | ".join(_cell(cell) for cell in cells)
            lines.append(f"| {name} | {point.share:g} | {shown} | {point.without_face} |")
    return "\n".join(lines)


def _cell(found: Interval | None) -> str:
    if found is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{found.value:.2f}"
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


if __name__ == "__main__":
    main()
