"""`ireu batch`: many requests through all four steps, from night to night."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from ireu_cli.batching import run as batching
from ireu_cli.batching.chain import Chain
from ireu_cli.batching.requests_in import Request, read_batch
from ireu_cli.batching.run import Batch
from ireu_cli.cli.batch import _code
from ireu_cli.errors import ConfigError, UserError
from ireu_cli.store.manifests import read_manifest
from tests.conftest import Run, plant_manifest, run_ireu

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
        f"2026-002,gone,,\n2026-003,2026-003,,2026-01-02\n{BAD},{BAD},remove,2026-02-03\n"
    )
    done, told = batch(night, "--allow-failed")
    assert states(told) == {
        "2026-001": "done", "2026-009": "failed", "2026-002": "already done", "2026-003": "already done", BAD: "done",
    }  # fmt: skip
    assert "no such case" in told["cases"]["2026-009"]["why"]
    assert told["passed_over"] == 1
    assert told["people"] == ["2026-003", BAD]
    assert cases_of(night / told["delta"]) == {"2026-002", "2026-003", BAD}
    assert Path(told["delta"]).name == "0005.safetensors"
    entries = [json.loads(line) for line in (night / ".ireu" / "register.jsonl").read_text().splitlines()]
    asked = {one["cases"][0]: one["request_date"] for one in entries if one["what"] == "request"}
    assert asked[BAD] == "2026-02-03"
    record = read_manifest(night / told["export"] / "ireu.json")
    assert set(record.metrics["cases"]) == {"2026-002", "2026-003", BAD}
    # The export is verified in its own dtype, on the people at hand.
    assert record.metrics["verified_again"] is not None
    # Whoever locating used and nobody removes any more does not count; of those removed, two can be verified.
    report = json.loads((night / "out" / "report" / "report.json").read_text())
    assert (report["record"]["people"], report["record"]["photos_used"]) == (3, 15)
    assert any("2026-002" in words for words in report["not_measured"])
    # A withdrawal of nobody is a mistake that has to be seen.
    assert done.code in {3, 4}
    (requests / "cases.csv").write_text((requests / "cases.csv").read_text().replace("2026-009,,withdraw,\n", ""))
    again, told = batch(night, "--allow-failed")
    assert set(states(told).values()) == {"already done"}
    assert again.code in {4, 5}
    # Without its table, the folder of a withdrawn case would be a request again.
    (requests / "cases.csv").unlink()
    lost = run_ireu("batch", "requests", *FEW, cwd=night)
    assert (lost.code, "would be removed again" in lost.err) == (3, True)


def test_photos_that_go_away_stop_nobody(night: Path) -> None:
    """A folder that was emptied, one that holds its photos one level down, and one that came back without links."""
    requests = night / "requests"
    shutil.rmtree(requests / BAD)
    for photo in (requests / "2026-001").iterdir():
        photo.unlink()
    (requests / "2026-003" / "deeper").mkdir()
    for photo in (requests / "2026-003").glob("*.png"):
        photo.rename(requests / "2026-003" / "deeper" / photo.name)
    done, told = batch(night)
    assert set(states(told).values()) == {"already done"}
    assert told["people"] == ["2026-002", "2026-003"]
    assert (told["verification"] is None) is False, done.err
    # A setting of a later step may change from night to night.
    _, told = batch(night, "--set", "verify.bootstrap=150")
    assert told["verification"] is not None
    shutil.rmtree(night / "out" / "people")
    (night / "out" / "people" / "2026-002").mkdir(parents=True)
    done, told = batch(night)
    assert "did not put there" in told["why"]
    assert (night / "out" / "people" / "2026-002").is_dir()


def test_after_ten_thousand_comes_ten_thousand_and_one(night: Path) -> None:
    deltas = night / "out" / "deltas"
    for old, new in (("0003", "10000"), ("0002", "9999"), ("0001", "base")):
        record = read_manifest(deltas / f"{old}.safetensors.json").model_copy(update={"outputs": ()})
        shutil.copy(deltas / f"{old}.safetensors", deltas / f"{new}.safetensors")
        plant_manifest(deltas / f"{new}.safetensors.json", record, [deltas / f"{new}.safetensors"])
    chain = Chain(deltas, None)
    assert chain.cases == {"2026-001", "2026-002", "2026-003"}
    assert chain.next.name == "10001.safetensors"
    assert Chain(night / "out", deltas / "base.safetensors").next.name == "0001.safetensors"


def test_what_the_register_missed_is_added(night: Path) -> None:
    """A run was killed between a delta and its entry."""
    register = night / ".ireu" / "register.jsonl"
    asked = [json.loads(line) for line in register.read_text().splitlines() if json.loads(line)["what"] == "request"]
    for path in (register, register.with_name("register.jsonl.head")):
        path.unlink()
    batch(night)
    again = [json.loads(line) for line in register.read_text().splitlines() if json.loads(line)["what"] == "request"]
    assert [one["cases"] for one in again] == [asked[-1]["cases"]]
    batch(night)
    assert len([line for line in register.read_text().splitlines() if '"what":"request"' in line]) == 1


def test_a_case_that_is_written_counts_though_something_failed_afterwards(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "demo"
    shutil.copytree(samples, folder)
    put_requests(folder)
    own = batching.run_unlearn  # type: ignore[attr-defined]
    asked: list[Any] = []

    def failing(*arguments: Any, **more: Any) -> Any:
        asked.append(own(*arguments, **more) if len(asked) != 1 else None)
        if len(asked) == 1:
            raise PermissionError(13, "Permission denied", "/secret/Jane")
        if len(asked) == 2:
            raise RuntimeError("odd")
        return asked[-1]

    monkeypatch.setattr(batching, "run_unlearn", failing)
    done, told = batch(folder)
    assert states(told) == {"2026-001": "done", "2026-002": "failed", "2026-003": "done", BAD: "failed"}
    assert "Permission denied" in told["cases"]["2026-001"]["why"]
    assert "Jane" not in done.out + done.err
    assert "RuntimeError: odd" in told["cases"]["2026-002"]["why"]
    assert cases_of(folder / told["delta"]) == {"2026-001", "2026-003"}


def test_nothing_to_do_is_done(night: Path) -> None:
    (night / "none").mkdir()
    found = run_ireu("batch", "none", "-o", "new", "--json", cwd=night)
    assert (found.code, json.loads(found.out)["delta"]) == (0, None)
    batch(night, "--allow-failed")
    shutil.rmtree(night / "requests")
    (night / "requests").mkdir()
    done, told = batch(night)
    assert (done.code, told["cases"]) == (0, {})
    assert told["export"] == "out/encoder-unlearned"


def test_options_that_do_not_go_with_a_batch(night: Path) -> None:
    found = run_ireu("batch", "requests", "-o", "requests/out", cwd=night)
    assert (found.code, "among the requests" in found.err) == (2, True)
    found = run_ireu("batch", "requests", *FEW, "--set", "run.shard=1/2", cwd=night)
    assert (found.code, "no shards" in found.err) == (3, True)
    _, told = batch(night, "--set", "run.processes=2", "--onto", "out/deltas/0001.safetensors")
    assert cases_of(night / told["delta"]) == {"2026-001", "2026-002", "2026-003"}


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
    (folder / "requests" / "c ").mkdir()
    done, told = batch(folder)
    assert states(told) == {"a": "failed", "b": "failed", "c ": "failed"}
    assert "ends with a space" in told["cases"]["c "]["why"]
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
        (tmp_path / "@eaDir").mkdir()
        (tmp_path / "x.jpg").touch()
        found = read_batch(tmp_path)
        assert found.requests == [Request("a", photos=tmp_path / "a"), Request("b", photos=tmp_path / "b")]
        assert (found.in_table, found.passed_over) == (False, 1)

    def test_a_folder_with_a_bad_name_fails_alone(self, tmp_path: Path) -> None:
        for name in ("a\nb", "c ", os.fsdecode(b"M\xfcller"), "good"):
            (tmp_path / name).mkdir()
        found = {one.case: one.why for one in read_batch(tmp_path).requests}
        assert found["good"] is None
        assert all(why and "has a name that" in why for case, why in found.items() if case != "good")
        assert len(found) == 4

    def test_folders_that_a_table_leaves_out_are_counted(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
        (tmp_path / "cases.csv").write_text("case_id,photos\n1,a/x\n")
        assert read_batch(tmp_path).passed_over == 1

    def test_a_folder_that_may_not_be_opened(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def closed(_path: object) -> None:
            raise PermissionError(13, "Permission denied", "/secret/Jane")

        monkeypatch.setattr(os, "scandir", closed)
        with pytest.raises(UserError) as caught:
            read_batch(tmp_path)
        assert "Jane" not in str(caught.value)

    def test_a_table_of_any_name(self, tmp_path: Path) -> None:
        (tmp_path / "t.csv").write_bytes(
            b'\xef\xbb\xbfcase_id, photos ,request_date\r\n"7, again",p/7,2026-01-02\r\n\r\n8,p/8,\r\n'
        )
        assert read_batch(tmp_path / "t.csv").requests == [
            Request("7, again", photos=tmp_path / "p/7", record={"request_date": "2026-01-02"}),
            Request("8", photos=tmp_path / "p/8"),
        ]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("photos\nx\n", "no good head line"),
            ("case_id,case_id\na,b\n", "no good head line"),
            ("case_id,name\na,b\n", "unknown column name"),
            ("case_id,legal_basis\na,b\n", "unknown column legal_basis"),
            ("case_id,photos\na,p\na,q\n", "the case a is there twice"),
            ("case_id,photos\na\n", "line 2: it has another number of cells"),
            ("case_id,photos\n,p\n", "line 2: the case '' has a name that is empty"),
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
        with pytest.raises(UserError):
            read_batch(tmp_path / "none")

    def test_photos_behind_a_link_that_leads_out(self, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "p").symlink_to(tmp_path)
        (tmp_path / "in" / "cases.csv").write_text("case_id,photos\na,p\n")
        with pytest.raises(ConfigError, match="leads out"):
            read_batch(tmp_path / "in")
