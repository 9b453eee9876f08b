"""Original, `global` and `ireu` on real faces, encoder level: the table of docs/results.md.

Every number comes out of the four commands, run as a user runs them. Each draw of targets is one folder of artifacts;
a second run goes on where the first stopped.

    python benchmarks/encoder_table.py --work DIR [--people 1 5] [--draws 10] [--steps auto] [--shard 0/2]

Needs IREU_DATA, a folder with `faces/eval`, `faces/train` and `lab/encoder`.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ireu_cli.maths.stats import estimate
from ireu_cli.runtime import generator

LANDMARKS = "0.375,0.431,0.6375,0.425,0.5125,0.594,0.394,0.719,0.625,0.7125"
"""Where eyes, nose and mouth corners lie in the photos of IREU_DATA, as fractions of the picture."""
RETAIN_PEOPLE = 400
PHOTOS = "5"
METHODS = {
    "global": ["--method", "global"],
    "ireu": ["--method", "ireu"],
    "ireu-toward": ["--method", "ireu", "--set", "unlearn.direction=toward"],
}
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
    shard, shards = (int(part) for part in options.shard.split("/"))
    _link_people(options.work / "retain", data / "faces" / "train", _retain_people(data))
    for index, (count, draw) in enumerate((count, draw) for count in options.people for draw in range(options.draws)):
        if index % shards == shard:
            for method in options.methods:
                _run(data, options, count, draw, method)
    if shard == 0:
        for count in options.people:
            print(_table(options.work, count, options.draws, options.steps))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--people", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--steps", default="auto")
    parser.add_argument("--shard", default="0/1", help="this process's part of the draws, such as 0/2")
    return parser.parse_args()


def _retain_people(data: Path) -> list[str]:
    """The first training people with three photos or more, in the order of their numbers."""
    people = sorted(path for path in (data / "faces" / "train").iterdir() if path.is_dir())
    return [path.name for path in people if len(list(path.iterdir())) >= 3][:RETAIN_PEOPLE]


def _run(data: Path, options: argparse.Namespace, count: int, draw: int, method: str) -> None:
    everybody = sorted(path.name for path in (data / "faces" / "eval").iterdir())
    targets = random.Random(draw).sample(everybody, count)
    folder = options.work / f"{count}-people" / f"draw-{draw:02d}"
    _link_people(folder / "targets", data / "faces" / "eval", targets)
    _link_people(folder / "others", data / "faces" / "eval", [name for name in everybody if name not in targets])
    run = ["--run-dir", str(options.work / ".ireu"), "--quiet"]
    mask, name = folder / "mask.pt", f"{method}-{options.steps}"
    delta, report = folder / f"{name}.safetensors", folder / f"report-{name}"
    _ireu(
        "locate",
        *run,
        "--targets",
        str(folder / "targets"),
        "--retain",
        str(options.work / "retain"),
        "--encoder",
        str(data / "lab" / "encoder"),
        "--tap",
        "pooled",
        "--max-photos",
        PHOTOS,
        "--seed",
        str(draw),
        "--set",
        f"data.landmarks={LANDMARKS}",
        "--set",
        "data.retain_holdout=0",
        "-o",
        str(mask),
    )
    _ireu("unlearn", *run, "--mask", str(mask), *METHODS[method], "--steps", options.steps, "-o", str(delta))
    _ireu("verify", *run, "--delta", str(delta), "--retain", str(folder / "others"), "-o", str(report), ok=(0, 4, 5))


def _ireu(*arguments: str, ok: tuple[int, ...] = (0,)) -> None:
    done = subprocess.run([sys.executable, "-m", "ireu_cli", *arguments], capture_output=True, text=True, check=False)
    if done.returncode not in ok:
        raise SystemExit(f"ireu {' '.join(arguments)} ended with {done.returncode}: {done.stderr}")


def _link_people(folder: Path, source: Path, names: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with contextlib.suppress(FileExistsError):
            (folder / name).symlink_to(source / name)


def _table(work: Path, count: int, draws: int, steps: str) -> str:
    reports = {method: list(_reports(work, count, draws, f"{method}-{steps}")) for method in METHODS}
    complete = "/".join(str(len(found)) for found in reports.values())
    lines = [
        f"\n{count} target(s), {PHOTOS} photos each, steps {steps}, {complete} draws; mean [95 % over draws]\n",
        f"| figure | original | {' | '.join(METHODS)} |",
        "|---|---|" + "---|" * len(METHODS),
    ]
    for label, name, role in ROWS:
        cells = [_cell(reports["ireu"], name, role, "original")]
        cells += [_cell(reports[method], name, role, "edited") for method in METHODS]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    for label, name, role in CHANGES:
        cells = [_cell(reports[method], name, role, "change") for method in METHODS]
        lines.append(f"| {label} | {'0' if name == 'relative_change' else '1'} | {' | '.join(cells)} |")
    lines.append(
        f"| impostor similarity | {_cell(reports['ireu'], 'impostor_similarity', 'retained', 'original')}"
        + " |" * (1 + len(METHODS))
    )
    return "\n".join(lines)


def _reports(work: Path, count: int, draws: int, name: str) -> Iterator[dict[str, Any]]:
    for draw in range(draws):
        path = work / f"{count}-people" / f"draw-{draw:02d}" / f"report-{name}" / "report.json"
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
