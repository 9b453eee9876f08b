"""An export says of its verification what the report says, and a failed edit is not exported unasked."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ireu_cli.store.manifests import read_manifest, write_manifest
from ireu_cli.store.rundir import RunDir
from tests.conftest import Run, run_ireu


@pytest.fixture
def weak(fresh: Path) -> Path:
    """A job whose report fails, and nothing exported yet."""
    shutil.rmtree(fresh / "encoder-unlearned")
    assert json.loads((fresh / "report" / "report.json").read_text())["outcome"] == "fail"
    return fresh


def export(folder: Path, *more: object) -> Run:
    return run_ireu("export", "--delta", "delta.safetensors", "-o", "out", *more, cwd=folder)


def rewritten(folder: Path, **changes: Any) -> None:
    """The report as a run in this folder would have written it, with another outcome."""
    place = folder / "report"
    plain = json.loads((place / "report.json").read_text()) | changes
    (place / "report.json").write_text(json.dumps(plain))
    record = read_manifest_unchecked(place / "manifest.json")
    plant_sealed(folder, place, record)


def read_manifest_unchecked(path: Path) -> Any:
    from ireu_cli.manifest import parse_manifest

    return parse_manifest(path.read_bytes(), path.name)


def plant_sealed(folder: Path, place: Path, record: Any) -> None:
    outputs = [place / one.name for one in record.outputs]
    write_manifest(place / "manifest.json", record, outputs, seal=RunDir(folder / ".ireu").seal)


def told(folder: Path) -> tuple[Any, str]:
    """What manifest and card of the export say."""
    return json.loads((folder / "out" / "ireu.json").read_text())["metrics"], (folder / "out" / "README.md").read_text()


@pytest.mark.parametrize("named", [(), ("--report", "report"), ("--report", "report/report.json")])
def test_a_failed_edit_is_not_exported(weak: Path, named: tuple[str, ...]) -> None:
    found = export(weak, *named)
    assert found.code == 3
    assert "The verification of this delta failed. Limits were missed: match_seen" in found.err
    assert "--allow-failed" in found.err
    assert not (weak / "out").exists()


def test_a_failed_edit_that_is_wanted_says_so(weak: Path) -> None:
    found = export(weak, "--allow-failed", "--json")
    assert found.code == 0, found.err
    metrics, card = told(weak)
    report = json.loads((weak / "report" / "report.json").read_text())
    assert metrics["verification"] == found.json["metrics"]["verification"]
    assert metrics["verification"]["outcome"] == "fail"
    assert metrics["verification"]["standing"] == report["standing"]
    assert metrics["verification"]["report"] == read_manifest(weak / "report" / "manifest.json").digest
    assert f"**{report['standing']}**" in card
    assert f"verification of this delta: {report['standing']}" in found.err


def test_report_card_and_record_have_one_set_of_numbers(weak: Path) -> None:
    assert export(weak, "--allow-failed", "--set", "record.recipients=somebody").code == 0
    theirs = json.loads((weak / "report" / "report.json").read_text())["record"]
    own = told(weak)[0]["record"]
    assert own["recipients"] == ["somebody"]
    assert theirs["attacks_tried"]
    assert {k: v for k, v in own.items() if k != "recipients"} == {k: v for k, v in theirs.items() if k != "recipients"}


@pytest.mark.parametrize("outcome", ["pass", "inconclusive"])
def test_other_outcomes_are_stated(weak: Path, outcome: str) -> None:
    rewritten(weak, outcome=outcome, standing=f"{outcome} on features alone")
    found = export(weak, "--allow-failed")
    assert found.code == 0, found.err
    metrics, card = told(weak)
    assert metrics["verification"]["outcome"] == outcome
    assert f"**{outcome} on features alone**" in card


def test_what_a_verdict_leaves_out_goes_along(weak: Path) -> None:
    """Whoever is given the export alone sees what was asked of the edit."""
    departures = [
        {"key": key, "value": 1, "default": 0, "source": "flag", "effect": effect}
        for key, effect in (("verify.max_match_seen", "weaker"), ("pictures.people", "stronger"))
    ]
    rewritten(weak, gaps=["pictures", "default limits"], departures=departures)
    assert export(weak, "--allow-failed").code == 0
    verification = told(weak)[0]["verification"]
    assert verification["gaps"] == ["pictures", "default limits"]
    assert verification["weaker_settings"] == ["verify.max_match_seen"]


def test_an_edit_that_fails_as_it_was_written_is_refused_too(weak: Path) -> None:
    """The report passes, the written weights do not."""
    rewritten(weak, outcome="pass", standing="passed on features alone")
    found = export(weak)
    assert found.code == 3
    assert "failed when it was verified again" in found.err
    assert not (weak / "out").exists()


def test_without_a_report_it_is_called_unverified(weak: Path) -> None:
    shutil.rmtree(weak / "report")
    found = export(weak, "--allow-failed")
    assert found.code == 0, found.err
    metrics, card = told(weak)
    assert metrics["verification"] is None
    assert "**not verified**" in card
    assert "has no report of this delta; `ireu verify` makes one" in found.err
    assert "report of `ireu verify` on this edit says" not in card


@pytest.mark.parametrize("what", ["delta", "step", "seal", "damage", "content"])
def test_a_report_of_something_else_is_no_report(weak: Path, what: str) -> None:
    rewritten(weak, outcome="pass", standing="passed")
    place = weak / "report"
    record = read_manifest(place / "manifest.json")
    if what == "delta":
        plant_sealed(weak, place, record.model_copy(update={"parent": "0" * 64}))
    elif what == "step":
        # An export's record is sealed too and has the same parent, but what lies beside it is no report of its own.
        plant_sealed(weak, place, record.model_copy(update={"step": "export"}))
    elif what == "seal":
        write_manifest(place / "manifest.json", record, [place / one.name for one in record.outputs])
    elif what == "content":
        (place / "report.json").write_text("{}")
        plant_sealed(weak, place, record)
    else:
        (place / "report.json").write_text("{}")
    found = export(weak, "--allow-failed")
    assert found.code == 0, found.err
    assert "not verified, as far as ireu can tell" in found.err
    assert told(weak)[0]["verification"] is None
    shutil.rmtree(weak / "out")
    assert export(weak, "--allow-failed", "--report", "report").code == 3
    assert not (weak / "out").exists()


def test_a_failure_counts_whoever_wrote_it(weak: Path) -> None:
    place = weak / "report"
    # The run folder remembers its own runs by their digests, and not this one.
    record = read_manifest(place / "manifest.json").model_copy(update={"tool_version": "0"})
    write_manifest(place / "manifest.json", record, [place / one.name for one in record.outputs])
    assert not RunDir(weak / ".ireu").vouches(read_manifest(place / "manifest.json"))
    found = export(weak)
    assert found.code == 3
    # Not only what was written fails, which is verified again on features alone.
    assert "The verification of this delta failed" in found.err


def test_of_a_failure_that_somebody_else_wrote_nothing_else_is_believed(weak: Path) -> None:
    place = weak / "report"
    plain = json.loads((place / "report.json").read_text())
    plain |= {"standing": "passed", "gaps": [], "departures": []}
    plain["record"] |= {"approved_by": "an authority", "attacks_tried": ["everything"]}
    (place / "report.json").write_text(json.dumps(plain))
    record = read_manifest_unchecked(place / "manifest.json")
    write_manifest(place / "manifest.json", record, [place / one.name for one in record.outputs])
    found = export(weak, "--allow-failed")
    assert found.code == 0, found.err
    metrics, card = told(weak)
    assert metrics["verification"]["outcome"] == "fail"
    assert metrics["verification"]["standing"] == "fail, by a report that another run folder made"
    assert "**fail, by a report that another run folder made**" in card
    assert "passed" not in json.dumps(metrics["verification"]) + card + found.err
    assert metrics["record"]["approved_by"] is None
    assert metrics["record"]["attacks_tried"] == []


def test_an_export_before_its_verification_is_not_complete_after_it(weak: Path) -> None:
    shutil.move(weak / "report", weak / "later")
    assert export(weak, "--allow-failed").code == 0
    assert "already complete" in export(weak, "--allow-failed").err
    shutil.move(weak / "later", weak / "report")
    found = export(weak, "--allow-failed")
    assert found.code == 3
    assert "--force" in found.err
    assert export(weak, "--allow-failed", "--force").code == 0
    assert told(weak)[0]["verification"]["outcome"] == "fail"
