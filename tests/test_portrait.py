"""The whole job on a portrait bundle as the default encoder, with pictures; random weights, so no verdict counts."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ireu_cli.encoders.clip import load_encoder, with_delta
from ireu_cli.encoders.files import portrait as bundle
from ireu_cli.generators.generator import Generator, load_generators
from ireu_cli.params import EncoderParams
from ireu_cli.store.artifacts import read_delta
from ireu_cli.store.manifests import read_manifest
from ireu_cli.store.picture_cache import PictureCache
from tests.conftest import Run, plant_manifest, run_ireu
from tests.tiny_portrait import LANDMARKS, write_face_encoder

FEW = (
    "pictures.people=3",
    "pictures.look_alikes=2",
    "pictures.target_photos=2",
    "pictures.photos=1",
    "verify.pictures=true",
    "attacks.suite=none",
)
PICTURES = (2 + 2 + 2 + 3) * 3
"""Target photos seen and unseen, look-alikes, retained people; two seeds and one edit each."""
FIRST = 2
"""The pictures of the first look: one for each target photo that unlearning did not see."""


@pytest.fixture(autouse=True)
def _embedded(portrait: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "embedded_folder", lambda: portrait)


def verify(folder: Path, *arguments: str) -> Run:
    sets = [part for text in FEW for part in ("--set", text)]
    return run_ireu("verify", "--delta", "delta.safetensors", *sets, *arguments, cwd=folder)


@pytest.fixture(scope="module")
def done(samples: Path, portrait: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Locate, unlearn and verify without naming an encoder."""
    folder = tmp_path_factory.mktemp("portrait") / "demo"
    shutil.copytree(samples, folder, ignore=shutil.ignore_patterns("encoder", "ireu.toml"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "embedded_folder", lambda: portrait)
        where = ("--targets", "faces", "--retain", "others", "--max-photos", "5")
        assert run_ireu("locate", *where, "--set", "locate.interchange_pairs=0", cwd=folder).code == 0
        fast = (
            "--method",
            "ireu",
            "--steps",
            "5",
            "--set",
            "unlearn.learning_rate=0.02",
            "--set",
            "unlearn.divergence_factor=1e9",
        )
        assert run_ireu("unlearn", "--mask", "mask.pt", *fast, cwd=folder).code == 0
        found = verify(folder, "--keep-images", "--json")
        assert found.code == 5, found.err
        (folder / "said").write_text(found.err)
    return folder


@pytest.fixture
def again(done: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    shutil.copytree(done, folder)
    return folder


def test_the_embedded_encoder_is_the_default_and_brings_its_landmarks(done: Path, portrait: Path) -> None:
    record = json.loads((done / "mask.pt.json").read_text())
    assert record["parameters"]["data"]["landmarks"] == list(LANDMARKS)
    assert record["encoder"]["architecture"].startswith("clip-vit 16x3")
    assert str(portrait) not in (done / "mask.pt.json").read_text()


def test_every_generator_is_measured_and_the_effort_is_told_first(done: Path) -> None:
    report = json.loads((done / "report" / "report.json").read_text())
    assert report["level"] == "generator"
    assert {figure["generator"] for figure in report["figures"]} == {None, "A", "B"}
    assert not [text for text in report["not_measured"] if text.startswith("Generated pictures")]
    said = (done / "said").read_text()
    assert (
        f"{PICTURES} before and {PICTURES} after with each generator (A, B); {4 * PICTURES - 2 * FIRST} to draw" in said
    )
    counted = [
        f["photos"] for f in report["figures"] if (f["name"], f["role"], f["generator"]) == ("psnr", "retained", "A")
    ]
    assert counted == [9]


def test_a_first_look_comes_before_everything_else_is_drawn(done: Path) -> None:
    file, said = done / ".ireu" / "looks" / "A-target-unseen.png", (done / "said").read_text()
    assert file.read_bytes() == (done / "report" / "pictures" / file.name).read_bytes()
    assert file.stat().st_mode & 0o077 == 0
    told = [
        f"first pictures: {FIRST} before and {FIRST} after with generator A; {2 * FIRST} to draw",
        f"Look at {file} meanwhile",
        f"pictures: {PICTURES} before",
    ]
    places = [said.index(text) for text in told]
    assert places == sorted(places)


def test_pictures_are_those_of_the_photo_prompt_seed_and_encoder_they_are_filed_under(
    done: Path, portrait: Path
) -> None:
    original = load_encoder(EncoderParams(source=str(portrait)), "cpu")
    edited = with_delta(original, read_delta(done / "delta.safetensors"))
    generators = {generator.name: generator for generator in load_generators(str(portrait), None, "cpu")}
    people = [sorted((done / name).iterdir()) for name in ("faces", "others")]
    with (done / "report" / "images" / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in (rows[0], rows[1], rows[-5], rows[-6], rows[len(rows) // 2 - 1]):
        person = people[0 if row["role"].startswith("target") else 1][int(row["person"]) - 1]
        photo = np.asarray(Image.open(sorted(person.iterdir())[int(row["photo"]) - 1]))
        generator = generators[row["generator"]]
        filed = np.asarray(Image.open(done / "report" / "images" / row["file"])).astype(int)
        far = {}
        for state, encoder in (("original", original), ("edited", edited)):
            features = encoder.encode(encoder.pixels([photo]), generator.tap)
            null = encoder.null_features(generator.tap)
            drawn = generator.draw(features, null, [row["prompt"]], [int(row["seed"])])[0]
            far[state] = int(np.abs(drawn.astype(int) - filed).max())
        # Features are encoded in batches, whose last bits may move a value across a rounding border.
        assert far.pop(row["state"]) <= 1
        assert min(far.values()) > 5


def test_kept_images_have_an_index(done: Path) -> None:
    folder = done / "report" / "images"
    with (folder / "index.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["generator", "role", "person", "photo", "prompt", "seed", "state", "file"]
    assert sorted(row["file"] for row in rows) == sorted(path.name for path in folder.glob("*.png"))
    assert len(rows) == 4 * PICTURES
    assert {row["role"] for row in rows} == {"target-seen", "target-unseen", "look-alike", "retained"}
    assert {row["state"] for row in rows} == {"original", "edited"}
    record = json.loads((done / "report" / "manifest.json").read_text())
    assert {f"images/{row['file']}" for row in rows} < {output["name"] for output in record["outputs"]}
    prompts = {row["prompt"] for row in rows}
    assert "a face" in prompts
    assert "a face, dark" in prompts


def test_the_page_shows_photos_before_and_after_and_needs_nothing_else(done: Path) -> None:
    grids = sorted((done / "report" / "pictures").glob("*.png"))
    assert [path.name for path in grids] == [
        f"{g}-{role}.png" for g in "AB" for role in ("look-alike", "retained", "target-seen", "target-unseen")
    ]
    page = (done / "report" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(grids)
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    grid = np.asarray(Image.open(grids[1]))
    assert grid.shape == (3 * 32 + 2 * 4, 3 * 32 + 2 * 4, 3)
    with (done / "report" / "images" / "index.csv").open() as file:
        row = next(r for r in csv.DictReader(file) if r["role"] == "retained" and r["prompt"] == "a face")
    first = np.asarray(Image.open(done / "report" / "images" / row["file"]))
    np.testing.assert_array_equal(grid[36:68, :32], first)


def test_nothing_is_drawn_twice(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = (again / "report" / "report.json").read_bytes()
    shutil.rmtree(again / "report")

    def never(*_: object) -> None:
        raise AssertionError("drawn again")

    monkeypatch.setattr(Generator, "draw", never)
    found = verify(again, "--keep-images")
    assert found.code == 5, found.err
    assert "all exist from an earlier run" in found.err
    assert (again / "report" / "report.json").read_bytes() == report


def test_a_damaged_picture_is_drawn_again(again: Path) -> None:
    report = (again / "report" / "report.json").read_bytes()
    shutil.rmtree(again / "report")
    kept = sorted((again / ".ireu" / "pictures").rglob("*.png"))
    assert len(kept) == 4 * PICTURES
    kept[0].write_bytes(kept[0].read_bytes()[:50])
    kept[1].unlink()
    found = verify(again, "--keep-images")
    assert sum(map(int, re.findall(r"; (\d+) to draw", found.err))) == 2
    assert (again / "report" / "report.json").read_bytes() == report


SUITE = "flip,jpeg-30,average,prompts,seeds,guidance,scale,pgd,pgd-generator,relearn"
FAST = ("people=1", "photos=2", "drawn=1", "seeds=2", "pgd_steps=2", "generator_steps=1", "relearn_steps=5")


def test_attacks_are_tried_on_features_pictures_and_the_gate(again: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [part for text in FAST for part in ("--set", f"attacks.{text}")]
    already = len(list((again / ".ireu" / "pictures").rglob("*.png")))
    found = verify(again, "--set", f"attacks.suite={SUITE}", *sets, "-o", "attacked")
    assert found.code == 5, found.err
    each = 4 + 6 + 2 + 2 + 2 + 3 + 1  # photos and average, prompts, seeds, guidance, scale, noise, noise through A or B
    assert len(list((again / ".ireu" / "pictures").rglob("*.png"))) - already == 2 * 2 * each
    assert f"attacks: {4 * each} pictures; {4 * each} to draw" in found.err
    report = json.loads((again / "attacked" / "report.json").read_text())
    tried = {(f["attack"], f["generator"], f["state"]) for f in report["figures"] if f["name"] == "attack_success"}
    photo = ["none", "flip", "jpeg-30", "average", "pgd-2", "pgd-4", "pgd-8"]
    assert {(a, None, s) for a in photo for s in ("original", "edited")} == {one for one in tried if one[1] is None}
    drawn = [*photo, "pgd-generator", "seeds-2", "prompt: dark", "guidance-2", "guidance-8", "scale-0.6", "scale-1.5"]
    assert {(a, "A", s) for a in drawn for s in ("original", "edited")} <= tried
    measures = {f["measure"] for f in report["figures"] if f["name"] == "attack_success" and f["generator"]}
    assert measures == {"tiny", "face-encoder"}
    assert {f["attack"] for f in report["figures"] if f["name"] == "relearned"} == {"relearn-0", "relearn-5"}
    gate = {f["attack"] for f in report["figures"] if f["name"] == "gate_evaded"}
    assert gate == {"none", "flip", "jpeg-30", "pgd-2", "pgd-4", "pgd-8"}
    assert {"gate_caught", "gate_false_refusal", "gate_beaten"} <= {f["name"] for f in report["figures"]}
    assert {c["generator"] for c in report["criteria"] if c["name"] == "attacks"} == {None, "A", "B"}
    assert set(report["record"]["attacks_tried"]) >= {"flip", "pgd-8", "relearn-5"}
    told = {f["name"] for f in report["figures"]} | {f["attack"] for f in report["figures"] if f["attack"]}
    assert told == set(report["definitions"])

    def never(*_: object) -> None:
        raise AssertionError("drawn again")

    before = (again / "attacked" / "report.json").read_bytes()
    shutil.rmtree(again / "attacked")
    monkeypatch.setattr(Generator, "draw", never)
    assert verify(again, "--set", f"attacks.suite={SUITE}", *sets, "-o", "attacked").code == 5
    assert (again / "attacked" / "report.json").read_bytes() == before


def test_an_attack_that_does_not_exist_is_named(again: Path) -> None:
    found = verify(again, "--set", "attacks.suite=flip,tickle", "-o", "other")
    assert found.code == 3
    assert "tickle" in found.err


def test_two_recognisers_judge_and_fewer_are_refused(again: Path, portrait: Path) -> None:
    report = json.loads((again / "report" / "report.json").read_text())
    assert [one["recogniser"] for one in report["recognisers"]] == ["tiny", "face-encoder"]
    assert {f["measure"] for f in report["figures"] if f["name"] == "id_original"} == {"tiny", "face-encoder"}
    found = verify(again, "--set", "judges.embedded=false", "-o", "none")
    assert found.code == 3
    assert "0 recognisers may judge, and 2 are needed" in found.err
    own = [{"name": "mine", "model": str(portrait / "face_encoder.onnx")}]
    found = verify(again, "--set", f"judges.recognisers={json.dumps(own)}", "-o", "twice")
    assert found.code == 3
    assert "same network" in found.err
    other = write_face_encoder(again / "other.onnx", 6)
    own = [{"name": "mine", "model": str(other)}]
    found = verify(again, "--set", f"judges.recognisers={json.dumps(own)}", "-o", "three")
    assert found.code == 5, found.err
    three = json.loads((again / "three" / "report.json").read_text())
    assert [one["recogniser"] for one in three["recognisers"]] == ["tiny", "face-encoder", "mine"]
    text = (again / "three" / "report.json").read_text() + (again / "three" / "manifest.json").read_text()
    assert "other.onnx" not in text


def test_a_recogniser_that_helped_to_make_the_mask_does_not_judge(again: Path) -> None:
    record = read_manifest(again / "delta.safetensors.json")
    parameters = record.parameters | {"locate": record.parameters["locate"] | {"method": "saliency"}}
    delta = again / "delta.safetensors"
    plant_manifest(again / "delta.safetensors.json", record.model_copy(update={"parameters": parameters}), [delta])
    found = verify(again, "--targets", "faces", "--retain", "others", "-o", "other")
    assert found.code == 3
    assert "1 recognisers may judge, and 2 are needed; tiny helped to make the mask" in found.err


def test_labels_split_retained_people(again: Path) -> None:
    people = sorted(path.name for path in (again / "others").iterdir())
    rows = "".join(f"{name},{'even' if n % 2 else 'odd'}\n" for n, name in enumerate(people))
    (again / "labels.csv").write_text("person,turn\n" + rows)
    # Of each label three people have to be drawn, or no figures of pictures are split by it.
    found = verify(again, "--set", "data.labels=labels.csv", "--set", "pictures.people=12", "-o", "split")
    assert found.code == 5, found.err
    text = (again / "split" / "report.json").read_text()
    groups = {(f["name"], f["group"]) for f in json.loads(text)["figures"] if f["group"]}
    assert {("feature_cosine", "turn = even"), ("feature_cosine", "turn = odd")} <= groups
    assert {"id_generated", "psnr"} <= {name for name, _ in groups}
    assert "labels.csv" not in text
    assert not [name for name in people if name in text]


def test_without_pictures_or_generators(again: Path) -> None:
    found = verify(again, "--set", "verify.pictures=false", "-o", "plain")
    assert found.code == 5, found.err
    assert sorted(path.name for path in (again / "plain").iterdir()) == [
        "audit.html",
        "manifest.json",
        "person.html",
        "report.html",
        "report.json",
    ]
    assert json.loads((again / "plain" / "report.json").read_text())["level"] == "generator"
    found = verify(again, "--set", "pictures.generators=none", "-o", "features")
    assert found.code == 5, found.err
    report = json.loads((again / "features" / "report.json").read_text())
    assert report["level"] == "encoder"
    assert report["not_measured"][0].startswith("Generated pictures")
    found = verify(again, "--set", "pictures.generators=B", "--set", "pictures.edits=", "-o", "one")
    figures = json.loads((again / "one" / "report.json").read_text())["figures"]
    assert {figure["generator"] for figure in figures} == {None, "B"}
    assert not [figure for figure in figures if figure["name"] == "prompt_adherence"]


def test_a_bundle_whose_generators_are_not_there_yet_is_judged_by_its_features(
    again: Path, portrait: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(portrait, again / "early")
    index = json.loads((again / "early" / "portrait.json").read_text())
    (again / "early" / "portrait.json").write_text(json.dumps(index | {"generators": []}))
    monkeypatch.setattr(bundle, "embedded_folder", lambda: again / "early")
    found = verify(again, "-o", "features")
    assert found.code == 5, found.err
    assert "before and" not in found.err
    report = json.loads((again / "features" / "report.json").read_text())
    assert report["level"] == "encoder"
    assert report["not_measured"][0].startswith("Generated pictures")


@pytest.mark.parametrize("text", ["pictures.generators=Z", "pictures.edits=dark,purple"])
def test_what_does_not_exist_is_named(again: Path, text: str) -> None:
    found = verify(again, "--set", text, "-o", "other")
    assert found.code == 3
    assert text.split(",")[-1].split("=")[-1] in found.err
    assert text.split("=")[0] in found.err


def test_somebodys_own_file_among_the_images_is_never_replaced(again: Path) -> None:
    (again / "report" / "images" / "notes.txt").write_text("mine")
    found = verify(again, "--force")
    assert found.code == 3
    assert (again / "report" / "images" / "notes.txt").read_text() == "mine"


PAPERS = ("--method", "ireu", "--steps", "2")


def test_the_bundles_encoder_is_exported_with_its_preprocessing(again: Path, portrait: Path) -> None:
    shutil.copytree(portrait, again / "own")
    settings = '{"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}}'
    (again / "own" / "image_encoder" / "preprocessor_config.json").write_text(settings)
    arguments = ("--encoder", "own", "--targets", "faces", "--retain", "others", "--max-photos", "3")
    assert run_ireu("locate", *arguments, "--set", "locate.interchange_pairs=0", "-o", "m.pt", cwd=again).code == 0
    assert run_ireu("unlearn", "--mask", "m.pt", *PAPERS, "-o", "d.safetensors", cwd=again).code == 0
    assert run_ireu("export", "--allow-failed", "--delta", "d.safetensors", "-o", "e", cwd=again).code == 0
    assert (again / "e" / "preprocessor_config.json").read_text() == settings


def test_without_the_bundle_it_says_so(samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "embedded_folder", lambda: tmp_path / "nowhere")
    found = run_ireu("locate", "--targets", samples / "faces", "--retain", samples / "others", cwd=tmp_path)
    assert found.code == 3
    assert "portrait-mini" in found.err
    assert "--encoder" in found.err
    assert found.out == ""


def test_pictures_are_kept_by_what_decides_them(tmp_path: Path) -> None:
    keys = {PictureCache.key(*parts) for parts in (("a", "b", 1), ("a", "b", 2), ("a", "c", 1), ("ab", "", 1))}
    assert len(keys) == 4
    cache = PictureCache(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (5, 5, 3), np.uint8)
    cache.put("ab12", picture)
    found = cache.get("ab12")
    assert found is not None
    np.testing.assert_array_equal(found, picture)
    assert cache.get("ab13") is None
