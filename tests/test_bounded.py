"""What others wrote is read within bounds."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ireu_cli.errors import UserError
from ireu_cli.support.bounded import ContentError, inside, leads_inside, printable, read_bounded, read_json, safe_name

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(PLAIN)
def test_reads_what_json_writes(value: object) -> None:
    assert read_json(json.dumps(value).encode()) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode("utf-8-sig")) == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 100_000, "is nested more than 32 levels deep"),
        (b'{"a":' * 100_000, "is nested more than 32 levels deep"),
        (b"[" * 33 + b"]" * 33, "is nested more than 32 levels deep"),
        (b"[NaN]", "holds NaN, which is not a number"),
        (b"[-Infinity]", "holds -Infinity, which is not a number"),
        (b"1e999", "holds a number that is too large"),
        (b"9" * 41, "holds a number that is too large"),
        (b"9" * 100_000, "holds a number that is too large"),
        (b'{"a": 1, "b": 2, "a": 3}', "states the key a twice"),
        (b'["\\ud800"]', "holds half of a character"),
        (b'{"\\udfff": 1}', "holds half of a character"),
        (b"\xff\xfe{\x00}\x00", "is not text in UTF-8"),
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b'"a', "is not JSON"),
        (b" " * 2000 + b"1", "is larger than 2000 bytes"),
    ],
)
def test_says_what_is_wrong(data: bytes, why: str, tmp_path: Path) -> None:
    most = 2000 if "larger" in why else 1 << 20
    (tmp_path / "x.json").write_bytes(data)
    with pytest.raises(ContentError) as of_bytes:
        read_json(data, most)
    with pytest.raises(ContentError) as of_file:
        read_json(tmp_path / "x.json", most)
    assert of_bytes.value.why == of_file.value.why == why
    assert str(of_file.value) == f"x.json {why}. Use an undamaged copy."
    assert isinstance(of_file.value, UserError)


def test_what_is_just_within_bounds_is_read() -> None:
    assert read_json(b"[" * 32 + b"]" * 32)
    assert read_json(b"9" * 40) == int("9" * 40)
    assert read_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert read_json(b'["\\ud800"]', surrogates=True) == ["\ud800"]
    assert read_json(b'{"a": 1, "a": 3}', repeats=True) == {"a": 3}
    assert read_json(b"12345", 5) == 12345


def test_a_pipe_or_a_folder_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ContentError, match="is not a regular file"):
            read_json(path)
    with pytest.raises(OSError):  # noqa: PT011 - whichever kind the system raises of a folder
        read_bounded(tmp_path, 10)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "none.json")


@pytest.mark.parametrize("name", ["A", "sdxl-plus-face", "Générateur 2 (neu)", "画像", "a.b+c_d", "x" * 64, "50%"])
def test_names_that_are_taken(name: str) -> None:
    assert safe_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *("", "x" * 65, "../../escaped/A", "a/b", "a\\b", "..", ".hidden", "-o", " a", "a ", "a.", "C:", "a\nb"),
        *("\x1b[2Jx", "a\0", "a\u202eb", "a\u200bb", "\ud800", 'a"b', "<b>", None, 3, ["a"]),
    ],
)
def test_names_that_are_refused(name: object) -> None:
    with pytest.raises(ContentError) as refused:
        safe_name(name)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 250


def test_paths_stay_inside(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "in").mkdir(parents=True)
    (folder / "link-in").symlink_to("in")
    for path in ("a", "a/b.json", "./a", "in", "link-in/x", "not/there"):
        assert inside(folder, path) == folder / path


@pytest.mark.parametrize(
    "path",
    [
        *("", " ", "/etc/passwd", "..", "../a", "a/../../b", "a\\..\\b", "C:\\x", "~/x", "a\0b", "a\nb", "x" * 1025),
        *("x" * 256, "a/" + "é" * 128),
        *(None, 1, "out/x", "out-file", "circle", "far"),
    ],
)
def test_paths_that_lead_out_are_refused(path: object, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    (tmp_path / "secret").mkdir()
    (folder / "out").symlink_to("../secret")
    (folder / "out-file").symlink_to(tmp_path / "secret" / "key")
    (folder / "far").symlink_to("/")
    (folder / "circle").symlink_to("circle")
    with pytest.raises(ContentError) as refused:
        inside(folder, path)
    assert str(refused.value).isprintable()


def test_a_snapshot_of_the_hub_is_made_of_links(tmp_path: Path) -> None:
    model = tmp_path / "models--a--b"
    snapshot = model / "snapshots" / ("0" * 40)
    (snapshot / "unet").mkdir(parents=True)
    (model / "blobs").mkdir()
    (model / "blobs" / "ab").write_text("x")
    (snapshot / "unet" / "w").symlink_to("../../../blobs/ab")
    (snapshot / "bad").symlink_to("../../refs")
    (model / "refs").mkdir()
    assert inside(snapshot, "unet/w").read_text() == "x"
    assert leads_inside(snapshot / "unet", snapshot / "unet" / "w")
    with pytest.raises(ContentError):
        inside(snapshot, "bad")


def test_what_is_shown_holds_no_escape_sequence() -> None:
    assert printable("\x1b[2Ja\nb\u202e") == "\\x1b[2Ja\\nb\\u202e"
    assert printable("x" * 100, 10) == "x" * 10 + "…"
    assert printable("\ud800") == "\\ud800"
    assert printable(os.fsdecode(b"M\xfcller.pt")) == "M\\xfcller.pt"
