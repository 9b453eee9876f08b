"""What requests of one delta share, and what is said where they do not fit each other or the photos."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from ireu_cli.store.manifests import read_manifest, write_manifest
from tests.conftest import Run, copy_with_second_target, manifest, run_ireu

LOCATE = ("locate", "--method", "all")
PEOPLE = ("--set", "gated.people=3")
HERE = ("--targets", "faces", "--retain", "others")
"""In this folder, and not in the one that it is a copy of."""
NO_ATTACKS = ("--set", "attacks.suite=none", "--set", "pictures.generators=none")


def always(seal: str) -> Callable[[str], str]:
    """Puts one seal under whatever is said."""
    return lambda _digest: seal


@pytest.fixture(scope="module")
def begun(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Masks of two people, and a delta of the first one's request, A; tests must not change it."""
    folder = tmp_path_factory.mktemp("requests") / "demo"
    copy_with_second_target(samples, folder)
    file = folder / "ireu.toml"
    file.write_text(file.read_text().replace('method = "ireu"', 'method = "gated"'))
    for run in (
        (*LOCATE,),
        (*LOCATE, "--targets", "more", "-o", "more.pt"),
        ("unlearn", "--mask", "mask.pt", *PEOPLE, "--set", "record.case_id=A", "-o", "one.safetensors"),
    ):
        done = run_ireu(*run, cwd=folder)
        assert done.code == 0, done.err
    return folder


@pytest.fixture
def place(begun: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    shutil.copytree(begun, folder)
    return folder


def onto(folder: Path, *more: str, mask: str = "more.pt", case: str = "B", out: str = "two.safetensors") -> Run:
    given = ("--mask", mask, "--onto", "one.safetensors", "--set", f"record.case_id={case}")
    return run_ireu("unlearn", *given, *more, "-o", out, cwd=folder)


def settings(folder: Path, name: str) -> dict[str, object]:
    found: dict[str, object] = manifest(folder, name)["parameters"]["gated"]
    return found


def photos(folder: Path, name: str, role: str) -> set[str]:
    return {digest for person in manifest(folder, name)[role] for digest in person["photos"]}


class TestSettings:
    def test_what_requests_share_comes_from_the_first_one(self, place: Path) -> None:
        done = onto(place)
        assert done.code == 0, done.err
        assert settings(place, "two.safetensors")["people"] == 3
        assert manifest(place, "two.safetensors")["metrics"]["places"] == {"taken": 2, "all": 3}

    @pytest.mark.parametrize("setting", ["people=4", "gain=1", "confine=true", "copies=flip"])
    def test_a_flag_that_would_have_no_effect_is_refused(self, place: Path, setting: str) -> None:
        done = onto(place, "--set", f"gated.{setting}")
        name = setting.split("=")[0]
        assert (done.code, f"was made with gated.{name} = " in done.err) == (3, True), done.err
        assert not (place / "two.safetensors").exists()

    def test_settings_that_this_tap_does_not_read_are_not_compared(self, place: Path) -> None:
        done = onto(place, "--set", "gated.rank=64")
        assert done.code == 0, done.err

    def test_each_is_granted_an_equal_share(self, place: Path) -> None:
        many = ("--set", "gated.people=25", "--set", "gated.false_alarms=0.1")
        assert run_ireu("unlearn", "--mask", "mask.pt", *many, "-o", "x.safetensors", cwd=place).code == 0
        assert manifest(place, "x.safetensors")["metrics"]["false_alarm_rate_each"] == pytest.approx(0.004)

    def test_a_budget_cannot_be_relabelled(self, place: Path) -> None:
        loose = ("--set", "gated.false_alarms=0.4", "--set", "gated.max_false_alarm=0.2")
        apart = ("--mask", "more.pt", *PEOPLE, *loose, "--set", "record.case_id=B", "-o", "loose.safetensors")
        assert run_ireu("unlearn", *apart, cwd=place).code == 0
        merge = ("unlearn", "--onto", "one.safetensors", "--merge", "loose.safetensors", "-o", "x.safetensors")
        for more in ((), loose):
            done = run_ireu(*merge, *more, cwd=place)
            assert (done.code, "was made with gated.false_alarms = " in done.err) == (3, True), done.err
        withdraw = ("unlearn", "--onto", "one.safetensors", "--withdraw", "A", *loose, "-o", "x.safetensors")
        done = run_ireu(*withdraw, cwd=place)
        assert (done.code, "was made with gated.false_alarms = 0.05" in done.err) == (3, True), done.err
        assert not (place / "x.safetensors").exists()


def test_a_request_that_is_there_is_refused_before_the_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def worked(*_: object) -> None:
        raise AssertionError("the work began")

    monkeypatch.setattr("ireu_cli.unlearning.gated.method.Gated.run", worked)
    for mask, case, words in (
        ("more.pt", "A", "request with the name A exists already"),
        ("mask.pt", "C", "The requests C and"),
    ):
        done = onto(place, mask=mask, case=case)
        assert (done.code, words in done.err) == (3, True), done.err


class TestWhoIsWho:
    def test_photos_that_any_request_used_count_as_used(self, place: Path) -> None:
        assert run_ireu(*LOCATE, "--targets", "more", "--seed", "9", "-o", "more.pt", "--force", cwd=place).code == 0
        assert onto(place, out="apart.safetensors").code == 0
        first, both = (photos(place, f"{name}.safetensors", "retain") for name in ("one", "apart"))
        alone = ("unlearn", "--mask", "more.pt", *PEOPLE, "-o", "alone.safetensors")
        assert run_ireu(*alone, cwd=place).code == 0
        second = photos(place, "alone.safetensors", "retain")
        assert first - second
        assert both == first | second

    def test_a_person_asks_once(self, place: Path) -> None:
        again = onto(place, mask="mask.pt", case="again")
        assert (again.code, "The requests again and A share photos" in again.err) == (3, True)
        same = ("--mask", "mask.pt", *PEOPLE, "--set", "record.case_id=again", "-o", "same.safetensors")
        assert run_ireu("unlearn", *same, cwd=place).code == 0
        merge = ("unlearn", "--onto", "one.safetensors", "--merge", "same.safetensors", "-o", "x.safetensors")
        done = run_ireu(*merge, cwd=place)
        assert (done.code, "and A share photos" in done.err) == (3, True), done.err

    def test_deltas_that_somebody_changed_are_not_joined(self, place: Path) -> None:
        """Their records say which photos were used; without these, they would pass for photos that no edit saw."""
        apart = ("--mask", "more.pt", *PEOPLE, "--set", "record.case_id=B", "-o", "apart.safetensors")
        assert run_ireu("unlearn", *apart, cwd=place).code == 0
        merge = ("unlearn", "--onto", "one.safetensors", "--merge", "apart.safetensors", "-o", "x.safetensors")
        for name in ("apart", "one"):
            delta, path = place / f"{name}.safetensors", place / f"{name}.safetensors.json"
            record = read_manifest(path)
            assert record.targets
            changed = record.model_copy(update={"targets": ()})
            write_manifest(path, changed, [delta], seal=always(record.seal or ""))
            done = run_ireu(*merge, cwd=place) if name == "apart" else onto(place, out="x.safetensors")
            assert (done.code, "is not sealed with the key" in done.err) == (3, True), done.err
            assert not (place / "x.safetensors").exists()

    def test_a_verdict_names_the_requests_it_says_nothing_of(self, place: Path) -> None:
        assert onto(place).code == 0
        (place / "both").mkdir()
        for folder in (place / "faces", place / "more"):
            for person in folder.iterdir():
                shutil.copytree(person, place / "both" / person.name)
        asked = run_ireu("verify", "--delta", "two.safetensors", *NO_ATTACKS, cwd=place)
        assert (asked.code, "--targets" in asked.err) == (3, True), asked.err
        words = "The people behind 1 of the delta's requests (A)"
        for targets, left_out in (("more", True), ("both", False)):
            given = ("--delta", "two.safetensors", "--targets", targets, *NO_ATTACKS, "-o", targets + "-report")
            done = run_ireu("verify", *given, cwd=place)
            assert done.code in {0, 4, 5}, done.err
            assert (words in done.err) == left_out
            report = json.loads((place / (targets + "-report") / "report.json").read_text())
            assert any(words in line for line in report["not_measured"]) == left_out

    def test_who_is_withdrawn_is_not_verified_by_default(self, place: Path) -> None:
        assert onto(place).code == 0
        withdraw = ("unlearn", "--onto", "two.safetensors", "--withdraw", "B", "-o", "left.safetensors")
        assert run_ireu(*withdraw, cwd=place).code == 0
        # Neither the last person's photos, whose place is known, nor those that the file names are taken.
        done = run_ireu("verify", "--delta", "left.safetensors", *NO_ATTACKS, cwd=place)
        assert (done.code, "--targets" in done.err) == (3, True), done.err
        exported = run_ireu("export", "--allow-failed", "--delta", "left.safetensors", "-o", "out", cwd=place)
        assert (exported.code, "the photos are not available" in exported.err) == (0, True), exported.err
        wrong = ("--delta", "left.safetensors", "--targets", "more", *NO_ATTACKS)
        done = run_ireu("verify", *wrong, cwd=place)
        assert (done.code, "Whether the delta unlearns 1 of the 1 targets at all" in done.err) == (4, True), done.err


class TestPhotos:
    def test_a_target_without_a_usable_photo_is_refused(self, place: Path) -> None:
        person = place / "faces" / "nobody"
        person.mkdir()
        (person / "1.png").write_bytes(b"no picture")
        done = run_ireu("unlearn", "--mask", "mask.pt", *HERE, "--bad-photos", "skip", "-o", "x.safetensors", cwd=place)
        assert (done.code, "A target has no usable photo" in done.err) == (3, True), done.err

    def test_what_was_skipped_before_is_refused_when_errors_are_asked_for(self, place: Path) -> None:
        for number, person in enumerate(sorted((place / "others").iterdir())[:20]):
            sorted(person.iterdir())[0].write_bytes(b"no picture" * (number + 1))
        again = ("unlearn", "--mask", "mask.pt", *HERE, *PEOPLE, "--force", "-o", "x.safetensors")
        for _ in range(2):
            skipped = run_ireu(*again, "--bad-photos", "skip", cwd=place)
            assert (skipped.code, "edit site: " in skipped.err) == (0, True), skipped.err
        done = run_ireu(*again, "--bad-photos", "error", cwd=place)
        assert (done.code, "--retain: photo 1 of person" in done.err) == (3, True), done.err

    def test_photos_that_can_be_used_by_now_are_used(self, place: Path) -> None:
        person = sorted((place / "others").iterdir())
        for number, folder in enumerate(person):
            for photo in sorted(folder.iterdir())[:1]:
                with Image.open(photo) as image:
                    image.resize((400 + number, 400)).save(photo)
        shutil.rmtree(place / ".ireu" / "features")
        given = (
            "unlearn",
            "--mask",
            "mask.pt",
            *HERE,
            *PEOPLE,
            "--force",
            "--bad-photos",
            "skip",
            "-o",
            "x.safetensors",
        )
        counts = []
        for limit in ("0.1", "64"):
            assert run_ireu(*given, "--set", f"data.max_megapixels={limit}", cwd=place).code == 0
            counts.append(manifest(place, "x.safetensors")["metrics"]["retained_photos"])
        late = (place / "x.safetensors").read_bytes()
        shutil.rmtree(place / ".ireu" / "features")
        assert run_ireu(*given, cwd=place).code == 0
        assert counts[0] < counts[1] == manifest(place, "x.safetensors")["metrics"]["retained_photos"]
        assert (place / "x.safetensors").read_bytes() == late

    def test_a_target_among_retained_people_is_told(self, place: Path) -> None:
        words = "photos of the person are in the --retain folder"
        plain = ("unlearn", "--mask", "mask.pt", *HERE, *PEOPLE, "--set", "gated.copies=", "-o", "x.safetensors")
        assert words not in run_ireu(*plain, cwd=place).err
        for number in range(4):
            folder = place / "others" / f"copy-{number}"
            folder.mkdir()
            for person in (place / "faces").iterdir():
                for photo in person.iterdir():
                    with Image.open(photo) as image:
                        image.rotate(number + 1).save(folder / f"{person.name}-{photo.stem}.png")
        done = run_ireu(*plain, "--force", cwd=place)
        assert (done.code, words in done.err) == (0, True), done.err


def test_a_case_that_is_no_text_is_refused(place: Path) -> None:
    done = run_ireu("unlearn", "--mask", "mask.pt", "--set", "record.case_id=\udcff", "-o", "x.safetensors", cwd=place)
    assert (done.code, "record.case_id holds bytes that are not UTF-8 text" in done.err) == (3, True), done.err
