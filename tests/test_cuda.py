"""The four commands on a GPU end as on a CPU, within bounds. Without a GPU, only the comparison itself is tried."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from tests.conftest import run_ireu

MASK, DELTA, ENCODER, FIGURE = 0.02, 0.02, 2e-3, 0.03
"""Bounds.

The share of a mask's features that may differ; how far the changes of all weights may be apart, over their length;
the same for the weights of the export; how far a figure may be from the other, as such or over its size.
"""
SPREADS = frozenset({"low", "high"})
"""Bounds of figures that are not compared: they jump where a photo passes a threshold."""
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def run_all(folder: Path, method: str, *more: str) -> None:
    """The four commands."""
    for command in (
        ("locate",),
        ("unlearn", "--mask", "mask.pt", "--method", method, *(("--steps", "20") if method != "gated" else ())),
        ("verify", "--delta", "delta.safetensors"),
        ("export", "--delta", "delta.safetensors", "--allow-failed"),
    ):
        found = run_ireu(*command, "--quiet", *more, cwd=folder)
        assert found.code in {0, 4}, found.err


def apart(one: Path, other: Path) -> dict[str, float]:
    """How far two jobs' results are apart, in units of the bounds above."""
    masks = [torch.load(place / "mask.pt", weights_only=True)["mask"] for place in (one, other)]
    found = {"mask": float((masks[0] != masks[1]).float().mean()) / MASK}
    for name, bound in (("delta.safetensors", DELTA), ("encoder-unlearned/model.safetensors", ENCODER)):
        first, second = (safetensors.torch.load_file(place / name) for place in (one, other))
        assert sorted(first) == sorted(second)
        gap = sum(float((first[key].double() - second[key].double()).square().sum()) for key in first)
        size = sum(float(first[key].double().square().sum()) for key in first)
        found[name] = (gap / size) ** 0.5 / bound
    reports = [json.loads((place / "report/report.json").read_text()) for place in (one, other)]
    return found | figures_apart(*reports)


def figures_apart(one: dict[str, Any], other: dict[str, Any]) -> dict[str, float]:
    """The same for the figures of two reports, and for their verdicts."""

    def named(report: dict[str, Any]) -> dict[str, float | None]:
        rows = report["figures"]
        return {str([row[key] for key in row if key not in SPREADS | {"value"}]): row["value"] for row in rows}

    first, second = named(one), named(other)
    assert first.keys() == second.keys()
    found = {"outcome": 0.0 if one["outcome"] == other["outcome"] else 9.0}
    for name, value in first.items():
        beside = second[name]
        assert (value is None) == (beside is None), name
        if value is not None and beside is not None:
            found[name] = abs(value - beside) / max(1.0, abs(value)) / FIGURE
    return found


@needs_gpu
@pytest.mark.parametrize("method", ["gated", "ireu"])
def test_a_gpu_ends_as_a_cpu(samples: Path, tmp_path: Path, method: str) -> None:
    for device in ("cpu", "cuda"):
        shutil.copytree(samples, tmp_path / device)
        run_all(tmp_path / device, method, "--device", device)
    far = {name: times for name, times in apart(tmp_path / "cpu", tmp_path / "cuda").items() if times > 1}
    assert not far


@needs_gpu
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_runs_where_it_is_asked_for(samples: Path, tmp_path: Path, dtype: str) -> None:
    shutil.copytree(samples, tmp_path / "job")
    run_all(tmp_path / "job", "gated", "--device", "cuda", "--set", f"encoder.dtype={dtype}")
    report = json.loads((tmp_path / "job/report/report.json").read_text())
    assert report["provenance"]["plan"]["encoder"]["dtype"] == dtype


@needs_gpu
def test_pictures_of_a_gpu_are_those_of_a_cpu(portrait: Path) -> None:
    from ireu_cli.generators.generator import load_generators
    from tests.test_together import asked

    for place, one in enumerate(load_generators(str(portrait), None, "cpu")):
        there = load_generators(str(portrait), None, "cuda")[place]
        wanted = [asked(one, number) for number in range(4)]
        for mine, theirs in zip([one.draw_one(part) for part in wanted], there.draw_together(wanted), strict=True):
            assert int(abs(mine.astype(int) - theirs).max()) <= 3


def test_the_comparison_finds_a_figure_and_a_verdict_that_differ(job: Path) -> None:
    report = json.loads((job / "report/report.json").read_text())
    assert set(figures_apart(report, report).values()) == {0.0}
    other = copy.deepcopy(report)
    changed = next(row for row in other["figures"] if row["value"] is not None)
    changed["value"] += 0.05
    other["outcome"] = "another"
    assert sum(times > 1 for times in figures_apart(report, other).values()) == 2
    assert max(apart(job, job).values()) == 0
