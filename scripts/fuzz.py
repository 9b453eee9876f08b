"""Change files of every kind that is read from somebody else, and see that each is read or refused in a sentence.

    python scripts/fuzz.py --inputs 10000 --seed 1
    python scripts/fuzz.py --inputs 500 --seed 1 --kind photo --keep failures

Readers run in children of this process, which are replaced when they die. Prints a table, and ends with 1 where
anything but that happened; `--keep` keeps the files that did it. `tests/fuzzing` says what counts.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.fuzzing.drive import KINDS, Bench, Outcome, keep, run
from tests.fuzzing.seeds import write_seeds

Rows = dict[str, Counter[str]]


def shares(names: list[str], inputs: int) -> dict[str, int]:
    """How many inputs each kind gets, in all as many as are wanted."""
    whole = sum(KINDS[name].share for name in names)
    found = {name: int(inputs * KINDS[name].share / whole) for name in names}
    for name in names[: inputs - sum(found.values())]:
        found[name] += 1
    return found


def examined(name: str, count: int, sound: Path, work: Path, arguments: argparse.Namespace) -> list[Outcome]:
    """All outcomes of one kind; failures are told and kept as they come."""
    began, found = time.monotonic(), []
    for outcome in run(name, sound, work, arguments.seed, count):
        found.append(outcome)
        if outcome.state == "failure":
            print(f"FAILURE {name} {outcome.number}: {outcome.why!r:.400}", file=sys.stderr, flush=True)
    print(f"{name}: {count} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return found


def table(rows: Rows) -> str:
    """What came of the inputs, a row for each kind."""
    lines = ["| kind | inputs | accepted, same meaning | accepted, other meaning | refused | failures |"]
    lines.append("|---|---|---|---|---|---|")
    states = ("same", "other", "refused", "failure")
    for name, row in [*rows.items(), ("all", sum(rows.values(), Counter()))]:
        lines.append(f"| {name} | {row.total()} | " + " | ".join(str(row[state]) for state in states) + " |")
    return "\n".join(lines)


def main() -> int:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1000, help="how many, over all kinds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS), metavar="KIND", help="only this one")
    parser.add_argument("--keep", type=Path, help="a folder for the files that failed")
    parser.add_argument("--jobs", type=int, default=2, help="children at a time")
    arguments = parser.parse_args()
    names = arguments.kind or list(KINDS)
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        sound = write_seeds(place / "sound")
        with ThreadPoolExecutor(arguments.jobs) as threads:
            wanted = shares(names, arguments.inputs)
            found = dict(
                zip(
                    names,
                    threads.map(lambda name: examined(name, wanted[name], sound, place, arguments), names),
                    strict=True,
                )
            )
        if arguments.keep is not None:
            _keep(found, sound, place, arguments)
    rows: Rows = {name: Counter(outcome.state for outcome in outcomes) for name, outcomes in found.items()}
    print(table(rows))
    return int(any(row["failure"] for row in rows.values()))


def _keep(found: dict[str, list[Outcome]], sound: Path, place: Path, arguments: argparse.Namespace) -> None:
    for number, (name, outcomes) in enumerate(found.items()):
        failures = [outcome for outcome in outcomes if outcome.state == "failure"]
        if failures:
            bench = Bench(name, sound, place / f"keep-{number}")
            for outcome in failures:
                keep(arguments.keep, bench, arguments.seed, outcome)
            bench.close()


if __name__ == "__main__":
    sys.exit(main())
