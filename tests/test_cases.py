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

from ireu_cli.cases.known import known_from
from ireu_cli.cases.run import list_cases
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import digest_of
from ireu_cli.store.register import Entry, Event, Head, Key, Register, read_register
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


def test_a_step_that_is_run_again_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r"
    register = filled(path, 3)
    assert not register.add(event("request", "case-1"))
    # Another event about the same artifact is one of its own, and a name that looks like an entry is a name.
    assert register.add(event("request", "case-1").model_copy(update={"what": "export"}))
    assert register.add(event("request", f'"artifact":"{"0" * 64}","what":"request"'))
    assert register.add(Event(what="request", cases=("x",), artifact="0" * 64))
    assert len(read_register(path, KEY).entries) == 6


def test_what_is_done_again_after_something_else_is_added(tmp_path: Path) -> None:
    """A request that was withdrawn and made again, and an export that was rolled back, have the same digests."""
    register = Register(tmp_path / "r", KEY)
    encoder = {"encoder": "a" * 64}
    asked, gone = event("request", "one", **encoder), event("withdrawal", "one", **encoder)
    first, second = event("export", "one", **encoder), event("export", "one", "two", **encoder)
    for one in (asked, first, gone, asked, first, second, first, asked.model_copy(update={"encoder": "b" * 64})):
        register.add(one)
    whats = [entry.what for entry in read_register(tmp_path / "r").entries]
    assert whats == ["request", "export", "withdrawal", "request", "export", "export", "request"]
    deletion = event("deletion", "one")
    assert register.add(deletion)
    assert register.add(deletion)


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
    # With the count adapted, but without the key, the count is not sealed.
    head = path.with_name("r.head")
    genuine = head.read_bytes()
    third = read_register(path).entries[2]
    for forged in (
        {"count": 3, "digest": third.digest, "key": KEY.name, "seal": json.loads(genuine)["seal"]},
        {"count": 3, "digest": third.digest, "key": KEY.name, "seal": None},
        {"count": -9, "digest": "x"},
        {"count": 0, "digest": third.digest},
    ):
        head.write_text(json.dumps(forged))
        assert read_register(path, KEY).faults, forged
    for odd in (b"[" * 100_000, b'{"count": Infinity}', b"\xff"):
        head.write_bytes(odd)
        assert read_register(path, KEY).faults == ("the file that counts its entries is missing or damaged",)
    head.write_bytes(genuine)
    path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    assert "line 3 does not follow the entry before it" in read_register(path, KEY).faults
    path.write_bytes(b"".join(lines))
    path.with_name("r.head").unlink()
    assert read_register(path, KEY).faults == ("the file that counts its entries is missing or damaged",)


def test_whoever_lacks_the_key_cannot_forge_an_entry(tmp_path: Path) -> None:
    """Somebody writes the whole register anew, with another case, and all digests right."""
    path, forged, unsealed = tmp_path / "r", tmp_path / "forged", tmp_path / "unsealed"
    filled(path)
    for place, key in ((forged, OTHER), (unsealed, None)):
        for number in range(5):
            Register(place, key).add(event("request", f"other-{number}"))
        assert read_register(place).faults == ()
    assert len(read_register(forged, KEY).faults) == 6
    assert read_register(unsealed, KEY).sealed == 0
    # One entry without a seal among genuine ones is counted.
    Register(path, None).add(event("withdrawal", "case-1"))
    read = read_register(path, KEY)
    assert (read.sealed, len(read.entries)) == (5, 6)


def test_the_register_of_a_run_folder_has_no_entry_of_others(fresh: Path) -> None:
    own = fresh / ".ireu" / "register.jsonl"
    assert list_cases(None, fresh / ".ireu").trust == "whole"
    shutil.copy(own, fresh / "copy")
    shutil.copy(f"{own}.head", fresh / "copy.head")
    assert list_cases(fresh / "copy", fresh / "none").trust == "chain whole, not every seal verified"
    assert run_ireu("cases", "--register", "copy", "--run-dir", "none", cwd=fresh).code == 5
    Register(own, None).add(event("withdrawal", "anybody"))
    found = list_cases(None, fresh / ".ireu")
    assert found.trust == "NOT WHOLE"
    assert found.told["faults"] == ["1 entries are not sealed with the key of this run folder"]


def test_somebody_elses_file_is_left_alone(tmp_path: Path) -> None:
    for name, data in (("a.json", b'{"a": 1}'), ("b.jpg", os.urandom(5000)), ("c.txt", b"one\ntwo"), ("d", b"\n")):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ArtifactError, match="is no register"):
            Register(path, KEY).add(event("request", "one"))
        assert path.read_bytes() == data
    (tmp_path / "link").symlink_to(tmp_path / "a.json")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(ArtifactError):
            Register(tmp_path / name, KEY).add(event("request", "one"))
    with pytest.raises(ArtifactError):
        read_register(tmp_path / "pipe")
    assert not (tmp_path / "link.head").exists()


def test_looking_makes_nothing(tmp_path: Path) -> None:
    filled(tmp_path / "r")
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    list_cases(tmp_path / "r", home)
    assert list(home.iterdir()) == []
    assert home.stat().st_mode & 0o777 == 0o755


def test_a_reader_beside_writers_sees_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "r"
    filled(path, 1)
    command = [sys.executable, "-c", WRITER, str(path), "w", "0", "60"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ) as process:
        while process.poll() is None:
            assert read_register(path, KEY).faults == ()
    assert len(read_register(path, KEY).entries) == 61


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
    second = Head(count=2, digest=read_register(path).entries[1].digest, key=KEY.name)
    head.write_text(second.model_copy(update={"seal": KEY.seal(second.sealed)}).model_dump_json())
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
    assert found["entries"] == found["sealed_with_this_key"] == 3
    (case, one), *_ = found["cases"].items()
    assert len(case) == 12
    (place,) = one["encoders"].values()
    assert place["state"] == "removed"
    assert place["verified"].startswith("failed")
    assert one["due"][0].startswith("make a better edit: it failed")
    before = (fresh / ".ireu" / "register.jsonl").read_bytes()
    assert run_ireu("export", "--delta", "delta.safetensors", "--allow-failed", cwd=fresh).code == 0
    assert (fresh / ".ireu" / "register.jsonl").read_bytes() == before, "a step that was done already adds nothing"
    text = before.decode()
    assert str(fresh) not in text
    assert "person-" not in text
    shown = run_ireu("cases", cwd=fresh)
    assert f"{case}  removed from " in shown.out
    assert f"{case}  DUE: make a better edit" in shown.out


def test_a_register_of_your_own_and_a_broken_one(fresh: Path) -> None:
    settings = ("--set", "record.case_id=2026-17", "--set", "record.photos_deleted_by=2026-03-01")
    unlearn = ("unlearn", "--mask", "mask.pt", "--steps", "2", "-o", "d.safetensors", *settings)
    assert run_ireu(*unlearn, "--set", "run.register_file=own/cases.jsonl", cwd=fresh).code == 0
    own = ("cases", "--register", "own/cases.jsonl", "--json")
    read = run_ireu(*own, cwd=fresh)
    assert read.code == 0
    one = json.loads(read.out)["cases"]["2026-17"]
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


ENCODER, DELTA = {"encoder": "a" * 64}, "d" * 64


def due(*events: Event) -> dict[str, list[str]]:
    known = known_from(entries(*events))
    return {one.case: known.due(one, "2026-02-01") for one in known.cases}


def test_what_is_due_follows_what_was_done() -> None:
    first, second = event("request", "one", **ENCODER), event("request", "two", **ENCODER)
    export = event("export", "one", "two", **ENCODER, edited="b" * 64, parent=DELTA)
    verified = event("verification", "one", "two", outcome="passed", parent=DELTA)
    gone = event("withdrawal", "one", **ENCODER)
    again = event("export", "two", **ENCODER, edited="c" * 64, parent=DELTA, at="again")
    assert due(first) == {"one": ["export: no export honours it"]}
    assert due(first, second, export)["two"] == ["verify what was exported"]
    assert due(first, second, export, verified) == {"one": [], "two": []}
    assert due(first, second, export, verified, gone)["one"] == ["export again: the last export still honours it"]
    assert due(first, second, export, verified, gone, again) == {"one": [], "two": []}
    back = event("request", "one", **ENCODER, at="back")
    assert due(first, second, export, verified, gone, again, back)["one"] == ["export: the last one lacks it"]
    # A gate has no edited encoder, and honours its cases all the same.
    gate = event("export", "one", **ENCODER, parent=DELTA)
    assert due(first, gate, verified)["one"] == []


def test_what_is_served_has_to_be_the_last_export() -> None:
    """Only where something was deployed by ireu at all."""
    first = event("request", "one", encoder="a" * 64)
    parts = {"encoder": "a" * 64, "parent": "d" * 64}
    old, new = (event("export", "one", at=at, **parts) for at in (1, 2))
    verified = event("verification", "one", outcome="passed", **parts)
    done = [first, old, verified]

    def served(export: Event, words: str = "served by Triton") -> Event:
        return export.model_copy(update={"what": "deployment", "outcome": words})

    stale = ["deploy: what was deployed last is not the last export"]
    assert due(*done)["one"] == []
    assert due(*done, served(old))["one"] == []
    assert due(*done, served(old), new)["one"] == stale
    assert due(*done, served(old), new, served(new))["one"] == []
    assert due(*done, served(old), served(old, "taken back from Triton"))["one"] == stale
    # Each service counts for itself, and what was seen there later counts too.
    here, there = ({"place": letter * 16} for letter in "ab")
    both = [*done, served(old).model_copy(update=here), new, served(new).model_copy(update=there)]
    assert due(*both)["one"] == stale
    assert due(*both, served(new).model_copy(update=here))["one"] == []
    seen = new.model_copy(update={"what": "check", "outcome": "not as recorded"} | there)
    fixed = [*both, served(new).model_copy(update=here)]
    assert due(*fixed, seen)["one"] == ["deploy: a service was seen to hold something else"]
    assert due(*fixed, seen, seen.model_copy(update={"outcome": "as recorded"}))["one"] == []


def test_entries_of_before_there_were_places_keep_their_digest(tmp_path: Path) -> None:
    filled(tmp_path / "r", 2)
    lines = [json.loads(line) for line in (tmp_path / "r").read_text().splitlines()]
    assert all("place" not in line for line in lines)
    for line in lines:
        assert line["digest"] == digest_of({key: line[key] for key in line if key not in {"digest", "seal"}})


def test_a_verification_counts_for_its_own_delta() -> None:
    first, other = event("request", "one", **ENCODER), "e" * 64
    passed = event("verification", "one", outcome="passed", parent=DELTA)
    export = event("export", "one", **ENCODER, edited="b" * 64, parent=other)
    assert due(first, passed, export)["one"] == ["verify what was exported"]
    failed = event("verification", "one", outcome="failed without attacks", parent=other)
    assert due(first, export, failed, passed)["one"] == ["make a better edit: it failed without attacks"]
    for outcome, words in (
        ("passed with settings weaker than the defaults", "verify in full: it passed with"),
        ("inconclusive without attacks", "verify with more evidence: it was inconclusive"),
    ):
        told = event("verification", "one", outcome=outcome, parent=other)
        assert due(first, export, told)["one"][0].startswith(words)


def test_every_encoder_of_a_case_has_its_own_state() -> None:
    first, second = event("request", "one", **ENCODER), event("request", "one", encoder="b" * 64)
    export = event("export", "one", **ENCODER, parent=DELTA)
    verified = event("verification", "one", outcome="passed", parent=DELTA, **ENCODER)
    assert due(first, second, export, verified)["one"] == ["export: no export honours it (encoder bbbbbbbbbbbb)"]
    gone = event("withdrawal", "one", encoder="b" * 64)
    assert due(first, second, export, verified, gone)["one"] == []


def test_a_case_from_before_the_register_is_known() -> None:
    export = event("export", "old", **ENCODER, parent=DELTA)
    gone = event("withdrawal", "old", **ENCODER)
    assert due(export, gone)["old"] == ["export again: the last export still honours it"]
    assert known_from(entries(gone)).cases[0].encoders["a" * 64].asked == "before the register"


def test_photos_that_came_again_are_due_again() -> None:
    dated = event("request", "one", photos_deleted_by="2026-01-15")
    deleted, again = event("deletion", "one"), event("request", "one", photos_deleted_by="2026-01-20", at="again")
    assert any(word.startswith("delete") for word in due(dated)["one"])
    assert not any(word.startswith("delete") for word in due(dated, deleted)["one"])
    assert "delete the photos (by 2026-01-20)" in due(dated, deleted, again)["one"]


def test_odd_names_of_cases_are_kept_short(fresh: Path) -> None:
    """A name may be anything, and no step may end in an error because of it."""
    for number, name in enumerate(("x" * 400, "new\nline", "\x9b31m")):
        done = run_ireu(
            "unlearn", "--mask", "mask.pt", "--steps", "2", "-o", f"d{number}.safetensors", "--set",
            f"record.case_id={name}", cwd=fresh,
        )  # fmt: skip
        assert done.code == 0, done.err
    told = json.loads(run_ireu("cases", "--json", cwd=fresh).out)
    assert told["register"] == "whole"
    assert told["entries"] == 6
    assert max(map(len, told["cases"])) == 300


def test_the_day_is_the_day(tmp_path: Path) -> None:
    path = tmp_path / "register.jsonl"
    Register(path, None).add(event("request", "one", photos_deleted_by="2026-03-01"))
    for today, due in (("2026-02-28", 1), ("2026-03-01", 2)):
        assert len(list_cases(path, tmp_path / "none", today=today).told["cases"]["one"]["due"]) == due
    assert not (tmp_path / "none").exists()
    shutil.rmtree(tmp_path)
