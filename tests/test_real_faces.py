"""The whole job on real photos with the embedded encoder, small enough for a test."""

import json
from pathlib import Path

import pytest

from tests.conftest import run_ireu

PICTURES = "[pictures]\ntarget_photos = 2\npeople = 4\nlook_alikes = 2\nphotos = 1\nseeds = 1\nedits_per_photo = 0\n"
"""Few: the features are what this is about."""


@pytest.fixture
def faces(data: Path, tmp_path: Path) -> Path:
    people = [path for path in sorted((data / "faces" / "eval").iterdir()) if path.is_dir()]
    for group, chosen in (("faces", people[6:7]), ("others", people[:6] + people[7:52])):
        for person in chosen:
            (tmp_path / group / person.name).mkdir(parents=True)
            for photo in sorted(person.iterdir())[:10]:
                (tmp_path / group / person.name / photo.name).symlink_to(photo)
    (tmp_path / "ireu.toml").write_text('[data]\ntargets = "faces"\nretain = "others"\nmax_photos = 5\n' + PICTURES)
    return tmp_path


@pytest.mark.slow
def test_the_whole_job_on_real_faces(faces: Path) -> None:
    located = run_ireu("locate", "--json", "--set", "locate.interchange_pairs=4", cwd=faces)
    assert located.code == 0, located.err
    evidence = located.json["metrics"]["evidence"]
    assert evidence["overlap_across_partners"]["mean"] > evidence["chance"] + 0.03
    assert evidence["captured_energy"]["mask"] > evidence["captured_energy"]["random"] + 0.1
    assert run_ireu("unlearn", "--mask", "mask.pt", "--steps", "150", cwd=faces).code == 0
    verified = run_ireu("verify", "--delta", "delta.safetensors", "--set", "attacks.drawn=0", "--json", cwd=faces)
    assert verified.code in {0, 4, 5}
    figures = {(f["name"], f["role"], f["state"]): f["value"] for f in verified.json["report"]["figures"]}
    assert figures["feature_cosine", "target-seen", "change"] < figures["feature_cosine", "retained", "change"]
    assert figures["similarity", "retained", "original"] > figures["impostor_similarity", "retained", "original"] + 0.2
    exported = run_ireu(
        "export", "--allow-failed", "--delta", "delta.safetensors", "--dtype", "float16", "--json", cwd=faces
    )
    assert exported.code == 0, exported.err
    assert json.loads((faces / "encoder-unlearned" / "config.json").read_text())["dtype"] == "float16"


@pytest.mark.slow
def test_detected_faces_give_a_mask_too(faces: Path, data: Path) -> None:
    detect = [
        "--faces",
        "detect",
        "--set",
        f"data.face_models={data}/models/insightface",
        "--set",
        "data.face_pack=mini",
    ]
    found = run_ireu("locate", *detect, "--set", "data.crop_size=112", "--bad-photos", "skip", "--json", cwd=faces)
    assert found.code == 0, found.err
    assert found.json["metrics"]["evidence"]["photos"] == 5
    assert found.out.count("\n") == 1
