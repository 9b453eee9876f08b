"""`ireu batch`: many requests through all four steps, from night to night."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ireu_cli.batching import run as batching
from ireu_cli.batching.requests_in import Request, read_batch
from ireu_cli.batching.run import Batch
from ireu_cli.cli.batch import _code
from ireu_cli.errors import ConfigError, UserError
from ireu_cli.store.manifests import read_manifest
from tests.conftest import Run, run_ireu

FEW = ("--set", "gated.people=5", "--set", "attacks.suite=none", "-o", "out", "--json")
BAD = "2026-004"


def batch(folder: Path, *more: str, requests: str = "requests") -> tuple[Run, Any]:
    done = run_ireu("batch", requests, *FEW, *more, cwd=folder)
    return done, json.loads(done.out)


def states(told: Any) -> dict[str, str]:
    return {case: one["state"] for case, one in told["cases"].items()}


def cases_of(delta: Path) -> set[str]:
    return set(read_manifest(delta.with_name(f"{delta.name}.json")).metrics["requests"])


def put_requests(folder: Path) -> None:
    """A job with four cases, one of which has a photo that nobody can read."""
    requests = folder / "requests"
    requests.mkdir()
    shutil.move(next((folder / "faces").iterdir()), requests / "2026-001")
    for number, person in enumerate(sorted((folder / "others").iterdir())[-2:], 2):
        shutil.move(person, requests / f"2026-{number:03}")
    (requests / BAD).mkdir()
    (requests / BAD / "1.png").write_bytes(b"no picture")


@pytest.fixture(scope="module")
def first(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Run]:
    """The first night; tests must not change it."""
    folder = tmp_path_factory.mktemp("batch") / "demo"
    shutil.copytree(samples, folder)
    put_requests(folder)
    return folder, batch(folder)[0]


@pytest.fixture
def night(first: tuple[Path, Run], tmp_path: Path) -> Path:
    return Path(shutil.copytree(first[0], tmp_path / "demo", symlinks=True))


def test_a_case_that_fails_stops_no_other(first: tuple[Path, Run]) -> None:
    folder, done = first
    told = json.loads(done.out)
    assert states(told) == {"2026-001": "done", "2026-002": "done", "2026-003": "done", BAD: "failed"}
    assert "is not a picture" in told["cases"][BAD]["why"]
    assert told["failed"] == 1
    assert cases_of(folder / told["delta"]) == {"2026-001", "2026-002", "2026-003"}
    report = json.loads((folder / "out" / "report" / "report.json").read_text())
    assert report["outcome"] == told["verification"]
    assert report["record"]["people"] == 3
    # Drawn people are found too seldom, so nothing is exported.
    assert (told["verification"], told["export"], done.code) == ("fail", None, 4)


def test_a_second_time_changes_nothing(night: Path) -> None:
    def files() -> dict[str, bytes]:
        every = (night / "out").rglob("*")
        return {str(path): path.read_bytes() for path in every if path.is_file() and not path.is_symlink()}

    before = files()
    done, told = batch(night)
    assert states(told) == dict.fromkeys(("2026-001", "2026-002", "2026-003"), "already done") | {BAD: "failed"}
    assert done.code == 4
    assert files() == before


def test_the_next_night_adds_and_withdraws(night: Path) -> None:
    """Photos of the first case are gone by then, and a case that failed comes with better ones."""
    requests = night / "requests"
    shutil.rmtree(requests / "2026-001")
    shutil.rmtree(requests / BAD)
    shutil.move(sorted((night / "others").iterdir())[-1], requests / BAD)
    (requests / "cases.csv").write_text(
        "case_id,photos,action,request_date\n2026-001,,withdraw,\n2026-009,,withdraw,\n"
        f"2026-003,2026-003,,2026-01-02\n{BAD},{BAD},remove,2026-02-03\n"
    )
    done, told = batch(night, "--allow-failed")
    assert states(told) == {
        "2026-001": "done", "2026-009": "already done", "2026-003": "already done", BAD: "done",
    }  # fmt: skip
    assert cases_of(night / told["delta"]) == {"2026-002", "2026-003", BAD}
    assert Path(told["delta"]).name == "0005.safetensors"
    entries = [json.loads(line) for line in (night / ".ireu" / "register.jsonl").read_text().splitlines()]
    asked = {one["cases"][0]: one["request_date"] for one in entries if one["what"] == "request"}
    assert asked[BAD] == "2026-02-03"
    record = read_manifest(night / told["export"] / "ireu.json")
    assert set(record.metrics["cases"]) == {"2026-002", "2026-003", BAD}
    # Whoever locating used and nobody removes any more does not count; of those removed, two can be verified.
    report = json.loads((night / "out" / "report" / "report.json").read_text())
    assert (report["record"]["people"], report["record"]["photos_used"]) == (3, 15)
    assert any("2026-002" in words for words in report["not_measured"])
    assert done.code in {4, 5}
    again, told = batch(night, "--allow-failed")
    assert set(states(told).values()) == {"already done"}
    assert again.code == done.code


def test_withdrawing_everybody_leaves_nothing_to_verify(night: Path) -> None:
    (night / "gone.csv").write_text("case_id,action\n2026-001,withdraw\n2026-002,withdraw\n2026-003,withdraw\n")
    done, told = batch(night, requests="gone.csv")
    assert states(told) == dict.fromkeys(("2026-001", "2026-002", "2026-003"), "done")
    assert cases_of(night / told["delta"]) == set()
    assert "nothing can be verified" in told["why"]
    assert (told["verification"], told["export"], done.code) == (None, None, 3)


def test_a_batch_that_was_stopped_goes_on(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(samples, folder)
    put_requests(folder)
    own, asked = batching.run_unlearn, []  # type: ignore[attr-defined]

    def stopped(*arguments: Any, **more: Any) -> Any:
        asked.append(arguments)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return own(*arguments, **more)

    monkeypatch.setattr(batching, "run_unlearn", stopped)
    assert run_ireu("batch", "requests", *FEW, cwd=folder).code == 130
    assert [path.name for path in (folder / "out" / "deltas").glob("*.safetensors")] == ["0001.safetensors"]
    _, told = batch(folder)
    assert states(told) == {
        "2026-001": "already done", "2026-002": "done", "2026-003": "done", BAD: "failed",
    }  # fmt: skip


def test_a_batch_without_a_good_case_has_no_result(samples: Path, tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(samples, folder)
    for case in ("a", "b"):
        (folder / "requests" / case).mkdir(parents=True)
        (folder / "requests" / case / "1.png").write_bytes(b"no picture")
    done, told = batch(folder)
    assert states(told) == {"a": "failed", "b": "failed"}
    assert (told["delta"], told["export"], done.code) == (None, None, 3)


def test_settings_that_cannot_be_used_are_said_once(night: Path) -> None:
    found = run_ireu("batch", "requests", *FEW, "--set", "gated.false_alarms=7", cwd=night)
    assert (found.code, "gated.false_alarms" in found.err) == (3, True)
    assert "case 1" not in found.err


@pytest.mark.parametrize(
    ("outcome", "failed", "why", "export", "code"),
    [
        ("pass", 0, None, "e", 0),
        ("pass", 1, None, "e", 3),
        ("pass", 0, "no room on the disk", None, 3),
        ("fail", 1, None, None, 4),
        ("inconclusive", 0, None, None, 5),
        ("inconclusive", 1, None, None, 3),
        (None, 0, "cannot be verified", None, 3),
    ],
)
def test_the_exit_code_says_the_worst(
    outcome: str | None, failed: int, why: str | None, export: str | None, code: int
) -> None:
    cases: dict[str, dict[str, Any]] = {str(number): {"state": "failed"} for number in range(failed)}
    place = None if export is None else Path(export)
    assert _code(Batch(cases | {"x": {"state": "done"}}, Path("d"), outcome, place, why)) == code


class TestRequests:
    def test_folders_are_cases(self, tmp_path: Path) -> None:
        for name in ("b", "a", ".hidden"):
            (tmp_path / name).mkdir()
        assert read_batch(tmp_path) == [Request("a", photos=tmp_path / "a"), Request("b", photos=tmp_path / "b")]

    def test_a_table_of_any_name(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(
            b'\xef\xbb\xbfcase_id, photos ,legal_basis\r\n"7, again",p/7,GDPR Art. 17\r\n\r\n8,p/8,\r\n'
        )
        assert read_batch(tmp_path / "t.csv") == [
            Request("7, again", photos=tmp_path / "p/7", record={"legal_basis": "GDPR Art. 17"}),
            Request("8", photos=tmp_path / "p/8"),
        ]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("photos\nx\n", "no good head line"),
            ("case_id,case_id\na,b\n", "no good head line"),
            ("case_id,name\na,b\n", "unknown column name"),
            ("case_id,photos\na,p\na,q\n", "the case a is there twice"),
            ("case_id,photos\na\n", "line 2: it has another number of cells"),
            ("case_id,photos\n,p\n", "line 2: the case '' is empty"),
            ("case_id,photos\na\x1b[2J,p\n", "does not print"),
            ("case_id,photos\na,../p\n", "line 2: the path of the photos"),
            ("case_id,photos\na,/etc\n", "leads out of its folder"),
            ("case_id,photos\na,\n", "line 2: it names no photos"),
            ("case_id,action\na,forget\n", "the action forget is unknown"),
            ('case_id,photos\n"a,p\n', "cannot be read as a table"),
            ("case_id,photos\nü,p\n".encode("latin-1"), "cannot be read as a table"),
        ],
    )
    def test_mistakes_are_named(self, text: str | bytes, words: str, tmp_path: Path) -> None:
        table = tmp_path / "cases.csv"
        table.write_bytes(text if isinstance(text, bytes) else text.encode())
        with pytest.raises(ConfigError) as caught:
            read_batch(tmp_path)
        assert words in str(caught.value)
        assert str(caught.value).isprintable()

    def test_all_mistakes_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "cases.csv").write_text("case_id,photos\n" + "".join(f"{n},../x\n" for n in range(12)))
        with pytest.raises(ConfigError, match=r"line 2: .*line 11: .*; and 2 more"):
            read_batch(tmp_path)

    def test_nothing_is_no_batch(self, tmp_path: Path) -> None:
        for place in (tmp_path, tmp_path / "none"):
            with pytest.raises(UserError):
                read_batch(place)

    def test_photos_behind_a_link_that_leads_out(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "p").symlink_to(tmp_path)
        (tmp_path / "in" / "cases.csv").write_text("case_id,photos\na,p\n")
        with pytest.raises(ConfigError, match="leads out"):
            read_batch(tmp_path / "in")
