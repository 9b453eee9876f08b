"""What `verify` says of `ireu` and `global` on real faces: every figure with intervals, attacks and the gate included.

    python benchmarks/evidence_table.py --work DIR [--people 1] [--draws 10] [--methods ireu-toward global-toward]

Judges are two recognisers that are no part of the package and taught no encoder (b, d of IREU_DATA/models), KID is on
MobileNetV2's ImageNet features. Each draw of targets is one folder; a second run goes on where the first stopped.
Values are means over draws with 95 % bootstrap intervals over draws; where two recognisers judge, the worse one counts.
"""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ireu_cli.maths.stats import estimate
from ireu_cli.support.runtime import generator
from target_draws import Draws, options, run

SETTINGS = {
    "judges.embedded": "false",
    "pictures.target_photos": "5",
    "pictures.people": "15",
    "pictures.look_alikes": "5",
    "pictures.photos": "1",
    "pictures.seeds": "1",
    "pictures.edits_per_photo": "0",
    "attacks.photos": "4",
    "attacks.drawn": "1",
    "verify.max_attack_success": "1",
}
ROLES = ("target-seen", "target-unseen", "look-alike", "retained")
LOWER_IS_BETTER = {"id_original", "reidentified", "rank1", "attack_success", "similarity", "match_rate"}
Row = dict[str, Any]


def main() -> None:
    """Run what is missing, then print the tables."""
    chosen = options(__doc__)
    data = Path(os.environ["IREU_DATA"])
    recognisers = [
        {"name": name, "model": str(data / "models" / f"recogniser_{name}.onnx"), "std": [128, 128, 128]}
        for name in ("b", "d")
    ]
    settings = SETTINGS | {
        "judges.recognisers": json.dumps(recognisers),
        "judges.image_model": str(data / "models" / "mobilenet_v2_imagenet.onnx"),
    }
    flags = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    draws = run(chosen, data, lambda _: flags, "evidence")
    if draws is None:
        return
    for count in chosen.people:
        reports = {method: _reports(draws, count, chosen, method) for method in chosen.methods}
        counted = "/".join(str(len(found)) for found in reports.values())
        print(f"{count} target(s), steps {chosen.steps}, {counted} draws; mean [95 % over draws]\n")
        for drawer in (None, "A", "B"):
            print(_plain(drawer, reports))
            print(_attacks(drawer, reports))
        print(_gate(reports))


def _reports(draws: Draws, count: int, chosen: argparse.Namespace, method: str) -> list[list[Row]]:
    paths = [draws.report(count, draw, method) / "report.json" for draw in range(chosen.draws)]
    return [json.loads(path.read_text())["figures"] for path in paths if path.exists()]


def _plain(drawer: str | None, reports: dict[str, list[list[Row]]]) -> str:
    """Figures without attacks: a row a figure and role, the original first."""
    keys = dict.fromkeys(
        (row["name"], row["role"])
        for found in reports.values()
        for figures in found
        for row in figures
        if row["generator"] == drawer and row["attack"] is None and row["edit"] is None
        and not row["name"].startswith("gate") and row["role"] in (*ROLES, "null")
    )  # fmt: skip
    lines = [f"{_title(drawer)}\n", "| figure | of | original | " + " | ".join(reports) + " |"]
    lines.append("|---|---|---|" + "---|" * len(reports))
    first = next(iter(reports.values()))
    for name, role in keys:

        def chosen(row: Row, name: str = name, role: str = role) -> bool:
            return (row["name"], row["role"], row["generator"]) == (name, role, drawer) and row["attack"] is None \
                and row["edit"] is None and row["false_match_rate"] in {None, 0.01}  # fmt: skip

        cells = [_cell(first, name, lambda row: chosen(row) and row["state"] == "original")]
        cells += [_cell(f, name, lambda row: chosen(row) and row["state"] != "original") for f in reports.values()]
        lines.append(f"| `{name}` | {role} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _attacks(drawer: str | None, reports: dict[str, list[list[Row]]]) -> str:
    """Success of each attack, the most successful first."""
    attacks: dict[str, float] = {}
    for found in reports.values():
        for figures in found:
            for row in figures:
                if row["name"] in {"attack_success", "relearned"} and row["generator"] == drawer:
                    attacks[row["attack"]] = attacks.get(row["attack"], 0.0) + row["value"] * (row["state"] == "edited")
    first = next(iter(reports.values()))
    lines = [f"{_title(drawer)}, under attack\n", "| attack | original | " + " | ".join(reports) + " |"]
    lines.append("|---|---|" + "---|" * len(reports))
    for attack in sorted(attacks, key=lambda attack: -attacks[attack]):

        def chosen(row: Row, state: str, attack: str = attack) -> bool:
            wanted = (attack, drawer, state)
            return (row["attack"], row["generator"], row["state"]) == wanted and row["role"] == "target-unseen" \
                and row["name"] in {"attack_success", "relearned"}  # fmt: skip

        cells = [_cell(first, "attack_success", lambda row: chosen(row, "original"))]
        cells += [_cell(f, "attack_success", lambda row: chosen(row, "edited")) for f in reports.values()]
        lines.append(f"| {attack} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _gate(reports: dict[str, list[list[Row]]]) -> str:
    """The face-match gate by recogniser, which does not depend on the method."""
    found = next(iter(reports.values()))
    measures = sorted({row["measure"] for figures in found for row in figures if row["name"] == "gate_caught"})
    lines = [
        "Face-match gate\n",
        "| figure | of | " + " | ".join(measures) + " |",
        "|---|---|" + "---|" * len(measures),
    ]
    keys = dict.fromkeys(
        (row["name"], row["role"], row["attack"], row["generator"])
        for figures in found
        for row in figures
        if row["name"].startswith("gate")
    )
    for name, role, attack, drawer in keys:
        cells = [
            _cell(found, name, lambda row, m=measure: (  # type: ignore[misc]
                (row["name"], row["role"], row["attack"], row["generator"], row["measure"])
                == (name, role, attack, drawer, m)))  # noqa: B023 - called at once
            for measure in measures
        ]  # fmt: skip
        what = attack or role
        lines.append(
            f"| `{name}` | {what if drawer is None else f'{what}, generator {drawer}'} | " + " | ".join(cells) + " |"
        )
    return "\n".join(lines) + "\n"


def _cell(found: Sequence[list[Row]], name: str, chosen: Callable[[Row], bool]) -> str:
    """The worst recogniser's value of each draw, averaged over draws."""
    worst = max if name in LOWER_IS_BETTER else min
    values = [worst(row["value"] for row in figures if chosen(row)) for figures in found if any(map(chosen, figures))]
    one = estimate([torch.tensor([value], dtype=torch.float64) for value in values], 2000, generator(0, name))
    if one is None:
        return "–"
    span = "" if one.low is None else f" [{one.low:.3f}, {one.high:.3f}]"
    return f"{one.value:.3f}{span}"


def _title(drawer: str | None) -> str:
    return "Features" if drawer is None else f"Generator {drawer}"


if __name__ == "__main__":
    main()
