"""A Ray cluster of three nodes on this machine, and accidents: `cluster.py --work DIR`.

Runs the four commands once by one process, and then on the cluster: without accidents, with workers killed in each
step, with the head standing still for ten seconds in each step, and with the driver killed in each step and started
again. Says for each whether the artifacts have the same bytes, and how long it took beside one process.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.drawn.folder import write_drawn

COMMANDS = (
    ("locate",),
    ("unlearn", "--mask", "mask.pt", "--method", "gated"),
    ("verify", "--delta", "delta.safetensors"),
    ("export", "--delta", "delta.safetensors", "--allow-failed"),
)
RESULTS = ("mask.pt", "delta.safetensors", "report/report.json", "encoder-unlearned/model.safetensors")
SMALL = ("--set", "run.shard_batches=1", "--set", "run.stale_seconds=5")
PORT, NODES, STANDS = 6399, 3, 10.0
Accident = Callable[[subprocess.Popen[bytes]], bool]
"""Does harm while a driver runs; returns whether the driver has to be started again."""


@contextlib.contextmanager
def cluster(folder: Path, environment: dict[str, str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """A head and two workers, with one core each."""
    ray = str(Path(sys.executable).with_name("ray"))
    nodes: list[subprocess.Popen[bytes]] = []
    log = (folder / "ray.log").open("ab")
    try:
        for number in range(NODES):
            where = ["--head", f"--port={PORT}"] if number == 0 else [f"--address=127.0.0.1:{PORT}"]
            command = [ray, "start", *where, "--num-cpus=1", "--block", "--disable-usage-stats"]
            more = ["--include-dashboard=false"] if number == 0 else []
            nodes.append(
                subprocess.Popen([*command, *more], env=environment, stdout=log, stderr=log, start_new_session=True)
            )
            time.sleep(8)
        yield nodes
    finally:
        for node in nodes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(node.pid, signal.SIGKILL)
        log.close()


def children(of: int) -> list[int]:
    """Processes below a process."""
    found = subprocess.run(["pgrep", "-P", str(of)], capture_output=True, text=True, check=False).stdout.split()
    return [each for pid in map(int, found) for each in (pid, *children(pid))]


def workers() -> list[int]:
    """Workers of ireu on the cluster."""
    found = subprocess.run(
        ["pgrep", "-f", "-m ireu_cli .*run.executor=ray"], capture_output=True, text=True, check=False
    )
    marked = []
    for pid in map(int, found.stdout.split()):
        with contextlib.suppress(OSError):
            if b"_IREU_WORKER=" in Path(f"/proc/{pid}/environ").read_bytes():
                marked.append(pid)
    return marked


def nothing(_driver: subprocess.Popen[bytes]) -> bool:
    """No accident."""
    return False


def kill_worker(driver: subprocess.Popen[bytes]) -> bool:
    """Kill every worker that there is, once."""
    while driver.poll() is None and not workers():
        time.sleep(0.05)
    time.sleep(1)
    for pid in workers():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return False


def kill_driver(driver: subprocess.Popen[bytes]) -> bool:
    """Kill the driver as soon as a worker is at work."""
    while driver.poll() is None and not workers():
        time.sleep(0.05)
    time.sleep(1)
    running = driver.poll() is None
    driver.kill()
    return running


def stop_head(head: int) -> Accident:
    """Let all processes of the head node stand still for a while."""

    def stop(driver: subprocess.Popen[bytes]) -> bool:
        while driver.poll() is None and not workers():
            time.sleep(0.05)
        still = children(head)
        for way in (signal.SIGSTOP, signal.SIGCONT):
            for pid in still:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, way)
            if way is signal.SIGSTOP:
                time.sleep(STANDS)
        return False

    return stop


def run(
    folder: Path, flags: tuple[str, ...], environment: dict[str, str], accident: Accident
) -> tuple[list[bytes], float]:
    """All commands; returns the artifacts and the seconds."""
    began = time.monotonic()
    for command in COMMANDS:
        again = True
        while again:
            argv = [sys.executable, "-m", "ireu_cli", *command, *SMALL, *flags, "--quiet"]
            with (folder / "err.log").open("ab") as log:
                driver = subprocess.Popen(argv, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=log)
            outcome: list[bool] = []
            trouble = threading.Thread(target=lambda driver=driver, found=outcome: found.append(accident(driver)))
            trouble.start()
            code = driver.wait()
            trouble.join()
            again, accident_over = outcome[0], outcome[0]
            if accident_over:
                continue
            if code not in (0, 4, 5):
                raise SystemExit(f"{' '.join(command)} ended with {code}; see {folder / 'err.log'}")
            break
    return [(folder / name).read_bytes() for name in RESULTS], time.monotonic() - began


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="an empty folder")
    args = parser.parse_args()
    work = args.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
    environment["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    start = work / "start"
    write_drawn(start, 0)
    (start / ".ireu").mkdir(mode=0o700)
    (start / ".ireu" / "key").write_text(secrets.token_hex(32))
    alone = work / "one process"
    shutil.copytree(start, alone)
    expected, usual = run(alone, (), environment, nothing)
    print(f"{'one process':<24} {usual:6.1f} s")
    flags = ("--set", "run.executor=ray", "--set", f"run.ray_address=127.0.0.1:{PORT}", "--processes", "2")
    with cluster(work, environment) as nodes:
        accidents = {
            "no accident": nothing, "workers killed": kill_worker, "head stands still": stop_head(nodes[0].pid),
            "driver killed": kill_driver,
        }  # fmt: skip
        for name, accident in accidents.items():
            folder = work / name
            shutil.copytree(start, folder)
            found, seconds = run(folder, flags, environment, accident)
            same = [ours == theirs for ours, theirs in zip(found, expected, strict=True)]
            print(f"{name:<24} {seconds:6.1f} s  {seconds / usual:5.2f} x  same bytes: {all(same)} {same}", flush=True)


if __name__ == "__main__":
    main()
