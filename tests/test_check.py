"""`ireu check`: every kind of mix-up is called by its name, and every trap that stands in a folder is named."""

import json
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from model_signing import signing
from safetensors.torch import load_file, save_file

from ireu_cli.checking.traps import Place, traps_at
from ireu_cli.manifest import parse_manifest
from ireu_cli.store.manifests import write_manifest
from tests.conftest import Run, run_ireu

WEIGHTS = "model.safetensors"


def check(*arguments: object, cwd: Path) -> tuple[Run, Any]:
    found = run_ireu("check", *arguments, "--json", cwd=cwd)
    return found, json.loads(found.out)


def again(folder: Path, name: str, case: str) -> Path:
    """Another edit of the same encoder, exported."""
    unlearn = ("unlearn", "--mask", "mask.pt", "--method", "gated", "--set", f"record.case_id={case}")
    settings = ("--set", "gated.people=1", "--set", "gated.max_false_alarm=0.2", "-o", f"{name}.safetensors")
    assert run_ireu(*unlearn, *settings, cwd=folder).code == 0
    export = ("export", "--delta", f"{name}.safetensors", "--allow-failed", "-o", name)
    done = run_ireu(*export, cwd=folder)
    assert done.code == 0, done.err
    return folder / name


@pytest.mark.parametrize("name", ["mask.pt", "delta.safetensors", "report", "encoder-unlearned", "report/report.json"])
def test_what_nobody_touched_is_as_recorded(job: Path, name: str) -> None:
    done, told = check(name, cwd=job)
    assert done.code == 0
    assert told["verdict"] == "as recorded"
    assert told["warnings"] == []
    assert told["seal"].startswith("by the run folder")
    assert told["as_recorded"] > 0
    assert told["wrong"] == {}
    assert told["not_in_the_record"] == []


def test_it_needs_no_run_folder(fresh: Path) -> None:
    shutil.rmtree(fresh / ".ireu")
    assert check("encoder-unlearned", cwd=fresh)[0].code == 0
    assert not (fresh / ".ireu").exists()


def test_one_byte_is_named(fresh: Path) -> None:
    for name, path in (
        ("delta.safetensors", "delta.safetensors"),
        ("encoder-unlearned", f"encoder-unlearned/{WEIGHTS}"),
    ):
        data = bytearray((fresh / path).read_bytes())
        data[-5] ^= 1
        (fresh / path).write_bytes(bytes(data))
        done, told = check(name, cwd=fresh)
        assert done.code == 4
        assert told["verdict"] == "not as recorded"
        assert told["wrong"][Path(path).name] == "changed since"


def test_a_record_that_was_changed_is_named(fresh: Path) -> None:
    record = fresh / "delta.safetensors.json"
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1'))
    done, told = check("delta.safetensors", cwd=fresh)
    assert done.code == 4
    assert "was changed after it was written" in told["holds"]


def test_the_original_copied_back_is_named(fresh: Path) -> None:
    shutil.copy(fresh / "encoder" / WEIGHTS, fresh / "encoder-unlearned" / WEIGHTS)
    done, told = check("encoder-unlearned", cwd=fresh)
    assert done.code == 4
    assert told["holds"].startswith("THE ORIGINAL of encoder-unlearned")
    assert told["cases"] == []
    # Elsewhere, without a record beside it, the export has to be named.
    done, told = check("encoder", "--record", "encoder-unlearned", cwd=fresh)
    assert done.code == 4
    assert "THE ORIGINAL" in told["holds"]
    done, told = check("encoder", cwd=fresh)
    assert done.code == 5
    assert told["verdict"] == "unknown"


def test_a_half_written_file_is_named(fresh: Path) -> None:
    weights = fresh / "encoder-unlearned" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:1000])
    done, told = check("encoder-unlearned", cwd=fresh)
    assert done.code == 4
    assert told["wrong"][WEIGHTS] == "changed since"
    assert "nothing that can be read as an encoder" in told["holds"]
    weights.unlink()
    assert check("encoder-unlearned", cwd=fresh)[1]["wrong"][WEIGHTS] == "missing"


def test_an_old_export_and_somebody_elses_are_told_apart(fresh: Path) -> None:
    old, new = again(fresh, "old", "2026-1"), again(fresh, "new", "2026-2")
    assert json.loads((old / "ireu.json").read_text())["metrics"]["cases"] == ["2026-1"]
    assert json.loads((new / "ireu.json").read_text())["metrics"]["cases"] == ["2026-2"]
    done, told = check("encoder-unlearned", "--record", "new", cwd=fresh)
    assert done.code == 4
    assert told["holds"].startswith("the edited encoder of another export, encoder-unlearned")
    done, told = check("new", "--record", "new", cwd=fresh)
    assert done.code == 0
    assert told["cases"] == ["2026-2"]
    assert "it honours case 2026-2" in told["holds"]
    # Somebody else's: neither the original nor an export that is known.
    tensors = load_file(fresh / "encoder" / WEIGHTS)
    name = next(name for name, tensor in sorted(tensors.items()) if tensor.ndim == 2)
    shutil.copytree(fresh / "encoder", fresh / "theirs")
    save_file(tensors | {name: tensors[name] + 1}, fresh / "theirs" / WEIGHTS)
    done, told = check("theirs", "--record", "new", "--record", "encoder-unlearned", cwd=fresh)
    assert done.code == 4
    assert told["holds"].startswith("none that the records know")


def test_the_same_weights_in_other_bytes_are_the_wanted_encoder(fresh: Path) -> None:
    """A server may keep them in shards, or under another name."""
    shutil.copytree(fresh / "encoder-unlearned", fresh / "served")
    (fresh / "served" / "ireu.json").unlink()
    tensors = load_file(fresh / "served" / WEIGHTS)
    save_file({name: tensor.float() for name, tensor in reversed(tensors.items())}, fresh / "served" / WEIGHTS)
    done, told = check("served", "--record", "encoder-unlearned", cwd=fresh)
    assert done.code == 0, told
    assert told["holds"].startswith("the edited encoder of encoder-unlearned")


def test_one_file_of_an_export_is_checked_alone(fresh: Path) -> None:
    (fresh / "encoder-unlearned" / "README.md").unlink()
    assert check("encoder-unlearned", cwd=fresh)[0].code == 4
    assert check(f"encoder-unlearned/{WEIGHTS}", cwd=fresh)[0].code == 0


def test_a_signature_is_verified(fresh: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    none = serialization.NoEncryption()
    (fresh / "key").write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, none))
    public = serialization.PublicFormat.SubjectPublicKeyInfo
    (fresh / "key.pub").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, public))
    signer = signing.Config().use_elliptic_key_signer(private_key=fresh / "key")  # type: ignore[no-untyped-call]
    signer.sign(fresh / "encoder-unlearned", fresh / "sig")
    flags = ("--signature", "sig", "--public-key", "key.pub")
    done, told = check("encoder-unlearned", *flags, cwd=fresh)
    assert done.code == 0
    assert told["signature"] == "valid, by key.pub"
    (fresh / "encoder-unlearned" / "more.txt").write_text("x")
    done, told = check("encoder-unlearned", *flags, cwd=fresh)
    assert done.code == 4
    assert told["signature"].startswith("NOT VALID")
    assert run_ireu("check", "encoder-unlearned", "--signature", "sig", cwd=fresh).code == 2


def test_what_is_not_there_and_what_is_no_record_is_refused(fresh: Path) -> None:
    assert run_ireu("check", "nothing", cwd=fresh).code == 3
    refused = run_ireu("check", "encoder", "--record", "mask.pt", cwd=fresh)
    assert refused.code == 3
    assert "not the record of an export" in refused.err


def put(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"weights")
    return folder


@pytest.mark.parametrize(
    ("names", "place", "words"),
    [
        (("e/model.safetensors", "e/model.safetensors.bak"), "e", "puts it back"),
        (("antelopev2/glintr100.onnx", "antelopev2/glintr100.bak.onnx"), "antelopev2", "may take it by its name"),
        (("e/model.safetensors", "e/model.safetensors~"), "e", "puts it back"),
        (("e/model.safetensors", "e/model-orig.safetensors"), "e", "puts it back"),
        (("e/model.safetensors", "original_e/model.safetensors"), "e", "puts it back"),
        (("e/model.safetensors", "e/model.fp16.safetensors"), "e", "may take it instead"),
        (("antelopev2/glintr100.onnx",), "antelopev2/glintr100.onnx", "nunchaku"),
        (("a/arcface_w600k_r50.onnx",), "a/arcface_w600k_r50.onnx", "is missing: it downloads the original"),
        (("a/arcface_w600k_r50.onnx", "a/arcface_w600k_r50.hash"), "a", "does not fit: it downloads the original"),
        (("buffalo_l/w600k_r50.onnx", "buffalo_l/det_10g.onnx"), "buffalo_l", "genderage.onnx of buffalo_l is missing"),
        (("models--h94--IP-Adapter/snapshots/abc/e/model.safetensors",), "models--h94--IP-Adapter/snapshots/abc/e",
         "cache of the hub"),
        (("m/image_encoder/model.safetensors", "m/ip-adapter_sd15.bin"), "m/image_encoder", "unload_ip_adapter"),
        (("clip_vision/edited.safetensors", "clip_vision/h.safetensors"), "clip_vision/edited.safetensors",
         "perhaps h.safetensors"),
    ],
)  # fmt: skip
def test_every_trap_is_named(names: tuple[str, ...], place: str, words: str, tmp_path: Path) -> None:
    put(tmp_path, *names)
    found = traps_at(Place.of(tmp_path / place, ["model.safetensors"]))
    assert words in " ".join(found)


def test_a_place_without_traps_is_quiet(tmp_path: Path) -> None:
    put(tmp_path, "e/model.safetensors", "e/config.json", "e/README.md.bak", "a/arcface_w600k_r50.onnx",
        "buffalo_l/w600k_r50.onnx", "buffalo_l/det_10g.onnx", "buffalo_l/genderage.onnx")  # fmt: skip
    (tmp_path / "a" / "arcface_w600k_r50.hash").write_text(format(zlib.crc32(b"weights"), "08x"))
    recorded = ["model.safetensors", "arcface_w600k_r50.onnx", "w600k_r50.onnx", "det_10g.onnx", "genderage.onnx"]
    for place in ("e", "a", "a/arcface_w600k_r50.onnx", "buffalo_l", "buffalo_l/w600k_r50.onnx"):
        assert traps_at(Place.of(tmp_path / place, recorded)) == []


def test_warnings_alone_do_not_change_the_verdict(fresh: Path) -> None:
    shutil.copy(fresh / "encoder-unlearned" / WEIGHTS, fresh / "encoder-unlearned" / f"{WEIGHTS}.bak")
    done, told = check("encoder-unlearned", cwd=fresh)
    assert done.code == 0
    assert told["not_in_the_record"] == [f"{WEIGHTS}.bak"]
    assert len(told["warnings"]) == 2
    shown = run_ireu("check", "encoder-unlearned", cwd=fresh)
    assert "warnings      model.safetensors.bak lies in encoder-unlearned" in shown.out


def wanted(folder: Path) -> Path:
    """A folder that holds the edited encoder, without a record, as a server may have it."""
    shutil.copytree(folder / "encoder-unlearned", folder / "served")
    (folder / "served" / "ireu.json").unlink()
    return folder / "served"


def named(fresh: Path, path: str) -> tuple[Run, Any]:
    return check(path, "--record", "encoder-unlearned", cwd=fresh)


def test_a_record_of_something_else_vouches_for_nothing(fresh: Path) -> None:
    """Somebody puts the original where the export was, and a sealed record beside it."""
    original = fresh / "encoder" / WEIGHTS
    shutil.copy(original, fresh / "srv.safetensors")
    shutil.copy(fresh / "encoder" / "config.json", fresh / "config.json")
    shutil.copy(fresh / "encoder-unlearned" / "ireu.json", fresh / "srv.safetensors.json")
    done, told = named(fresh, "srv.safetensors")
    assert done.code == 4
    assert "THE ORIGINAL" in told["holds"]
    shutil.move(fresh / "delta.safetensors", fresh / "moved")
    shutil.move(fresh / "delta.safetensors.json", fresh / "moved.json")
    assert check("moved", cwd=fresh)[0].code == 5


def test_a_record_that_somebody_made_is_not_believed(fresh: Path) -> None:
    """All digests fit, and it calls the original the edited encoder: what counts is the export that you name."""
    forged = fresh / "forged"
    shutil.copytree(fresh / "encoder", forged)
    genuine = parse_manifest((fresh / "encoder-unlearned" / "ireu.json").read_bytes(), "ireu.json")
    write_manifest(forged / "ireu.json", genuine, [forged / WEIGHTS, forged / "config.json"])
    done, told = named(fresh, "forged")
    assert done.code == 4
    assert "THE ORIGINAL" in told["holds"]
    assert check("forged", cwd=fresh)[0].code == 4, "its own record names another encoder than the weights are"
    write_manifest(forged / "ireu.json", genuine, [])
    assert check("forged", cwd=fresh)[0].code == 4, "a record of nothing"


@pytest.mark.parametrize("name", ["model.fp16.safetensors", "pytorch_model.safetensors"])
def test_another_encoder_that_a_loader_may_take_counts(name: str, fresh: Path) -> None:
    served = wanted(fresh)
    assert named(fresh, "served")[0].code == 0
    shutil.copy(fresh / "encoder" / WEIGHTS, served / name)
    done, told = named(fresh, "served")
    assert done.code == 4
    assert f"But {name} beside it is THE ORIGINAL" in told["holds"]
    shutil.copy(fresh / "encoder" / WEIGHTS, fresh / "encoder-unlearned" / name)
    assert check("encoder-unlearned", cwd=fresh)[0].code == 4
    shutil.copy(served / WEIGHTS, served / name)
    assert named(fresh, "served")[0].code == 0, "the same encoder twice"


def test_what_changes_the_encoder_without_its_weights_counts(fresh: Path) -> None:
    served = wanted(fresh)
    config = json.loads((served / "config.json").read_text())
    (served / "config.json").write_text(json.dumps(config | {"hidden_act": "relu"}))
    done, told = named(fresh, "served")
    assert done.code == 4
    assert "another activation" in told["holds"]
    (served / "config.json").write_text(json.dumps(config | {"transformers_weights": "weights2.safetensors"}))
    done, told = named(fresh, "served")
    assert done.code == 4
    assert "makes transformers load other weights" in told["holds"]
    (served / "config.json").write_text(json.dumps(config))
    (served / "adapter_config.json").write_text("{}")
    assert named(fresh, "served")[0].code == 4


def test_what_is_no_encoder_is_not_the_wanted_one(fresh: Path) -> None:
    for path in ("mask.pt", "delta.safetensors", "report"):
        done, told = named(fresh, path)
        assert done.code == 4, path
        assert "which is no encoder" in told["holds"]
    (fresh / "plain.txt").write_text("x")
    assert check("plain.txt", cwd=fresh)[0].code == 5
    assert named(fresh, "plain.txt")[0].code == 4


def test_links_and_closed_folders_in_an_export_are_named(fresh: Path) -> None:
    (fresh / "encoder-unlearned" / "image_encoder").symlink_to(fresh / "encoder")
    told = check("encoder-unlearned", cwd=fresh)[1]
    assert told["not_in_the_record"] == ["image_encoder"]


def test_pipes_and_devices_hang_nothing(fresh: Path) -> None:
    os.mkfifo(fresh / "pipe.onnx")
    (fresh / "device.onnx").symlink_to("/dev/zero")
    (fresh / "pack").mkdir()
    os.mkfifo(fresh / "pack" / "arcface_w600k_r50.onnx")
    (fresh / "pack" / "arcface_w600k_r50.hash").write_text("x")
    for path in ("pipe.onnx", "device.onnx"):
        assert run_ireu("check", path, cwd=fresh).code == 3
        assert run_ireu("inspect", path, cwd=fresh).code == 3
    assert check("pack", cwd=fresh)[0].code == 5


def test_a_key_that_is_none_is_one_sentence(fresh: Path) -> None:
    (fresh / "sig").write_text("{}")
    (fresh / "key.pub").write_text("no key")
    done, told = check("encoder-unlearned", "--signature", "sig", "--public-key", "key.pub", cwd=fresh)
    assert done.code == 4
    assert told["signature"].startswith("NOT VALID")
