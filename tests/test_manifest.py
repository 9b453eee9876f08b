"""Manifests: stable digests, no byte changes unnoticed, old ones stay readable."""

import json
from pathlib import Path

import pytest

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import (
    SCHEMA_VERSION,
    EncoderRecord,
    FileRecord,
    Manifest,
    PersonRecord,
    canonical_json,
    parse_manifest,
)

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
