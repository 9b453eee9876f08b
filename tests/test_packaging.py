"""What others install: the wheel, the image and the action."""

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution found for hatchling" in done.stderr:
        pytest.skip("nothing can be fetched here")
    assert done.returncode == 0, done.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_the_bundle_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert "ireu_cli/portrait_mini/portrait.json" in names
    assert all(name.startswith(("ireu_cli/", "ireu-")) for name in names)
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pt", ".npy"))]
    assert wheel.stat().st_size < 80 << 20


def test_the_wheel_works_where_nothing_of_the_checkout_is(wheel: Path, tmp_path: Path) -> None:
    """Other libraries come from the environment of the tests."""
    venv.create(tmp_path / "env", with_pip=False)
    target = next((tmp_path / "env" / "lib").iterdir()) / "site-packages"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(target)
    others = [path for path in sys.path if path.endswith("site-packages")]
    (target / "zz-others.pth").write_text("\n".join(others))
    python = tmp_path / "env" / "bin" / "python"
    code = (
        "import ireu_cli, sys; assert ireu_cli.__file__.startswith(sys.prefix), ireu_cli.__file__\n"
        "from ireu_cli.cli.app import main\n"
        "assert main(['samples', 's']) == 0 == main(['inspect', '--systems'])\n"
    )
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=clean, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "s" / "ireu.toml").is_file()


def test_the_image_is_made_of_this_checkout_and_runs_as_nobody() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for names in copied for name in names} == kept
    assert all((ROOT / name).exists() for name in kept)
    assert "COPY src src" in lines
    users = [line for line in lines if line.startswith("USER")]
    assert users
    assert "root" not in users[-1]
    assert not [line for line in lines if re.search(r"pip install .*\bireu\b", line)]
    needs = (ROOT / "pyproject.toml").read_text()
    (newest,) = re.findall(r'"torch>=[^,]+,<=([^"]+)"', needs)
    assert any(f"torch=={newest}" in line for line in lines)


def run_action(arguments: str, tmp_path: Path, script: str) -> tuple[int, str, list[str]]:
    """Run the action's script with a program in place of `ireu`: its code, its outputs, and what the program got."""
    tool = tmp_path / "tool"
    tool.write_text(f'#!/usr/bin/env bash\nprintf "%s\\0" "$@" > {tmp_path}/called\n{script}\n')
    tool.chmod(0o755)
    more = {"GITHUB_OUTPUT": str(tmp_path / "out"), "IREU_ARGUMENTS_OF_ACTION": arguments}
    done = subprocess.run(
        ["bash", ROOT / "scripts" / "action.sh", tool], cwd=tmp_path, env=os.environ | more, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    called = tmp_path / "called"
    got = called.read_text().split("\0")[:-1] if called.exists() else []
    output = (tmp_path / "out").read_text() if (tmp_path / "out").exists() else ""
    return done.returncode, output, got


def test_the_action_passes_lines_as_they_are(tmp_path: Path) -> None:
    lines = ["verify", "--delta", "a b.safetensors", "$(touch pwned)", "`touch pwned`", "; touch pwned", '"q"', "*"]
    code, output, got = run_action("\r\n".join(lines) + "\n\n", tmp_path, "echo '{\"a\": 1}'; exit 4")
    assert (code, got) == (4, lines)
    assert not (tmp_path / "pwned").exists()
    assert re.fullmatch(r'exit-code=4\nresult<<(end-[0-9a-f]{32})\n\{"a": 1\}\n\1\n', output)


def test_the_action_needs_arguments(tmp_path: Path) -> None:
    code, output, got = run_action("\n \n".replace(" ", ""), tmp_path, "exit 0")
    assert (code, output, got) == (2, "", [])


def test_a_result_sets_no_other_output(tmp_path: Path) -> None:
    _, output, _ = run_action("x", tmp_path, "printf 'a\\nend\\nexit-code=0\\n'; exit 5")
    mark = re.findall(r"<<(end-[0-9a-f]+)", output)[0]
    assert output.split(f"result<<{mark}\n")[1] == f"a\nend\nexit-code=0\n{mark}\n"
    assert output.startswith("exit-code=5\n")


def test_the_action_names_what_is_there() -> None:
    steps = ACTION["runs"]["steps"]
    text = "\n".join(str(step.get("run", "")) for step in steps)
    for name in re.findall(r"GITHUB_ACTION_PATH/([\w./]+)", text):
        assert (ROOT / name).is_file()
    # What a caller writes reaches a shell as a variable, never as a part of a script.
    assert "${{ inputs" not in text
    wanted = {name for step in steps for name in re.findall(r"inputs\.([\w-]+)", str(step))}
    assert wanted == set(ACTION["inputs"])
