"""Fixtures: drawn people, a tiny random encoder, one finished job, and the real data where it is at hand."""

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from ireu_cli.cli.app import main
from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.manifest import Manifest
from ireu_cli.params import EncoderParams
from ireu_cli.store.manifests import write_manifest
from ireu_cli.store.rundir import RunDir
from tests.drawn.folder import write_drawn

STEPS = "60"
"""Optimiser steps of the shared job: enough to change the encoder, few enough for a test."""
SHARED: set[Path] = set()
"""Folders that tests share."""


@dataclass(frozen=True)
class Run:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Ireu = Callable[..., Run]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("IREU_") and name != "IREU_DATA":
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")


def run_ireu(*arguments: object, cwd: Path | None = None) -> Run:
    """Run the command line in this process, as `main` does for the console script."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd or Path.cwd()), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Run(code, out.getvalue(), err.getvalue())


def copy_with_second_target(samples: Path, folder: Path) -> None:
    """Copy a job; somebody of `others` becomes a target of their own, in `more`."""
    shutil.copytree(samples, folder)
    second = sorted((folder / "others").iterdir())[-1]
    (folder / "more").mkdir()
    second.rename(folder / "more" / second.name)


def plant_manifest(path: Path, record: Manifest, outputs: list[Path]) -> Manifest:
    """Write a manifest as a run in that folder would have sealed it."""
    return write_manifest(path, record, outputs, seal=RunDir(path.parent / ".ireu").seal)


def manifest(folder: Path, name: str) -> dict[str, Any]:
    """What the manifest beside an artifact says."""
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole job on drawn people; tests must not change it."""
    folder = tmp_path_factory.mktemp("samples") / "demo"
    write_drawn(folder, 0)
    SHARED.add(folder)
    return folder


@pytest.fixture(scope="session")
def job(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished job (locate, unlearn, verify, export) with few steps; tests must not change it."""
    folder = tmp_path_factory.mktemp("job") / "demo"
    shutil.copytree(samples, folder)
    assert run_ireu("locate", cwd=folder).code == 0
    assert run_ireu("unlearn", "--mask", "mask.pt", "--steps", STEPS, cwd=folder).code == 0
    assert run_ireu("verify", "--delta", "delta.safetensors", cwd=folder).code in {0, 4}
    assert run_ireu("export", "--delta", "delta.safetensors", "--allow-failed", cwd=folder).code == 0
    SHARED.add(folder)
    return folder


@pytest.fixture(autouse=True)
def _shared_folders_stay(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that changes a folder that others share fails itself, and not those that come after it."""
    named = [request.getfixturevalue(name) for name in ("samples", "job") if name in request.fixturenames]
    # A class may have a job of its own under that name.
    shared = [folder for folder in named if folder in SHARED]
    before = [_stamps(folder) for folder in shared]
    yield
    assert [_stamps(folder) for folder in shared] == before, "a folder that tests share has changed; copy it first"


def _stamps(folder: Path) -> dict[str, int | None]:
    """When each file below a folder was written; folders have a name alone.

    What lies in a run folder may change: also a step that is done already writes there.
    """
    every = (path for path in folder.rglob("*") if ".ireu" not in path.relative_to(folder).parts[:-1])
    return {str(path): None if path.is_dir() else path.stat().st_mtime_ns for path in every}


@pytest.fixture
def fresh(job: Path, tmp_path: Path) -> Path:
    """A copy of the finished job that a test may change."""
    folder = tmp_path / "demo"
    shutil.copytree(job, folder)
    return folder


def tiny_model(seed: int = 0, layers: int = 3) -> Any:
    """A random `CLIPVisionModelWithProjection`: 16 wide, 16 px, 5 tokens."""
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=2,
        patch_size=8,
        image_size=16,
        projection_dim=12,
        hidden_act="gelu",
    )
    return CLIPVisionModelWithProjection(config).eval()


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """A tiny encoder on disk, without a preprocessor config."""
    folder = tmp_path / "tiny"
    tiny_model().save_pretrained(folder)
    return folder


@pytest.fixture
def tiny(tiny_folder: Path) -> Encoder:
    """A tiny encoder, loaded."""
    return load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")


@pytest.fixture(scope="session")
def portrait(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random portrait bundle on disk; tests must not change it."""
    from tests.tiny_portrait import write_tiny_portrait

    return write_tiny_portrait(tmp_path_factory.mktemp("portrait"))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real faces and models; tests that need it skip without it."""
    found = os.environ.get("IREU_DATA")
    if not found:
        pytest.skip("IREU_DATA is not set: no real faces and models to test on")
    return Path(found)
