"""The erasure record: what the operator states comes through, what the tool knows is computed, nothing is invented."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from ireu_cli.config import load_config
from ireu_cli.errors import ConfigError
from ireu_cli.params import RecordParams
from ireu_cli.report import ErasureRecord
from ireu_cli.values import WeightDelta
from ireu_cli.verifying.reporting.erasure_record import LIMITS, erasure_record

OPERATOR = {
    "case_id": "2026-0117",
    "request_date": "2026-01-12",
    "legal_basis": "GDPR Art. 17(1)(c)",
    "requester_verified_by": "video call",
    "photos_deleted_by": "2026-03-01",
    "encoder_source": "a vendor",
    "encoder_licence": "Apache-2.0",
    "approved_by": "data protection",
    "recipients": ("portraits", "passports"),
    "supersedes": "2025-0003",
    "superseded_by": "2026-0200",
}
TOOL: dict[str, Any] = {
    "people": 2,
    "photos_supplied": 9,
    "photos_used": 7,
    "systems_covered": ["A"],
    "systems_missed": ["B"],
    "attacks_tried": ["noise"],
    "limits": LIMITS,
}
DELTA = WeightDelta({"z": torch.tensor([[3.0, 0.0]]), "a": torch.tensor([4.0]), "same": torch.zeros(5)})


def record(params: RecordParams, delta: WeightDelta = DELTA, revision: str | None = None) -> ErasureRecord:
    return erasure_record(params, revision=revision, delta=delta, **TOOL)


def test_all_that_is_stated_comes_through() -> None:
    found = record(RecordParams.model_validate(OPERATOR), revision="abc").model_dump()
    assert set(OPERATOR) == set(RecordParams.model_fields)
    for name, value in OPERATOR.items():
        assert found.pop(name) == value
    assert found.pop("encoder_revision") == "abc"
    assert found.pop("edited_tensors") == ("a", "z")
    assert found.pop("edit_norm") == 5
    assert found == {name: tuple(value) if isinstance(value, list) else value for name, value in TOOL.items()}


def test_nothing_is_invented() -> None:
    found = record(RecordParams()).model_dump()
    for name in OPERATOR:
        assert found[name] == (() if name == "recipients" else None)
    assert found["encoder_revision"] is None


def test_the_norm_is_of_all_tensors_to_six_digits() -> None:
    delta = WeightDelta({str(i): torch.full((1000,), 1e-3 + i * 1e-9, dtype=torch.float32) for i in range(50)})
    exact = math.sqrt(math.fsum(float(v) ** 2 for tensor in delta.tensors.values() for v in tensor))
    assert record(RecordParams(), delta).edit_norm == float(f"{exact:.6g}")
    # In float32 its square overflows.
    huge = WeightDelta({"w": torch.tensor([3e38, 3e38])})
    assert record(RecordParams(), huge).edit_norm == pytest.approx(math.sqrt(2) * 3e38, rel=1e-6)


def test_a_delta_that_changes_nothing() -> None:
    found = record(RecordParams(), WeightDelta({"a": torch.zeros(3)}))
    assert (found.edited_tensors, found.edit_norm) == ((), 0)
    assert record(RecordParams(), WeightDelta({})).edit_norm == 0


def test_limits_are_stated_without_being_asked_for() -> None:
    tool = {name: value for name, value in TOOL.items() if name != "limits"}
    found = erasure_record(RecordParams(), revision=None, delta=DELTA, **tool)
    assert found.limits == LIMITS
    assert len(set(LIMITS)) == len(LIMITS)
    every = " ".join(LIMITS)
    for word in (
        "Copies of the original",
        "computed with it before",
        "Text prompts alone",
        "training data",
        "another tap",
    ):
        assert word in every
    assert all(limit.endswith(".") for limit in LIMITS)


@pytest.mark.parametrize("key", ["request_date", "photos_deleted_by"])
@pytest.mark.parametrize(
    "value", ["12.01.2026", "2026-13-01", "2026-02-30", "20260112", "2026-W03-1", "2026-01-12T10:00", "soon", 20260112]
)
def test_dates_are_dates(key: str, value: object) -> None:
    with pytest.raises(ValidationError):
        RecordParams.model_validate({key: value})


def test_a_bad_date_is_a_mistake_in_the_configuration(tmp_path: Path) -> None:
    file = tmp_path / "ireu.toml"
    file.write_text('[record]\nrequest_date = "last week"\ncase_id = 7\n')
    with pytest.raises(ConfigError) as error:
        load_config(file, {}, {})
    assert "record.request_date (file): must be a date as YYYY-MM-DD" in str(error.value)
    assert "record.case_id (file)" in str(error.value)


def test_dates_of_toml_and_of_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "ireu.toml"
    file.write_text('[record]\nrequest_date = 2026-01-12\ncase_id = " "\napproved_by = ""\nrecipients = ["a"]\n')
    found = load_config(file, {"IREU_RECORD__PHOTOS_DELETED_BY": "2026-03-01"}, {}).config.record
    assert found.request_date == "2026-01-12"
    assert found.photos_deleted_by == "2026-03-01"
    assert found.case_id is None
    assert found.approved_by is None
    assert found.recipients == ("a",)
    file.write_text("[record]\nrequest_date = 2026-01-12T10:00:00\n")
    with pytest.raises(ConfigError, match=r"record\.request_date"):
        load_config(file, {}, {})
