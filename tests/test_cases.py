"""The register of cases: what the steps add, what it says is due, and that nobody loses or changes an entry unseen."""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ireu_cli.cases.run import list_cases
from ireu_cli.cases.standing import last_exports, standings
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import digest_of
from ireu_cli.store.register import Entry, Event, Key, Register, read_register
from tests.conftest import run_ireu

KEY = Key("0123456789abcdef", lambda digest: digest_of(["secret", digest]))
OTHER = Key("0123456789abcdef", lambda digest: digest_of(["another", digest]))


def event(what: str, *cases: str, at: object = None, **more: Any) -> Event:
    return Event.model_validate({"what": what, "cases": cases, "artifact": digest_of([what, cases, at]), **more})


def filled(path: Path, count: int = 5) -> Register:
    register = Register(path, KEY)
    for number in range(count):
        assert register.add(event("request", f"case-{number}"))
    return register


def test_entries_are_chained_and_sealed(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "register.jsonl"
    filled(path)
    read = read_register(path, KEY)
    assert read.faults == ()
    assert [entry.number for entry in read.entries] == [1, 2, 3, 4, 5]
    assert all(a.digest == b.previous for a, b in zip(read.entries, read.entries[1:], strict=False))
    assert path.stat().st_mode & 0o077 == 0
    assert read_register(path, OTHER).faults


def test_the_same_event_is_added_once(tmp_path: Path) -> None:
    path = tmp_path / "r"
    register = filled(path, 3)
    assert not register.add(event("request", "case-1"))
    # Another event about the same artifact is one of its own, and so is a name that looks like an entry.
    assert register.add(event("request", "case-1").model_copy(update={"what": "export"}))
    wild = event("request", f'"artifact":"{"0" * 64}","what":"request"')
    assert register.add(wild)
    assert register.add(Event(what="request", cases=("x",), artifact="0" * 64))
    assert len(read_register(path, KEY).entries) == 6


@pytest.mark.parametrize("line", [0, 2, 4])
def test_one_flipped_byte_is_named(line: int, tmp_path: Path) -> None:
    path = tmp_path / "r"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    for place in range(0, len(lines[line]) - 1, 7):
        changed = bytearray(lines[line])
        changed[place] ^= 1
        path.write_bytes(b"".join([*lines[:line], bytes(changed), *lines[line + 1 :]]))
        faults = read_register(path, KEY).faults
        assert faults, place
        assert any(f"line {line + 1}" in fault for fault in faults), (place, faults)


def test_what_is_taken_out_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "r"
    filled(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    assert read_register(path, KEY).faults == ("2 entries are missing at its end",)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert "line 3 does not follow the entry before it" in read_register(path, KEY).faults
    path.write_bytes(b"".join(lines))
    path.with_name("r.head").unlink()
    assert read_register(path, KEY).faults == ("the file that counts its entries is missing",)


def test_whoever_lacks_the_key_cannot_forge_an_entry(tmp_path: Path) -> None:
    """Somebody writes the whole register anew, with another case, and all digests right."""
    path, forged = tmp_path / "r", tmp_path / "forged"
    filled(path)
    register = Register(forged, OTHER)
    for number in range(5):
        register.add(event("request", f"other-{number}"))
    assert read_register(forged).faults == ()
    assert len(read_register(forged, KEY).faults) == 5


def test_what_a_killed_process_left_is_taken_back(tmp_path: Path) -> None:
    path = tmp_path / "r"
    register = filled(path, 2)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:50])
    assert read_register(path, KEY).faults == ()
    assert register.add(event("request", "after"))
    assert [entry.cases for entry in read_register(path, KEY).entries] == [("case-0",), ("case-1",), ("after",)]
    # The line is there and the count is not: the process was killed between the two.
    head = path.with_name("r.head")
    head.write_bytes(b'{"count":2,"digest":"%s"}' % read_register(path).entries[1].digest.encode())
    assert read_register(path, KEY).faults == ()


def test_a_damaged_end_is_not_built_upon(tmp_path: Path) -> None:
    path = tmp_path / "r"
    register = filled(path, 2)
    path.write_bytes(path.read_bytes()[:-20] + b"0" * 19 + b"\n")
    with pytest.raises(ArtifactError, match="last entry"):
        register.add(event("request", "after"))


WRITER = """
import sys
from pathlib import Path
from ireu_cli.manifest import digest_of
from ireu_cli.store.register import Event, Key, Register
path, name, first, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
register = Register(path, Key("0123456789abcdef", lambda digest: digest_of(["secret", digest])))
for number in range(first, last):
    case = f"{name}-{number}"
    register.add(Event(what="request", cases=(case,), artifact=digest_of(case)))
    print(number, flush=True)
"""


def test_eight_writers_lose_nothing_when_they_are_killed(tmp_path: Path) -> None:
    path, each, chance = tmp_path / "r", 20, random.Random(0)

    def start(writer: int, first: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", WRITER, str(path), f"writer-{writer}", str(first), str(each)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)

    running = {writer: start(writer, 0) for writer in range(8)}
    told: dict[int, int] = dict.fromkeys(running, 0)
    kills = 0
    while running:
        time.sleep(0.05)
        for writer, process in list(running.items()):
            if kills < 12 and path.exists() and chance.random() < 0.1:
                process.kill()
                kills += 1
            if process.poll() is not None:
                assert process.stdout is not None
                acknowledged = process.stdout.read().split()
                process.stdout.close()
                told[writer] = max([told[writer], *(int(number) + 1 for number in acknowledged)])
                del running[writer]
                if process.returncode != 0:
                    running[writer] = start(writer, told[writer])
    assert kills == 12
    read = read_register(path, KEY)
    assert read.faults == ()
    cases = [entry.cases[0] for entry in read.entries]
    assert len(cases) == len(set(cases)) == 8 * each
    assert told == dict.fromkeys(range(8), each)


def test_a_job_is_in_the_register(fresh: Path) -> None:
    told = run_ireu("cases", "--json", cwd=fresh)
    assert told.code == 0
    found = json.loads(told.out)
    assert found["register"] == "whole"
    assert found["entries"] == 3
    (case, one), *_ = found["cases"].items()
    assert len(case) == 12
    assert one["state"] == "removed"
    assert one["verified"].startswith("failed")
    assert one["due"][0].startswith("make a better edit: it failed")
    before = (fresh / ".ireu" / "register.jsonl").read_bytes()
    assert run_ireu("export", "--delta", "delta.safetensors", "--allow-failed", cwd=fresh).code == 0
    assert (fresh / ".ireu" / "register.jsonl").read_bytes() == before, "a step that was done already adds nothing"
    text = before.decode()
    assert str(fresh) not in text
    assert "person-" not in text
    shown = run_ireu("cases", cwd=fresh)
    assert f"{case}  removed since" in shown.out
    assert "DUE: " in shown.out


def test_a_register_of_your_own_and_a_broken_one(fresh: Path) -> None:
    settings = ("--set", "record.case_id=2026-17", "--set", "record.photos_deleted_by=2026-03-01")
    unlearn = ("unlearn", "--mask", "mask.pt", "--steps", "2", "-o", "d.safetensors", *settings)
    assert run_ireu(*unlearn, "--set", "run.register_file=own/cases.jsonl", cwd=fresh).code == 0
    own = ("cases", "--register", "own/cases.jsonl", "--json")
    one = json.loads(run_ireu(*own, cwd=fresh).out)["cases"]["2026-17"]
    assert one["due"] == ["delete the photos (by 2026-03-01)", "export: no export honours it"]
    deleted = json.loads(run_ireu(*own, "--photos-deleted", "2026-17", cwd=fresh).out)["cases"]["2026-17"]
    assert deleted["due"] == ["export: no export honours it"]
    assert deleted["photos_deleted"]
    assert run_ireu(*own, "--photos-deleted", "2026-99", cwd=fresh).code == 3
    path = fresh / "own" / "cases.jsonl"
    path.write_bytes(path.read_bytes().replace(b"2026-17", b"2026-18"))
    broken = run_ireu(*own, cwd=fresh)
    assert broken.code == 4
    assert json.loads(broken.out)["register"] == "NOT WHOLE"
    assert run_ireu("cases", "--register", "nothing", cwd=fresh).code == 3


def entries(*events: Event) -> list[Entry]:
    return [
        Entry(**one.model_dump(), number=n, at=f"2026-01-{n:02d}T00:00:00Z", previous="0" * 64)
        for n, one in enumerate(events, 1)
    ]


def test_what_is_due_follows_what_was_done() -> None:
    encoder = "a" * 64
    first = event("request", "one", encoder=encoder)
    second = event("request", "two", encoder=encoder)
    export = event("export", "one", "two", encoder=encoder, edited="b" * 64)
    verified = event("verification", "one", "two", outcome="passed")
    gone = event("withdrawal", "one", encoder=encoder)
    again = event("export", "two", encoder=encoder, edited="c" * 64, at="again")

    def due(*events: Event) -> dict[str, list[str]]:
        done = entries(*events)
        last = last_exports(done).get(encoder)
        return {one.case: one.due("2026-02-01", last) for one in standings(done)}

    assert due(first) == {"one": ["export: no export honours it"]}
    assert due(first, second, export)["two"] == ["verify"]
    assert due(first, second, export, verified) == {"one": [], "two": []}
    assert due(first, second, export, verified, gone)["one"] == ["export again: the last export still honours it"]
    assert due(first, second, export, verified, gone, again) == {"one": [], "two": []}
    back = event("request", "one", encoder=encoder, at="back")
    assert due(first, second, export, verified, gone, again, back)["one"] == ["export: the last one lacks it"]


def test_the_day_is_the_day(tmp_path: Path) -> None:
    path = tmp_path / "register.jsonl"
    Register(path, None).add(event("request", "one", photos_deleted_by="2026-03-01"))
    for today, due in (("2026-02-28", 1), ("2026-03-01", 2)):
        assert len(list_cases(path, tmp_path / "none", today=today).told["cases"]["one"]["due"]) == due
    assert not (tmp_path / "none").exists()
    shutil.rmtree(tmp_path)
