"""The method `gated` as users run it: on drawn people and their small encoder, and on the sample people."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ireu_cli.encoders.clip import Encoder, last_state, load_encoder, read_tap, with_delta
from ireu_cli.maths import room
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.store.artifacts import read_delta
from ireu_cli.unlearning.gated import solve as gated
from ireu_cli.unlearning.gated.tokens import replacing as carried
from ireu_cli.values import Ledger
from tests.conftest import Run, copy_with_second_target, manifest, run_ireu

FEATURES = ("--set", "attacks.suite=none", "--set", "pictures.generators=none")


@pytest.fixture(scope="module")
def located(samples: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn people with a second target folder, and a mask of all features; tests must not change it."""
    folder = tmp_path_factory.mktemp("gated") / "demo"
    copy_with_second_target(samples, folder)
    assert run_ireu("locate", "--method", "all", cwd=folder).code == 0
    return folder


@pytest.fixture
def place(located: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    shutil.copytree(located, folder)
    return folder


def unlearn(folder: Path, *more: str, mask: bool = True) -> Run:
    given = ("--mask", "mask.pt", "--method", "gated", "--set", "gated.people=3") if mask else ()
    return run_ireu("unlearn", *given, *more, cwd=folder)


def tensors(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return read_delta(folder / name).tensors


def test_a_drawn_person_is_removed_and_others_stay(place: Path) -> None:
    assert unlearn(place).code == 0
    # Of few and coarsely drawn people, the nearest one is taken for the target in one photo of ten.
    near = ("--set", "verify.min_lookalike_similarity=0.85")
    done = run_ireu("verify", "--delta", "delta.safetensors", *FEATURES, *near, "--json", cwd=place)
    assert done.code == 0, done.err
    found = {c["name"]: c["found"] for c in json.loads((place / "report" / "report.json").read_text())["criteria"]}
    assert found["match_unseen"] == 0
    assert found["retained_similarity"] > 0.98
    told = manifest(place, "delta.safetensors")["metrics"]
    assert told["places"] == {"taken": 1, "all": 3}
    # Only the class token of `last` moves, and PhotoMaker v2 reads all of its tokens.
    assert told["reach"] == {"taps": ["pooled", "image_embeds"], "missed": ["penultimate", "last"]}
    assert told["people"][0]["given_found"] > 0.4


def test_the_same_request_twice_is_done_once_and_has_the_same_bytes(place: Path) -> None:
    assert unlearn(place, "-o", "one.safetensors").code == 0
    again = unlearn(place, "-o", "one.safetensors", "--json")
    assert again.json["reused"] is True
    shutil.rmtree(place / ".ireu" / "features")
    assert unlearn(place, "-o", "two.safetensors").code == 0
    assert (place / "one.safetensors").read_bytes() == (place / "two.safetensors").read_bytes()


def test_room_is_made_once_for_a_site_and_a_number_of_people(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    own = room.make_room

    def counted(gram: torch.Tensor, sizes: torch.Tensor, count: int) -> Any:
        made.append(count)
        return own(gram, sizes, count)

    monkeypatch.setattr(gated, "make_room", counted)
    assert unlearn(place, "-o", "one.safetensors").code == 0
    assert unlearn(place, "--targets", "more", "-o", "two.safetensors").code == 0
    assert made == [6]
    (kept,) = place.glob(".ireu/features/*/rooms/*.safetensors")
    before = kept.read_bytes()
    kept.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert unlearn(place, "-o", "again.safetensors").code == 0
    assert made == [6, 6]
    assert kept.read_bytes() == before
    assert (place / "again.safetensors").read_bytes() == (place / "one.safetensors").read_bytes()
    assert unlearn(place, "--set", "gated.people=4", "-o", "four.safetensors").code == 0
    assert made == [6, 6, 8]


def test_noise_that_hides_a_photo_from_the_detectors_is_tried_and_not_judged(place: Path) -> None:
    assert unlearn(place).code == 0
    keys = ("suite=pgd,pgd-detector", "photos=8", "pgd_steps=60")
    suite = [part for key in keys for part in ("--set", f"attacks.{key}")]
    done = run_ireu("verify", "--delta", "delta.safetensors", *suite, "--set", "pictures.generators=none", cwd=place)
    assert done.code in {0, 4}, done.err
    report = json.loads((place / "report" / "report.json").read_text())
    found = {(f["attack"], f["state"]): f["value"] for f in report["figures"] if f["name"] == "attack_success"}
    assert {attack for attack, _ in found} == {"none", *(f"pgd{on}-{e}" for on in ("", "-detector") for e in (2, 4, 8))}
    assert found["none", "edited"] == 0
    # An open detector's response is level: only who looks behind it finds the way.
    assert found["pgd-detector-4", "edited"] > found["pgd-4", "edited"]
    assert not [c for c in report["criteria"] if c["name"] == "attacks" and c["found"] > 0.5]
    assert "hides the photo" in report["definitions"]["pgd-detector-8"]["text"]


@dataclass
class Counting:
    """Stands in for the encoder's pass at an edit site: counts pictures, and is interrupted at the given call."""

    stop_at: int | None = None
    calls: int = 0
    pictures: int = 0

    def __call__(self, model: Any, pixels: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == self.stop_at:
            raise KeyboardInterrupt
        self.pictures += len(pixels)
        return last_state(model, pixels)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Counting], Counting]:
    def put(counting: Counting) -> Counting:
        monkeypatch.setattr(Encoder, "last_state", staticmethod(counting))
        return counting

    return put


def test_a_second_request_reads_what_the_first_one_gathered(place: Path, watch: Callable[[Counting], Counting]) -> None:
    first = watch(Counting())
    assert unlearn(place, "-o", "one.safetensors").code == 0
    # 240 retained photos, six copies of one of each of 30 people, and what a later request reads.
    assert first.pictures == 240 + 30 * 6 + 5 * 7 + 2
    second = watch(Counting())
    assert unlearn(place, "--targets", "more", "-o", "two.safetensors").code == 0
    # Five photos and six copies of each, and the two null images.
    assert second.pictures == 5 * 7 + 2


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(place: Path, watch: Callable[[Counting], Counting]) -> None:
    assert unlearn(place, "-o", "whole.safetensors").code == 0
    shutil.rmtree(place / ".ireu" / "features")
    watch(Counting(stop_at=6))
    often = ("--set", "run.checkpoint_seconds=0", "-o", "stopped.safetensors")
    assert unlearn(place, *often).code == 130
    assert not (place / "stopped.safetensors").exists()
    rest = watch(Counting())
    assert unlearn(place, *often).code == 0
    assert rest.pictures == 240 - 5 * 16 + 30 * 6 + 5 * 7 + 2
    assert (place / "stopped.safetensors").read_bytes() == (place / "whole.safetensors").read_bytes()


class TestRequests:
    @pytest.fixture
    def two(self, place: Path) -> Path:
        assert unlearn(place, "--set", "record.case_id=A", "-o", "one.safetensors").code == 0
        assert run_ireu("locate", "--method", "all", "--targets", "more", "-o", "more.pt", cwd=place).code == 0
        more = ("--mask", "more.pt", "--method", "gated", "--onto", "one.safetensors", "--set", "record.case_id=B")
        done = unlearn(place, *more, "-o", "two.safetensors", mask=False)
        assert done.code == 0, done.err
        return place

    def test_they_add_up(self, two: Path) -> None:
        alone = unlearn(two, "--targets", "more", "-o", "alone.safetensors")
        assert alone.code == 0
        told = manifest(two, "two.safetensors")
        assert list(told["metrics"]["requests"]) == ["A", "B"]
        assert len(told["targets"]) == 2
        ledger = read_delta(two / "two.safetensors").ledger
        assert isinstance(ledger, Ledger)
        assert (ledger.cases, ledger.slots) == (("A", "B"), (0, 1))
        # Both people's rows are those of the request alone.
        other = read_delta(two / "alone.safetensors").ledger
        assert isinstance(other, Ledger)
        assert torch.equal(ledger.rows[1], other.rows[0])

    def test_deltas_made_apart_are_merged_as_if_made_together(self, two: Path) -> None:
        base = ("--targets", "more", "--set", "record.case_id=B")
        assert unlearn(two, *base, "-o", "apart.safetensors").code == 0
        merge = ("--onto", "one.safetensors", "--merge", "apart.safetensors", "-o", "merged.safetensors")
        done = unlearn(two, *merge, mask=False)
        assert done.code == 0, done.err
        assert (two / "merged.safetensors").read_bytes() == (two / "two.safetensors").read_bytes()
        told, together = manifest(two, "merged.safetensors"), manifest(two, "two.safetensors")
        assert told["metrics"]["requests"] == together["metrics"]["requests"]
        assert told["metrics"]["places"] == {"taken": 2, "all": 3}
        found, wanted = (sorted(p["photos"] for p in one["targets"]) for one in (told, together))
        assert found == wanted
        assert unlearn(two, *merge, "--json", mask=False).json["reused"] is True
        # Withdrawing from it leaves the first alone, as ever.
        back = ("--onto", "merged.safetensors", "--withdraw", "B", "-o", "back.safetensors")
        assert unlearn(two, *back, mask=False).code == 0
        assert (two / "back.safetensors").read_bytes() == (two / "one.safetensors").read_bytes()

    def test_deltas_that_do_not_fit_are_not_merged(self, two: Path) -> None:
        base = ("--targets", "more", "--set", "record.case_id=B")
        assert unlearn(two, *base, "--set", "gated.people=4", "-o", "four.safetensors").code == 0
        for other, words in (
            ("four", "do not reserve the same places"),
            ("two", "request with the name A"),
            ("no", "no.safe"),
        ):
            merge = ("--onto", "one.safetensors", "--merge", f"{other}.safetensors", "-o", "x.safetensors")
            done = unlearn(two, *merge, mask=False)
            assert (done.code, words in done.err) == (3, True), done.err
        assert not (two / "x.safetensors").exists()

    def test_what_is_not_made_of_requests_is_not_merged(self, two: Path) -> None:
        few = ("--mask", "mask.pt", "--method", "ireu", "--steps", "2", "-o", "ireu.safetensors")
        assert run_ireu("unlearn", *few, "--set", "locate.method=all", cwd=two).code == 0
        for onto, merge in (("ireu", "two"), ("two", "ireu")):
            names = ("--onto", f"{onto}.safetensors", "--merge", f"{merge}.safetensors", "-o", "x.safetensors")
            done = unlearn(two, *names, mask=False)
            assert (done.code, "does not hold requests" in done.err) == (3, True), done.err

    def test_requests_of_other_settings_or_run_folders_are_not_joined(self, two: Path) -> None:
        more = ("--targets", "more", "--set", "record.case_id=C", "-o", "x.safetensors")
        other = unlearn(two, *more, "--onto", "one.safetensors", "--set", "gated.false_alarms=0.2")
        assert (other.code, "was made with gated.false_alarms = 0.05" in other.err) == (3, True), other.err
        assert run_ireu("locate", "--method", "all", "--run-dir", "new", "-o", "new.pt", cwd=two).code == 0
        strange = ("--mask", "new.pt", "--method", "gated", "--run-dir", "new", "--onto", "one.safetensors")
        done = run_ireu("unlearn", *strange, *more, cwd=two)
        assert (done.code, "another run folder" in done.err) == (3, True), done.err

    def test_withdrawing_the_last_leaves_the_first_bit_for_bit(self, two: Path) -> None:
        done = unlearn(two, "--onto", "two.safetensors", "--withdraw", "B", "-o", "back.safetensors", mask=False)
        assert done.code == 0, done.err
        one, back = tensors(two, "one.safetensors"), tensors(two, "back.safetensors")
        assert one.keys() == back.keys()
        assert all(torch.equal(one[name], back[name]) for name in one)
        told = manifest(two, "back.safetensors")
        assert list(told["metrics"]["requests"]) == ["A"]
        assert told["targets"] == manifest(two, "one.safetensors")["targets"]

    def test_withdrawing_all_leaves_the_original(self, two: Path) -> None:
        both = ("--onto", "two.safetensors", "--withdraw", "A", "--withdraw", "B", "-o", "none.safetensors")
        assert unlearn(two, *both, mask=False).code == 0
        assert not any(bool(change.any()) for change in tensors(two, "none.safetensors").values())
        assert manifest(two, "none.safetensors")["targets"] == []
        exported = run_ireu("export", "--allow-failed", "--delta", "none.safetensors", "-o", "out", "--json", cwd=two)
        assert exported.code == 0, exported.err
        told = manifest(two / "out", "ireu")
        assert told["metrics"]["edited_encoder"] == told["encoder"]["fingerprint"]

    def test_a_name_is_given_once(self, two: Path) -> None:
        again = unlearn(two, "--onto", "two.safetensors", "--set", "record.case_id=A", "-o", "x.safetensors")
        assert (again.code, "with the name A exists already" in again.err) == (3, True)
        assert not (two / "x.safetensors").exists()

    def test_an_unknown_name_is_named_with_the_known_ones(self, two: Path) -> None:
        done = unlearn(two, "--onto", "two.safetensors", "--withdraw", "Z", "-o", "x.safetensors", mask=False)
        assert (done.code, "No request has the name Z. Name one of A, B" in done.err) == (3, True)
        assert not list((two / ".ireu").rglob("running/*"))

    def test_a_changed_delta_is_refused(self, two: Path) -> None:
        path = two / "one.safetensors"
        path.write_bytes(path.read_bytes()[:-1] + b"\x00\x01"[-1:])
        more = unlearn(two, "--targets", "more", "--onto", "one.safetensors", "-o", "x.safetensors")
        assert more.code == 3
        assert "one.safetensors" in more.err

    def test_full_is_said_with_the_number(self, two: Path) -> None:
        (two / "few").mkdir()
        for person in sorted((two / "others").iterdir())[:2]:
            shutil.copytree(person, two / "few" / person.name)
        done = unlearn(two, "--targets", "few", "--onto", "two.safetensors", "-o", "x.safetensors")
        assert (done.code, "1 of the 3 places are free" in done.err) == (3, True)


def test_other_methods_keep_no_requests(place: Path) -> None:
    few = ("--mask", "mask.pt", "--steps", "2", "-o", "ireu.safetensors", "--set", "locate.method=all")
    assert run_ireu("unlearn", *few, cwd=place).code == 0
    onto = run_ireu("unlearn", *few[:4], "--onto", "ireu.safetensors", "-o", "x.safetensors", cwd=place)
    assert (onto.code, "cannot add to an earlier delta" in onto.err) == (3, True)
    gated = unlearn(place, "--onto", "ireu.safetensors", "-o", "x.safetensors")
    assert (gated.code, "does not hold requests" in gated.err) == (3, True)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--withdraw", "A"),
        ("--mask", "mask.pt", "--onto", "d.safetensors", "--withdraw", "A"),
        ("--merge", "d.safetensors"),
        ("--mask", "mask.pt", "--onto", "d.safetensors", "--merge", "e.safetensors"),
        ("--onto", "d.safetensors", "--merge", "e.safetensors", "--withdraw", "A"),
        ("--onto", "d.safetensors", "--merge", "delta.safetensors"),
        (),
    ],
)
def test_flags_that_do_not_go_together_are_usage_errors(arguments: tuple[str, ...], place: Path) -> None:
    assert run_ireu("unlearn", *arguments, cwd=place).code == 2


def test_tokens_of_a_small_encoder_are_refused_in_words(place: Path) -> None:
    assert run_ireu("locate", "--method", "all", "--tap", "penultimate", "-o", "tokens.pt", cwd=place).code == 0
    done = run_ireu("unlearn", "--mask", "tokens.pt", "--method", "gated", cwd=place)
    assert done.code == 3
    assert "gated.rank" in done.err


def test_sample_people_are_removed_from_every_tap(tmp_path: Path) -> None:
    assert run_ireu("samples", "demo", cwd=tmp_path).code == 0
    folder = tmp_path / "demo"
    located = run_ireu("locate", "--method", "all", "--tap", "penultimate", cwd=folder)
    assert located.code == 0, located.err
    done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "gated", cwd=folder)
    assert done.code == 0, done.err
    told = manifest(folder, "delta.safetensors")["metrics"]
    assert told["reach"]["missed"] == []
    assert told["carried"]["tokens_reached"] > 0.95
    assert told["carried"]["class_tokens_reached"] == 1
    assert told["carried"]["retained_change"] < 0.06
    assert told["carried"]["erased_off_aim"] < 0.9
    _again(folder, manifest(folder, "delta.safetensors"))
    verified = run_ireu("verify", "--delta", "delta.safetensors", *FEATURES, cwd=folder)
    assert verified.code == 0, verified.err
    more = ("--mask", "mask.pt", "--onto", "delta.safetensors", "--set", "gated.rank=64", "-o", "more.safetensors")
    done = run_ireu("unlearn", *more, cwd=folder)
    assert (done.code, "was made with gated.rank = 128" in done.err) == (3, True), done.err


def test_whoever_reads_last_is_reached_from_one_block_later(tmp_path: Path) -> None:
    assert run_ireu("samples", "demo", cwd=tmp_path).code == 0
    folder = tmp_path / "demo"
    assert run_ireu("locate", "--method", "all", "--tap", "last", cwd=folder).code == 0
    done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "gated", cwd=folder)
    assert done.code == 0, done.err
    told = manifest(folder, "delta.safetensors")["metrics"]
    # The class token that carries the flag is a part of `penultimate`, and the patches are not.
    assert told["reach"] == {"taps": ["last", "pooled", "image_embeds"], "missed": ["penultimate"]}
    encoder = load_encoder(EncoderParams(), "cpu")
    assert told["edit_site"] == f"block:{encoder.blocks - 2}"
    assert told["carried"]["tokens_reached"] > 0.95
    delta = read_delta(folder / "delta.safetensors")
    edited = with_delta(encoder, delta)
    photos = [np.array(Image.open(path).convert("RGB")) for path in sorted((folder / "faces").rglob("*.jpg"))[:8]]
    with torch.no_grad():
        moved: dict[str, float] = {}
        taps: tuple[Tap, ...] = ("penultimate", "last")
        for tap in taps:
            before, after = (read_tap(one.model, one.pixels(photos), tap)[:, 1:] for one in (encoder, edited))
            moved[tap] = float(((after - before).norm(dim=-1) / before.norm(dim=-1)).mean(1).median())
    # Room for the detectors costs every photo a little.
    assert moved["penultimate"] < 0.05
    assert moved["last"] > 0.2
    verified = run_ireu("verify", "--delta", "delta.safetensors", *FEATURES, cwd=folder)
    assert verified.code == 0, verified.err
    exported = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", "--json", cwd=folder)
    assert exported.code == 0, exported.err
    assert manifest(folder / "out", "ireu")["metrics"]["taps_missed"] == ["penultimate"]


def test_an_encoder_whose_class_tokens_are_not_reached_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = carried._opening

    def deaf(*arguments: Any) -> tuple[float, float, torch.Tensor]:
        start, ramp, reached = own(*arguments)
        reached[:, 0] = 0
        return start, ramp, reached

    monkeypatch.setattr(carried, "_opening", deaf)
    assert run_ireu("samples", "demo", cwd=tmp_path).code == 0
    folder = tmp_path / "demo"
    assert run_ireu("locate", "--method", "all", cwd=folder).code == 0
    done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "gated", cwd=folder)
    assert (done.code, "reaches only 0% of the class tokens" in done.err) == (3, True), done.err


def test_a_mask_of_projected_features_confines_no_tokens(tmp_path: Path) -> None:
    """Also where there are as many of them as tokens have channels."""
    assert run_ireu("samples", "demo", cwd=tmp_path).code == 0
    folder = tmp_path / "demo"
    unjudged = ("--method", "random", "--set", "locate.interchange_pairs=0")
    assert run_ireu("locate", *unjudged, "--tap", "image_embeds", cwd=folder).code == 0
    reach = ("--for", "ip-adapter-plus", "--set", "encoder.groups=H", "--set", "gated.confine=true")
    done = run_ireu("unlearn", "--mask", "mask.pt", "--method", "gated", *reach, cwd=folder)
    assert (done.code, "projected features" in done.err) == (3, True), done.err


def _again(folder: Path, first: dict[str, Any]) -> None:
    """What the people share is made once: another request finds it, unless it is damaged."""
    given = ("unlearn", "--mask", "mask.pt", "--method", "gated", "-o", "again.safetensors", "--force")
    (kept,) = folder.glob(".ireu/features/*/apparatus/*.safetensors")
    written, before = kept.stat().st_mtime_ns, kept.read_bytes()
    assert run_ireu(*given, cwd=folder).code == 0
    assert (folder / "again.safetensors").read_bytes() == (folder / "delta.safetensors").read_bytes()
    told = manifest(folder, "again.safetensors")
    assert "carry" in first["timings"]
    assert "carry" not in told["timings"]
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    assert run_ireu(*given, cwd=folder).code == 0
    assert kept.read_bytes() == before
    assert (folder / "again.safetensors").read_bytes() == (folder / "delta.safetensors").read_bytes()
    assert run_ireu(*given, "--set", "gated.rank=64", cwd=folder).code == 0
    assert len([*folder.glob(".ireu/features/*/apparatus/*.safetensors")]) == 2


def _exported(folder: Path, *more: str) -> Path:
    assert run_ireu("export", "--delta", "delta.safetensors", "--allow-failed", *more, cwd=folder).code == 0
    return folder / "encoder-unlearned"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_edited_encoder_is_not_edited_as_if_it_were_an_original(place: Path, dtype: str) -> None:
    """The first person's detector does nothing for others, so a second edit would take its units."""
    assert unlearn(place).code == 0
    export, elsewhere = _exported(place, "--dtype", dtype), place / "elsewhere"
    second = ("--targets", "more", "--method", "all", "-o", "second.pt")
    elsewhere.mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        shutil.copy(export / name, elsewhere / name)
    # By its record, as a folder and as a file, in any run folder; and by the run folder, wherever it lies.
    for source, more in (
        (export, ("--run-dir", str(place / "other"))),
        (export / "model.safetensors", ("--run-dir", str(place / "other"))),
        (elsewhere, ()),
    ):
        refused = run_ireu("locate", "--encoder", str(source), *second, *more, cwd=place)
        assert refused.code == 3, refused.err
        assert "people were removed from it" in refused.err
        assert "--onto" in refused.err
    assert not (place / "second.pt").exists()


def test_units_of_an_edit_that_nobody_knows_of_are_not_taken(place: Path) -> None:
    assert unlearn(place).code == 0
    export, elsewhere = _exported(place), place / "elsewhere"
    elsewhere.mkdir()
    for name in ("config.json", "model.safetensors", "preprocessor_config.json"):
        shutil.copy(export / name, elsewhere / name)
    known = ("--targets", "more", "--run-dir", str(place / "other"))
    located = run_ireu("locate", "--encoder", "elsewhere", *known, "--method", "all", "-o", "second.pt", cwd=place)
    assert located.code == 0, located.err
    asked = ("--mask", "second.pt", "--method", "gated", "--set", "gated.people=20", *known, "-o", "second.safetensors")
    assert run_ireu("unlearn", *asked, cwd=place).code == 0
    first, later = (read_delta(place / name).ledger for name in ("delta.safetensors", "second.safetensors"))
    assert isinstance(first, Ledger)
    assert isinstance(later, Ledger)
    used = set(first.room.units[:2].tolist())
    assert len(later.room.units) == 40
    assert not used & set(later.room.units.tolist())


def test_an_export_without_requests_is_an_original(place: Path) -> None:
    assert unlearn(place, "--set", "record.case_id=one").code == 0
    asked = ("--onto", "delta.safetensors", "--withdraw", "one", "-o", "none.safetensors")
    assert run_ireu("unlearn", *asked, cwd=place).code == 0
    wanted = ("--delta", "none.safetensors", "--targets", "faces", "--allow-failed", "-o", "plain")
    assert run_ireu("export", *wanted, cwd=place).code == 0
    again = ("--encoder", "plain", "--targets", "more", "--method", "all", "-o", "second.pt")
    assert run_ireu("locate", *again, cwd=place).code == 0
