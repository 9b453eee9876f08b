"""What somebody else wrote sets nothing of a verdict: settings, records of photos, reports that were sealed anew."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ireu_cli.config import Resolved, load_config, schema_keys
from ireu_cli.manifest import EncoderRecord, Manifest
from ireu_cli.opening import open_session
from ireu_cli.sections import PATHS, handed_on
from ireu_cli.store.manifests import read_manifest, write_manifest
from ireu_cli.store.rundir import RunDir
from tests.conftest import Run, run_ireu

MADE = {"encoder", "data", "locate", "unlearn", "gated"}
"""Sections that a delta is made with."""
PLACES = {f"{section}.{key}" for section, key in PATHS}
OTHER: dict[str, Any] = {
    "gated.found_in": "all_tokens",
    "encoder.tap": "pooled", "encoder.dtype": "float16", "encoder.source": "elsewhere", "data.faces": "detect",
    "data.bad_photos": "skip", "data.landmarks": [0.4] * 10, "locate.method": "variance", "locate.swapper": "pairs",
    "unlearn.method": "ireu", "unlearn.forget_weight": 2.0, "unlearn.learning_rate": 2.0, "unlearn.steps": 7,
    "unlearn.batch": 3, "unlearn.direction": "toward", "unlearn.mask_scope": "person", "export.format": "onnx",
    "export.dtype": "float16", "record.request_date": "2026-01-01", "record.photos_deleted_by": "2026-01-01",
    "judges.recognisers": [{"name": "x", "model": "x.onnx"}], "verify.false_match_rate": 0.2,
    "verify.further_rates": [0.2], "run.device": "cuda",
}  # fmt: skip
"""Values that differ from the default where half of it, or another name, would not do."""


class Silent:
    verbose = False

    def note(self, text: str) -> None: ...

    def progress(self, label: str, total: int) -> Any: ...


def other(key: str, default: Any) -> Any:
    """A valid value that is not the default."""
    if key in OTHER:
        return OTHER[key]
    if isinstance(default, bool):
        return not default
    if isinstance(default, int):
        return default + 1
    if isinstance(default, float):
        return default * 0.9 or 1.0
    return ["mine"] if isinstance(default, tuple | list) else "mine" if key != "data.max_photos" else 3


def forged(key: str, step: Any = "unlearn") -> tuple[Manifest, Any]:
    """A manifest whose parameters set one key, of whatever section, and what they set it to."""
    section, _, name = key.rpartition(".")
    plain = load_config(None, {}, {}, cwd=Path("/nowhere")).config.model_dump(mode="json")
    value = other(key, plain[section][name] if section else plain[name])
    parameters = {section: {name: value}} if section else {name: value}
    encoder = EncoderRecord(fingerprint="f" * 64, architecture="a", tap="image_embeds", layers=1)
    return Manifest(step=step, state="complete", tool_version="0", identity="1" * 64, seed=0, parameters=parameters,
                    encoder=encoder), value  # fmt: skip


def opened(tmp_path: Path, record: Manifest) -> Resolved:
    """What the settings are after the artifact was opened for verification."""
    run = RunDir(tmp_path / "run")
    artifact = tmp_path / "delta.safetensors"
    artifact.write_bytes(b"x")
    keyed = record.model_copy(update={"key": run.key_name})
    write_manifest(tmp_path / "delta.safetensors.json", keyed, [artifact], seal=run.seal)
    resolved = load_config(None, {}, {"run.run_dir": tmp_path / "run"}, cwd=tmp_path)
    session = open_session("verify", resolved, Silent(), force=False, parent=artifact)
    return Resolved(session.config, session.sources)


@pytest.mark.parametrize("key", schema_keys())
def test_a_delta_sets_only_what_it_was_made_with(key: str, tmp_path: Path) -> None:
    record, value = forged(key)
    resolved = opened(tmp_path, record)
    section, _, name = key.rpartition(".")
    plain = resolved.config.model_dump(mode="json")
    found = plain[section][name] if section else plain[name]
    taken = key == "seed" or (section in MADE and key not in PLACES)
    assert (resolved.sources[key] == "manifest") == taken
    assert (json.dumps(found) == json.dumps(value)) == taken


def test_a_mask_hands_on_how_it_was_located_and_reports_hand_on_nothing() -> None:
    assert set(handed_on(forged("locate.method", "locate")[0])) == {"locate"}
    assert not handed_on(forged("unlearn.alpha", "locate")[0])
    for step in ("verify", "export"):
        assert not any(handed_on(forged(key, step)[0]) for key in schema_keys())


@pytest.mark.parametrize("parameters", [{"encoder": 5, "data": None, "seed": 4}, {"gated": []}, {}])
def test_sections_of_another_kind_are_passed_over(parameters: dict[str, Any]) -> None:
    record = forged("seed")[0].model_copy(update={"parameters": parameters})
    assert handed_on(record) == {key: value for key, value in parameters.items() if key == "seed"}


def reseal(path: Path, outputs: list[Path], seal: str | None = None, **changes: Any) -> None:
    """What somebody without the key can do: change a manifest and fill in digest and checksum again."""
    record = read_manifest(path) if not outputs else Manifest.model_validate_json(path.read_text())
    write_manifest(path, record.model_copy(update=changes), outputs, seal=None if seal is None else lambda _: seal)


def verify(folder: Path, *more: str) -> Run:
    return run_ireu("verify", "--delta", "delta.safetensors", *more, cwd=folder)


def test_who_lacks_the_key_can_make_no_seal(tmp_path: Path) -> None:
    """Nor is a seal what the folder gives away elsewhere: its name, and digests of photos."""
    one, other = RunDir(tmp_path / "one"), RunDir(tmp_path / "other")
    assert one.seal("a" * 64) == RunDir(tmp_path / "one").seal("a" * 64)
    assert len({one.seal("a" * 64), other.seal("a" * 64), one.seal("b" * 64), one.keyed_digest("a" * 64)}) == 4
    sealed = forged("seed")[0].model_copy(update={"digest": "a" * 64, "seal": one.seal("a" * 64)})
    assert one.vouches(sealed)
    assert not other.vouches(sealed)
    assert not one.vouches(sealed.model_copy(update={"digest": "b" * 64}))
    assert not one.vouches(sealed.model_copy(update={"seal": "a" * 64}))


@pytest.mark.parametrize("key", ["null", "own"])
def test_a_record_that_names_no_used_photos_is_refused(fresh: Path, key: str) -> None:
    """All photos would count as never seen."""
    path, delta = fresh / "delta.safetensors.json", fresh / "delta.safetensors"
    record = read_manifest(path)
    changes: dict[str, Any] = {"targets": (), "retain": ()} if key == "own" else {"key": None}
    reseal(path, [delta], record.seal if key == "own" else None, **changes)
    for command in (("verify",), ("export", "--targets", "faces", "--retain", "others")):
        found = run_ireu(*command, "--delta", "delta.safetensors", "-o", "out", cwd=fresh)
        assert found.code == 3, found.err
        assert "which photos were used" in found.err if key == "null" else "is not sealed with the key" in found.err
        assert not (fresh / "out").exists()


def test_deltas_of_earlier_versions_count_where_they_were_made(fresh: Path) -> None:
    """They have no seal; the run folder remembers its own runs."""
    path = fresh / "delta.safetensors.json"
    reseal(path, [fresh / "delta.safetensors"])
    assert read_manifest(path).seal is None
    assert verify(fresh, "-o", "other", "--set", "verify.bootstrap=100").code in {0, 4, 5}
    (fresh / ".ireu" / "locations" / f"{read_manifest(path).digest}.json").unlink()
    assert "is not sealed with the key" in verify(fresh, "-o", "third").err


def test_a_forged_report_is_not_already_complete(fresh: Path) -> None:
    report, record = fresh / "report" / "report.json", fresh / "report" / "manifest.json"
    genuine = read_manifest(record)
    plain = json.loads(report.read_text())
    report.write_text(json.dumps(plain | {"outcome": "pass", "reason": "All is well."}))
    for seal in (None, genuine.seal):
        outputs = [fresh / "report" / one.name for one in genuine.outputs]
        reseal(record, outputs, seal)
        found = verify(fresh)
        assert found.code == 3, found.err
        assert "is not sealed with the key of the run folder" in found.err
        assert "--force" in found.err
    assert "All is well" in report.read_text()
    assert verify(fresh, "--force").code == 4


def test_the_key_alone_suffices_to_trust_what_was_made_with_it(fresh: Path, tmp_path: Path) -> None:
    """As docs/artifacts.md says: keep the run folder, or a copy of its key."""
    (tmp_path / "kept").mkdir()
    shutil.copyfile(fresh / ".ireu" / "key", tmp_path / "kept" / "key")
    more = ("--run-dir", str(tmp_path / "kept"), "--targets", "faces", "--retain", "others", "--encoder", "encoder")
    assert verify(fresh, *more).err.count("already complete") == 1
