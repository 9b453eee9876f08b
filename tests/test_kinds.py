"""A kind of somebody else's joins from one file, without a change of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Run, run_ireu

ROOT = Path(__file__).parent.parent


def run_with(kind: str, *arguments: str, cwd: Path) -> Run:
    """Run `ireu` in a process of its own, in which the kind has joined."""
    command = [sys.executable, "-m", "tests.kinds.run", kind, *arguments]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path}
    )
    return Run(done.returncode, done.stdout, done.stderr)


def done(kind: str, *arguments: str, cwd: Path, codes: tuple[int, ...] = (0,)) -> Run:
    """The same, which has to end with one of some codes."""
    found = run_with(kind, *arguments, cwd=cwd)
    assert found.code in codes, found.err
    return found


def test_a_method(fresh: Path) -> None:
    done("toy_method", "locate", "-o", "m.pt", cwd=fresh)
    unlearned = done("toy_method", "unlearn", "--mask", "m.pt", "--method", "shrink", "-o", "d.safetensors", cwd=fresh)
    assert "The edit changes" in unlearned.err
    done("toy_method", "verify", "--delta", "d.safetensors", "-o", "r", cwd=fresh, codes=(0, 4, 5))
    done("toy_method", "export", "--delta", "d.safetensors", "--report", "r", "--allow-failed", "-o", "e", cwd=fresh)
    manifest = json.loads((fresh / "d.safetensors.json").read_text())
    assert manifest["parameters"]["unlearn"]["method"] == "shrink"
    assert manifest["metrics"]["shrunk"] == 1
    onto = run_with(
        "toy_method", "unlearn", "--mask", "m.pt", "--method", "shrink", "--onto", "d.safetensors", cwd=fresh
    )
    assert "The method shrink cannot add to an earlier delta" in onto.err


def test_a_method_that_nobody_brought_is_refused(fresh: Path) -> None:
    found = run_ireu("unlearn", "--mask", "mask.pt", "--method", "shrink", "-o", "d.safetensors", cwd=fresh)
    assert found.code == 3
    assert "'ireu', 'global', 'gated' or 'block'" in found.err


@pytest.mark.parametrize("name", ["turn", "turn-inside"])
def test_an_attack(name: str, fresh: Path) -> None:
    done(
        "toy_attack", "verify", "--delta", "delta.safetensors", "-o", "r", "--set", f"attacks.suite={name}", cwd=fresh,
        codes=(0, 4, 5),
    )  # fmt: skip
    report = json.loads((fresh / "r" / "report.json").read_text())
    shown = {figure["attack"] for figure in report["figures"]} - {None, "none"}
    assert shown == {f"{name}-1", f"{name}-16"}
    assert all(report["definitions"][attack]["text"] == "Features are turned round." for attack in shown)
    judged = [one["meaning"] for one in report["criteria"] if one["name"] == "attacks"]
    if name == "turn":
        assert report["unjudged"] == []
        assert len(judged) == 1
        assert "turn-" in judged[0]
    else:
        assert set(report["unjudged"]) == shown
        assert judged == []
    page = (fresh / "r" / "report.html").read_text()
    assert f"{name}-16" in page
    assert ("reported, not judged" in page) == (name == "turn-inside")
