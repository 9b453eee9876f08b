"""Manifests: stable digests, no byte changes unnoticed, old ones stay readable."""

import json
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import (
    SCHEMA_VERSION,
    EncoderRecord,
    FileRecord,
    Manifest,
    PersonRecord,
    _seals,
    canonical_json,
    difference,
    parse_manifest,
)
from ireu_cli.support.record_text import text_of
from ireu_cli.support.roster import Roster, cut_retained
from tests.conftest import run_ireu

FIXTURES = Path(__file__).parent / "fixtures"


def example(**changes: object) -> Manifest:
    plain = {
        "step": "locate",
        "state": "complete",
        "tool_version": "0.1.0",
        "identity": "a" * 64,
        "seed": 3,
        "parameters": {"seed": 3, "locate": {"top_fraction": 0.4}},
        "encoder": EncoderRecord(fingerprint="b" * 64, architecture="clip-vit", tap="pooled", layers=6),
        "targets": (PersonRecord(number=1, photos=("c" * 64,)),),
        "outputs": (FileRecord(name="mask.pt", sha256="d" * 64, size=10),),
        "metrics": {"kept": 4, "evidence": None},
        "environment": {"python": "3.11"},
        "timings": {"encode": 1.5},
    }
    return Manifest.model_validate(plain | changes)


def test_canonical_json_is_order_independent_and_refuses_nan() -> None:
    assert (
        canonical_json({"b": 1, "a": [1.5, None]})
        == canonical_json({"a": [1.5, None], "b": 1})
        == '{"a":[1.5,null],"b":1}'
    )
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"a": float("nan")})


def test_digest_is_pinned() -> None:
    # Changes when the meaning of a manifest changes: then SCHEMA_VERSION has to change too.
    assert example().sealed().digest == "33ad15262c2a3bba27407220ec8a55c96b158e96bf22b0d3590f27bb6945cfb2"


def test_digest_leaves_time_and_machine_out_and_nothing_else() -> None:
    digest = example().sealed().digest
    assert example(timings={"encode": 9.0}, environment={"python": "3.13"}).sealed().digest == digest
    changes: tuple[dict[str, object], ...] = (
        {"seed": 4},
        {"metrics": {}},
        {"parent": "e" * 64},
        {"tool_version": "0.2.0"},
        {"targets": ()},
    )
    for change in changes:
        assert example(**change).sealed().digest != digest


def test_round_trip() -> None:
    manifest = example().sealed()
    assert parse_manifest(manifest.text().encode(), "m.json") == manifest


def test_every_flipped_byte_is_noticed() -> None:
    data = example().sealed().text().encode()
    for position in range(len(data)):
        damaged = data[:position] + bytes([data[position] ^ 0x01]) + data[position + 1 :]
        with pytest.raises(ArtifactError):
            parse_manifest(damaged, "m.json")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"\xff", b'{"schema_version": 99}', b'{"schema_version": 1, "x": 1}']
)
def test_other_content_is_refused(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest(data, "m.json")


def test_every_schema_version_has_fixtures() -> None:
    for version in range(1, SCHEMA_VERSION + 1):
        found = {json.loads(path.read_text())["step"] for path in (FIXTURES / f"schema_v{version}").glob("*.json")}
        assert found == {"locate", "unlearn", "verify", "export"}, (
            f"write tests/fixtures/schema_v{version}/ once, and keep it"
        )


@pytest.mark.parametrize(
    "path", sorted(FIXTURES.glob("schema_v*/*.json")), ids=lambda path: f"{path.parent.name}/{path.stem}"
)
def test_old_manifests_stay_readable(path: Path) -> None:
    manifest = parse_manifest(path.read_bytes(), path.name)
    assert manifest.state == "complete"
    manifest.config()


DEEP = b"[" * 100_000


@pytest.mark.parametrize(
    "data",
    [DEEP, b'{"a":' * 100_000, b'{"schema_version": 1, "seed": ' + b"9" * 5000 + b"}", b'{"a": NaN}', b"\xef\xbb\xbf{"],
)
def test_json_that_means_harm_is_refused_in_words(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError):
        parse_manifest(data, "m.json")
    (tmp_path / "m.pt").write_bytes(b"x")
    (tmp_path / "m.pt.json").write_bytes(data)
    found = run_ireu("unlearn", "--mask", "m.pt", cwd=tmp_path)
    assert found.code == 3, found.err
    assert "Traceback" not in found.err


def test_a_manifest_that_is_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ireu_cli.store.manifests.MOST_BYTES", 100)
    (tmp_path / "m.pt").write_bytes(b"x")
    (tmp_path / "m.pt.json").write_bytes(b"{" + b" " * 200 + b"}")
    found = run_ireu("unlearn", "--mask", "m.pt", cwd=tmp_path)
    assert (found.code, "larger than" in found.err) == (3, True), found.err


WILD = {
    "identity": "\x1b[2J",
    "tool_version": "1\x1b[2J",
    "seed": 2**31,
    "parent": "../../x",
    "key": "K" * 16,
    "parameters": {"locate": {"top_fraction": "x" * 20_001}},
    "metrics": {"requests": ["not", "by", "case"]},
    "environment": {"python": "3\n11"},
    "timings": {"encode": -1.0},
    "targets": [{"number": 0, "photos": []}],
    "retain": [{"number": 1, "photos": ["x" * 64]}],
    "encoder": {"fingerprint": "b" * 64, "architecture": "\x1b]0;x", "tap": "pooled", "layers": 6},
    "inputs": [{"name": "../a", "sha256": "d" * 64, "size": 1}],
    "outputs": [{"name": "/etc/passwd", "sha256": "d" * 64, "size": 1}],
    "digest": "x",
    "checksum": "x" * 64,
}


FURTHER: list[tuple[str, object]] = [
    ("seal", "x" * 64),
    ("parameters", {"locate": {"top_fraction": 1e301}}),
    ("metrics", {"kept": -1e301}),
    ("environment", {f"library {n}": "1" for n in range(101)}),
    ("environment", {"python": "3" * 301}),
    ("timings", {f"part {n}": 1.0 for n in range(1001)}),
    ("outputs", [{"name": "a\0b", "sha256": "d" * 64, "size": 1}]),
    ("outputs", [{"name": "a/../../b", "sha256": "d" * 64, "size": 1}]),
]


@pytest.mark.parametrize(("field", "value"), [*WILD.items(), *FURTHER], ids=lambda part: f"{part!s:.20}")
def test_every_field_has_bounds(field: str, value: object) -> None:
    """Also where the seals are right, as whoever forges a manifest makes them."""
    plain = example().model_dump(mode="json") | {field: value}
    if field not in {"digest", "checksum"}:
        plain |= _seals(plain)
    with pytest.raises(ArtifactError, match="wrong fields"):
        parse_manifest(text_of(plain).encode(), "m.json")


def test_no_field_of_a_manifest_is_without_bounds() -> None:
    """A text needs a pattern or a length; what may be anything is looked through."""
    bare = []
    people = PersonRecord.__pydantic_fields__  # type: ignore[attr-defined]
    for fields in (*(model.model_fields for model in (Manifest, EncoderRecord, FileRecord)), people):
        for name, field in fields.items():
            unbound = field.annotation in (str, int, float) or "dict[str, typing.Any]" in str(field.annotation)
            bare += [name] if unbound and not field.metadata else []
    assert not bare


def test_the_last_digits_of_sums_do_not_change_the_digest() -> None:
    """Libraries sum in another order where memory lies otherwise; seen in thresholds of detectors."""
    one, other = ({"people": [{"threshold": value}]} for value in (3.7000000140659, 3.7000000140659 * (1 + 2e-16)))
    assert one != other
    assert example(metrics=one).sealed().digest == example(metrics=other).sealed().digest
    moved = {"people": [{"threshold": 3.70000002}]}
    assert example(metrics=one).sealed().digest != example(metrics=moved).sealed().digest


def test_metrics_that_are_no_number_are_null_and_named() -> None:
    sealed = (
        example(metrics={"share": 0.5})
        .model_copy(update={"metrics": {"kept": 4, "evidence": {"share": float("nan"), "curve": [1.0, float("inf")]}}})
        .sealed()
    )
    assert sealed.metrics == {
        "kept": 4,
        "evidence": {"share": None, "curve": [1.0, None]},
        "undefined": ["evidence.curve", "evidence.share"],
    }
    assert parse_manifest(sealed.text().encode(), "m.json") == sealed


def test_a_difference_that_no_parameter_states_is_named_rightly() -> None:
    requests = {"requests": {"A-1": ["c" * 64]}}
    there = example(step="unlearn", metrics=requests, environment={"transformers": "5.1", "torch": "2"})
    same = example(step="unlearn", metrics={}, environment={"transformers": "5.1", "torch": "2"})
    assert difference(there, same, "A-2") == "record.case_id = A-1"
    assert difference(there, same, None) == "record.case_id = A-1"
    later = example(step="unlearn", metrics={}, environment={"transformers": "5.2", "torch": "2"})
    assert difference(there, later, "A-1") == "other versions of libraries (transformers 5.1)"
    unnamed = example(step="unlearn", metrics={"requests": {"a" * 12: ["c" * 64]}}, environment={})
    assert difference(unnamed, same, "A-1") == "no record.case_id"
    assert "--onto" in difference(unnamed, same, None)
    assert difference(example(), same) == "another step (locate)"


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
PEOPLE = st.fixed_dictionaries(
    {"number": st.integers() | st.booleans(), "photos": st.lists(TEXTS, max_size=3) | st.lists(st.none()) | TEXTS},
    optional={"more": TEXTS},
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES | st.lists(PEOPLE, min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_quick_writer_writes_what_json_writes(plain: dict[str, Any]) -> None:
    assert text_of(plain) == json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False) + "\n"


def people_of(*sizes: int) -> tuple[PersonRecord, ...]:
    digests = (f"{number:064x}" for number in range(sum(sizes)))
    return tuple(PersonRecord(number=3 * n + 1, photos=tuple(islice(digests, size))) for n, size in enumerate(sizes))


@pytest.mark.parametrize("sizes", [(), (1,), (3,), (1, 1), (2, 5, 1), (2, 0, 1)])
def test_people_are_held_as_the_text_that_json_writes(sizes: tuple[int, ...]) -> None:
    people = people_of(*sizes)
    plain = [one.plain() for one in people]
    roster = Roster.of(people)
    assert roster.canonical == canonical_json(plain)
    assert text_of({"retain": roster}) == text_of({"retain": plain})
    assert (tuple(roster), len(roster)) == (people, len(sizes))
    assert roster.photos() == {digest for one in people for digest in one.photos}
    if all(sizes):
        digests = b"".join(bytes.fromhex(digest) for one in people for digest in one.photos)
        numbers = [one.number for one in people]
        assert Roster.of_digests(numbers, digests, list(accumulate(sizes))) == roster


@pytest.mark.parametrize("sizes", [(1,), (1, 1), (2, 5, 1), (2, 0, 1)])
def test_retained_people_are_read_without_objects_for_photos(sizes: tuple[int, ...]) -> None:
    """Only where their text is exactly as it is written; else as before."""
    sealed = example(retain=people_of(*sizes)).sealed()
    data = sealed.text().encode()
    rest, found = cut_retained(data)
    assert (found is None) == (not all(sizes))
    if found is not None:
        assert found == sealed.retain
        assert b'"retain": []' in rest
    read = parse_manifest(data, "m.json")
    assert read == sealed
    assert tuple(read.retain) == people_of(*sizes)


CHANGED = {
    "a digit": (b'"0000', b'"1000'),
    "a sign": (b'"0000', b'"x000'),
    "a digit less": (b'"0000', b'"000'),
    "a space": (b'"number": 1,', b'"number":  1,'),
    "another number": (b'"number": 4,', b'"number": 5,'),
    "a field": (b'"number": 4,', b'"more": 1,\n      "number": 4,'),
    "a comma less": (b"},\n    {", b"}\n    {"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_no_byte_of_the_retained_people_changes_unnoticed(change: str) -> None:
    data = example(targets=(), retain=people_of(2, 2)).sealed().text().encode()
    start = data.index(b'"retain"')
    before, after = CHANGED[change]
    changed = data[:start] + data[start:].replace(before, after, 1)
    assert changed != data
    with pytest.raises(ArtifactError, match=r"changed after it was written|wrong fields|is not JSON"):
        parse_manifest(changed, "m.json")
