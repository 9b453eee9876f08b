"""Docs that name a command, a flag, a key or a file are run, generated or checked."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ireu_cli.attacks.success import ATTACK_DEFINITIONS
from ireu_cli.attacks.suite import known_attacks
from ireu_cli.config import schema_keys
from ireu_cli.layouts.table import layout_named, layout_names
from ireu_cli.params import VerifyParams
from ireu_cli.verifying.figures import DEFINITIONS
from ireu_cli.verifying.pictures.distance_figures import QUALITY_DEFINITIONS
from ireu_cli.verifying.pictures.picture_figures import PICTURE_DEFINITIONS
from ireu_cli.verifying.rival.rival_figures import GATE_DEFINITIONS
from tests.conftest import run_ireu

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.slow
def test_the_first_command_of_the_readme_is_the_whole_job(tmp_path: Path) -> None:
    """Everything after the installation, as it stands: a verdict, pictures, and a drop-in encoder if it passes."""
    command = blocks(ROOT / "README.md", "bash")[0]
    after_install = command.split("pip install . && ")[1]
    assert after_install.count("ireu ") == 5
    ireu = f"{sys.executable} -m ireu_cli"
    done = subprocess.run(
        re.sub(r"\bireu ", f"{ireu} ", after_install),
        shell=True,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    verdict = re.search(r"^(PASS|FAIL|INCONCLUSIVE)\b", done.stderr, re.MULTILINE)
    assert verdict, done.stderr
    assert done.returncode == {"PASS": 0, "FAIL": 4, "INCONCLUSIVE": 5}[verdict[1]], done.stderr
    demo = tmp_path / "demo"
    exported = (demo / "encoder-unlearned" / "model.safetensors").exists()
    assert exported == (verdict[1] == "PASS")
    assert re.search(r"data:image/(png|jpeg)", (demo / "report" / "report.html").read_text())
    figures = json.loads((demo / "report" / "report.json").read_text())["figures"]
    found = {
        (figure["generator"], figure["state"]): figure["value"]
        for figure in figures
        if figure["name"] == "face_found" and figure["role"] == "retained"
    }
    assert min(found["A", "original"], found["B", "original"]) > 0.6
    if not exported:
        assert run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", cwd=demo).code == 0


def test_the_second_command_of_the_readme_is_what_ci_runs() -> None:
    command = blocks(ROOT / "README.md", "bash")[1].strip()
    assert (ROOT / ".ci" / "run").read_text().strip().endswith("\n" + command)


def test_the_shell_script_of_the_docs_runs(fresh: Path) -> None:
    script = blocks(ROOT / "docs" / "pipeline.md", "bash")[0]
    for name in ("mask.pt", "delta.safetensors", "mask.pt.json", "delta.safetensors.json"):
        (fresh / name).unlink()
    shutil.rmtree(fresh / "report")
    shutil.rmtree(fresh / "encoder-unlearned")
    settings = (fresh / "ireu.toml").read_text() + f"steps = {20}\n"
    (fresh / "ireu.toml").write_text(settings)
    script = re.sub(r"\bireu (locate|unlearn|verify|export)", rf"{sys.executable} -m ireu_cli \1", script)
    # jq is not needed to try the script: a stand-in reads the one field.
    read = f"{sys.executable} -c \"import json; print(json.load(open('outcome.json'))['report']['reason'])\""
    script = script.replace("jq -r .report.reason outcome.json", read)
    done = subprocess.run(["bash", "-c", script], cwd=fresh, capture_output=True, text=True, check=False)
    assert done.returncode == 4, done.stderr
    assert "Limits were missed" in done.stdout


@pytest.mark.parametrize("name", ["commands", "systems"])
def test_generated_pages_are_up_to_date(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import update_docs; print(update_docs.{name}_page(), end='')"],
        cwd=ROOT / "scripts", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert (ROOT / "docs" / f"{name}.md").read_text() == done.stdout, "run: python scripts/update_docs.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_flags_and_keys_exist(page: Path) -> None:
    text = page.read_text()
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", text):
        there = page.parent / target if target else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), f"{target}#{anchor} in {page.name}"
    help_ = "".join(
        run_ireu(command, "--help").out for command in ("inspect", "locate", "unlearn", "verify", "export", "samples")
    )
    for line in re.findall(r"`(ireu [^`]*)`", text) + [
        line for block in blocks(page, "bash") for line in block.splitlines()
    ]:
        ours = re.search(r"\bireu (inspect|locate|unlearn|verify|export|samples)\b", line)
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line if ours else ""):
            assert flag in help_ or flag in {"--version", "--help"}, f"{flag} in {page.name}"
    keys = set(schema_keys())
    sections = {key.split(".")[0] for key in keys if "." in key}
    for section, key in re.findall(r"`(" + "|".join(sections) + r")\.([a-z_0-9]+)", text):
        assert f"{section}.{key}" in keys, f"{section}.{key} in {page.name}"


def test_every_figure_and_threshold_is_documented() -> None:
    text = (ROOT / "docs" / "verify.md").read_text()
    every = DEFINITIONS | PICTURE_DEFINITIONS | ATTACK_DEFINITIONS | GATE_DEFINITIONS | QUALITY_DEFINITIONS
    for name in every:
        assert f"`{name}`" in text, name
    for name in known_attacks():
        family = name.rstrip("0123456789.").rstrip("-")
        assert f"`{name}`" in text or any(f"`{family[:n]}-*`" in text for n in range(2, len(family) + 1)), name
    for key in VerifyParams.model_fields:
        if key.startswith(("max_", "min_", "require_")):
            assert f"verify.{key}" in text, key


def test_the_glossary_has_the_words_of_the_tool_and_pages_lead_to_it() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text()
    terms = " ".join(re.findall(r"^\| \*\*(.+?)\*\* \|", glossary, re.MULTILINE))
    listed = re.search(r"glossary\.md\):(.+?)\.", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    assert listed
    words = [word.strip() for word in listed[1].split(",")]
    assert len(words) > 10
    assert [word for word in words if word not in terms] == []
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"glossary.md", "commands.md"}
    assert [name for name in sorted(pages) if "glossary.md" not in (ROOT / "docs" / name).read_text()] == []


def test_every_layout_is_documented() -> None:
    """Those in which an encoder is met are read, and all are written."""
    page = (ROOT / "docs" / "encoders.md").read_text()
    for title, names in (
        (
            "## What is read",
            [name for name in layout_names() if not layout_named(name).inside and not layout_named(name).is_gate],
        ),
        ("## What is written", layout_names()),
    ):
        rows = page.partition(title)[2].partition("\n\n- ")[0].partition("\nSigLIP has")[0].splitlines()
        told = [
            name for row in rows if row.startswith("| `") for name in re.findall(r"`([a-z][a-z-]*)`", row.split("|")[1])
        ]
        assert sorted(told) == sorted(names), title
