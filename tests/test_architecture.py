"""Rules of the code base, checked on its syntax trees and in fresh interpreters."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "ireu_cli"
FILES = sorted(SOURCE.rglob("*.py"))

# What a part of the package may import of the other parts, from the lowest to the highest.
ARROWS: dict[str, set[str]] = {
    "": set(),
    "errors": set(),
    "support": {"errors"},
    "layouts": set(),
    "params": {"support", "layouts"},
    "values": {"support"},
    "config": {"errors", "support", "params"},
    "manifest": {"errors", "support", "params"},
    "report": set(),
    "report_page": {"report"},
    "maths": {"support", "values"},
    "faces": {"errors", "support", "params", "values"},
    "encoders": {"errors", "support", "layouts", "params", "values", "faces"},
    "generators": {"errors", "support", "params", "values", "encoders"},
    "judges": {"errors", "support", "params", "values", "encoders"},
    "store": {"errors", "support", "values", "manifest"},
    "sections": {"manifest"},
    "sharding": {"errors", "support", "params", "store"},
    "origin": {"errors", "config", "manifest", "store"},
    "session": {
        "",
        "errors",
        "support",
        "params",
        "values",
        "config",
        "manifest",
        "faces",
        "encoders",
        "store",
        "cases",
        "sections",
        "sharding",
    },
    "opening": {
        "errors",
        "support",
        "params",
        "config",
        "manifest",
        "report",
        "encoders",
        "store",
        "sections",
        "origin",
        "session",
        "sharding",
    },
    "encodings": {
        "errors",
        "support",
        "params",
        "values",
        "manifest",
        "faces",
        "encoders",
        "store",
        "sharding",
        "session",
    },
    "photos": {"errors", "support", "values", "manifest", "faces", "store", "session", "encodings"},
    "copies": {"errors", "values", "manifest", "faces", "store", "session", "encodings"},
    "coverage": {"errors", "params", "values", "encoders"},
    "samples": {"errors", "encoders", "store"},
    "inspecting": {"errors", "support", "values", "manifest", "encoders", "store"},
    "cases": {"errors", "support", "params", "values", "manifest", "store"},
    "checking": {"errors", "support", "values", "manifest", "encoders", "store"},
    "serving": {"errors", "support", "values", "manifest", "encoders", "store", "checking", "cases"},
    "applying": {"", "errors", "support", "manifest", "encoders", "store"},
    "measuring": {"support", "params", "report", "maths"},
    "drawing": {
        "errors",
        "support",
        "params",
        "values",
        "manifest",
        "report",
        "maths",
        "faces",
        "encoders",
        "generators",
        "judges",
        "store",
        "session",
        "encodings",
        "photos",
        "measuring",
        "sharding",
    },
    "locating": {
        "errors",
        "support",
        "params",
        "values",
        "config",
        "manifest",
        "maths",
        "faces",
        "encoders",
        "store",
        "session",
        "opening",
        "encodings",
        "photos",
        "drawing",
    },
    "unlearning": {
        "errors",
        "support",
        "params",
        "values",
        "config",
        "manifest",
        "maths",
        "faces",
        "encoders",
        "store",
        "origin",
        "session",
        "opening",
        "encodings",
        "photos",
        "copies",
        "coverage",
        "locating",
    },
    "attacks": {
        "errors",
        "support",
        "params",
        "values",
        "manifest",
        "report",
        "maths",
        "faces",
        "encoders",
        "generators",
        "store",
        "session",
        "encodings",
        "photos",
        "measuring",
        "drawing",
        "sharding",
    },
    "verifying": {
        "",
        "errors",
        "support",
        "params",
        "values",
        "config",
        "manifest",
        "report",
        "report_page",
        "maths",
        "faces",
        "encoders",
        "judges",
        "store",
        "session",
        "opening",
        "encodings",
        "photos",
        "copies",
        "coverage",
        "measuring",
        "drawing",
        "unlearning",
        "attacks",
    },
    "exporting": {
        "cases",
        "",
        "errors",
        "support",
        "layouts",
        "params",
        "values",
        "config",
        "manifest",
        "encoders",
        "store",
        "session",
        "opening",
        "encodings",
        "coverage",
        "verifying",
    },
    "batching": {
        "errors",
        "support",
        "faces",
        "cases",
        "values",
        "config",
        "manifest",
        "store",
        "session",
        "opening",
        "locating",
        "unlearning",
        "verifying",
        "exporting",
    },
    "cli": {
        "",
        "errors",
        "support",
        "layouts",
        "config",
        "report",
        "opening",
        "samples",
        "inspecting",
        "locating",
        "unlearning",
        "verifying",
        "exporting",
        "applying",
        "batching",
        "checking",
        "serving",
        "store",
        "cases",
        "sharding",
    },
    "__main__": {"cli"},
}


def part_of(path: Path) -> str:
    name = path.relative_to(SOURCE).with_suffix("").parts[0]
    return "" if name == "__init__" else name


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "ireu_cli":
            rest = node.module.split(".")[1:]
            names = [rest[0]] if rest else [alias.name if alias.name in ARROWS else "" for alias in node.names]
            found |= set(names)
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_follow_the_arrows(path: Path) -> None:
    allowed = ARROWS[part_of(path)] | {part_of(path)}
    assert imports(path) <= allowed, f"{path.name} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_only_the_cli_prints_or_exits(path: Path) -> None:
    if part_of(path) in {"cli"}:
        return
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    names = {node.func.id for node in calls if isinstance(node.func, ast.Name)}
    assert not names & {"print", "exit", "quit"}
    assert "sys.exit" not in {ast.unparse(node.func) for node in calls}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_functions_and_files_stay_short(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            if body:
                assert (body[-1].end_lineno or 0) - body[0].lineno < 45, f"{path.name}:{node.name}"


def test_maths_knows_no_files() -> None:
    for path in (SOURCE / "maths").glob("*.py"):
        text = path.read_text()
        assert "pathlib" not in text
        assert "open(" not in text


def run(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | variables
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["locate", "--help"],
        ["unlearn", "--help"],
        ["verify", "--help"],
        ["export", "--help"],
        ["apply", "--help"],
        ["check", "--help"],
        ["deploy", "--help"],
        ["batch", "--help"],
        ["cases", "--help"],
        ["samples", "--help"],
        ["inspect", "--systems"],
    ],
)
def test_help_starts_nothing_heavy(arguments: list[str]) -> None:
    code = f"""
import sys
from ireu_cli.cli.app import main
assert main({arguments!r}) == 0
heavy = {{"torch", "transformers", "numpy", "rich", "PIL", "cv2"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_sample_people_are_written_without_torch(tmp_path: Path) -> None:
    done = run(
        f"import sys; from ireu_cli.cli.app import main; assert main(['samples', {str(tmp_path / 's')!r}]) == 0; "
        "assert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


def test_importing_the_package_starts_nothing_heavy() -> None:
    done = run("import sys, ireu_cli; assert not {'torch', 'typer', 'pydantic'} & set(sys.modules)")
    assert done.returncode == 0, done.stderr


def test_onnxruntime_sends_no_reports(tmp_path: Path) -> None:
    """What it is about to send to its makers, it first keeps below the user's home."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    done = run("import ireu_cli, onnxruntime", **home)
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.rglob("*"))


def test_who_wants_reports_sent_is_heard() -> None:
    code = "import os, ireu_cli; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run(code, ORT_DISABLE_TELEMETRY="0").stdout == "0\n"
    assert run(code).stdout == "1\n"


def test_the_picture_of_the_packages_is_what_they_import() -> None:
    page = (SOURCE.parent.parent / "docs" / "architecture.md").read_text()
    drawn = {part: set[str]() for part in ARROWS}
    shown = set()
    for line in page.split("```mermaid")[1].split("```")[0].splitlines():
        if "-->" in line:
            high, low = line.split("-->")
            drawn[high.strip()].add(low.strip())
            shown |= {high.strip(), low.strip()}
    above = {part: set(drawn[part]) for part in ARROWS}
    for part in ARROWS:
        for low in drawn[part]:
            above[part] |= above[low]
    imported = {part: {low for low in ARROWS[part] if low in shown} for part in shown}
    assert {(part, low) for part in shown for low in drawn[part] - imported[part]} == set(), "drawn, not imported"
    assert {(part, low) for part in shown for low in imported[part] - above[part]} == set(), "imported, not drawn"


def test_every_file_that_the_architecture_names_is_there() -> None:
    page = (SOURCE.parent.parent / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py|[a-z_]+\.py)`", page))
    assert len(named) > 25
    missing = [name for name in named if not list(SOURCE.rglob(name)) and not (SOURCE.parent.parent / name).exists()]
    assert not missing
