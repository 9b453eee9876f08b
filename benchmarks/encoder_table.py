"""Original, `global` and `ireu` on real faces, encoder level.

Every number comes out of the four commands, run as a user runs them. Each draw of targets is one folder of artifacts;
a second run goes on where the first stopped.

    python benchmarks/encoder_table.py --work DIR [--people 1 5] [--draws 10] [--steps auto] [--shard 0/2]

Needs IREU_DATA, a folder with `faces/eval` and `faces/train`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ireu_cli.maths.stats import estimate
from ireu_cli.support.runtime import generator
from target_draws import PHOTOS, Draws, options, run

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
    chosen = options(__doc__)
    draws = run(chosen, Path(os.environ["IREU_DATA"]), lambda _: ("--set", "pictures.generators=none"))
    if draws is not None:
        for count in chosen.people:
            print(_table(draws, count, chosen.draws, chosen.methods))


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
