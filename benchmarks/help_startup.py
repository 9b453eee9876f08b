"""Time of `ireu --help` as a ratio to a bare `import typer`, both in fresh interpreters, alternating in one run.

    python benchmarks/help_startup.py [--rounds 30]

Exits 1 when the ratio of the medians exceeds 1.5.
"""

import argparse
import statistics
import subprocess
import sys
import time

LIMIT = 1.5


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    commands = {
        "import typer": [sys.executable, "-c", "import typer"],
        "ireu --help": [sys.executable, "-m", "ireu_cli", "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds + 2):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(found[2:]) for name, found in times.items()}
    ratio = medians["ireu --help"] / medians["import typer"]
    for name, median in medians.items():
        print(f"{name}: {1000 * median:.0f} ms")
    print(f"ratio {ratio:.2f}, at most {LIMIT}")
    sys.exit(ratio > LIMIT)


if __name__ == "__main__":
    main()
