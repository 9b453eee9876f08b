"""Original, `global` and `ireu` on real faces, encoder level: the table of docs/results.md.

Every number comes out of the four commands, run as a user runs them. Each draw of targets is one folder of artifacts;
a second run goes on where the first stopped.

    python benchmarks/encoder_table.py --work DIR [--people 1 5] [--draws 10] [--steps auto] [--shard 0/2]

Needs IREU_DATA, a folder with `faces/eval` and `faces/train`.
"""

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ireu_cli.maths.stats import estimate
from ireu_cli.runtime import generator
from target_draws import METHODS, PHOTOS, USUAL, Draws

ROWS = (
    ("target seen: match rate", "match_rate", "target-seen"),
    ("target seen: rank-1", "rank1", "target-seen"),
    ("target seen: similarity", "similarity", "target-seen"),
    ("target unseen: match rate", "match_rate", "target-unseen"),
    ("target unseen: rank-1", "rank1", "target-unseen"),
    ("target unseen: similarity", "similarity", "target-unseen"),
    ("retained: rank-1", "rank1", "retained"),
    ("retained: similarity", "similarity", "retained"),
)
CHANGES = (
    ("target seen: cosine before/after", "feature_cosine", "target-seen"),
    ("target unseen: cosine before/after", "feature_cosine", "target-unseen"),
    ("look-alikes: cosine before/after", "feature_cosine", "look-alike"),
    ("retained: cosine before/after", "feature_cosine", "retained"),
    ("null images: relative change", "relative_change", "null"),
)


def main() -> None:
    """Run what is missing, then print the table."""
    options = _options()
    data = Path(os.environ["IREU_DATA"])
    draws = Draws(data, options.work, options.encoder, options.tap, options.steps)
    shard, shards = (int(part) for part in options.shard.split("/"))
    draws.link_retained()
    for index, (count, draw) in enumerate((count, draw) for count in options.people for draw in range(options.draws)):
        if index % shards == shard:
            for method in options.methods:
                draws.unlearn(count, draw, method, ("--set", "pictures.generators=none"))
    if shard == 0:
        for count in options.people:
            print(_table(draws, count, options.draws, options.methods))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--people", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--encoder", default="portrait-mini")
    parser.add_argument("--tap", default="penultimate")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(USUAL))
    parser.add_argument("--steps", default="auto")
    parser.add_argument("--shard", default="0/1", help="this process's part of the draws, such as 0/2")
    return parser.parse_args()


def _table(draws: Draws, count: int, number: int, methods: list[str]) -> str:
    reports = {method: list(_reports(draws, count, number, method)) for method in methods}
    complete = "/".join(str(len(found)) for found in reports.values())
    lines = [
        f"\n{count} target(s), {PHOTOS} photos each, steps {draws.steps}, {complete} draws; mean [95 % over draws]\n",
        f"| figure | original | {' | '.join(methods)} |",
        "|---|---|" + "---|" * len(methods),
    ]
    for label, name, role in ROWS:
        cells = [_cell(reports[methods[0]], name, role, "original")]
        cells += [_cell(reports[method], name, role, "edited") for method in methods]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for label, name, role in CHANGES:
        cells = [_cell(reports[method], name, role, "change") for method in methods]
        lines.append(f"| {label} | {'0' if name == 'relative_change' else '1'} | {' | '.join(cells)} |")
    lines.append(
        f"| impostor similarity | {_cell(reports[methods[0]], 'impostor_similarity', 'retained', 'original')}"
        + " |" * (1 + len(methods))
    )
    return "\n".join(lines)


def _reports(draws: Draws, count: int, number: int, method: str) -> Iterator[dict[str, Any]]:
    for draw in range(number):
        path = draws.report(count, draw, method) / "report.json"
        if path.exists():
            yield json.loads(path.read_text())


def _cell(reports: list[dict[str, Any]], name: str, role: str, state: str) -> str:
    values = [
        torch.tensor([figure["value"]])
        for report in reports
        for figure in report["figures"]
        if (figure["name"], figure["role"], figure["state"]) == (name, role, state)
    ]
    found = estimate(values, 2000, generator(0, "table", name, role, state))
    if found is None:
        return "–"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]" if found.low is not None else f"{found.value:.3f}"


if __name__ == "__main__":
    main()
