"""`locate` with a generator: the saliency method and the interchange evidence, on a random bundle."""

import json
import shutil
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ireu_cli.config import load_config
from ireu_cli.drawing.studio import Studio
from ireu_cli.encodings.lens import Lens, photo_reader
from ireu_cli.faces.folder import scan_people
from ireu_cli.generators.generator import Generator
from ireu_cli.locating import through_generator as drawn
from ireu_cli.locating.saliency import need_studio
from ireu_cli.locating.through_generator import choose_pairs, photo_face
from ireu_cli.opening import open_session
from ireu_cli.photos import load_cast
from ireu_cli.session import Session
from ireu_cli.store.artifacts import read_mask
from tests.conftest import Run, run_ireu
from tests.tiny_portrait import write_tiny_portrait

FAST = (
    *("--set", "locate.saliency_steps=1", "--set", "locate.saliency_draws=2"),
    *("--set", "locate.partners=2", "--set", "locate.interchange_pairs=3"),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_portrait(tmp_path_factory.mktemp("portrait"))


@pytest.fixture
def faceless(bundle: Path, tmp_path: Path) -> Path:
    """The bundle with a face check that finds no face in anything."""
    folder = tmp_path / "faceless"
    shutil.copytree(bundle, folder)
    settings = folder / "face_check" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"threshold": 1.0}))
    return folder


def run_locate(samples: Path, folder: Path, encoder: Path, *arguments: object) -> Run:
    return run_ireu(
        "locate", "--encoder", encoder, "--targets", samples / "faces", "--retain", samples / "others",
        "--max-photos", 3, *FAST, "--json", *arguments, cwd=folder,
    )  # fmt: skip


class Silent:
    verbose = False

    def note(self, text: str) -> None: ...

    def progress(self, _label: str, _total: int) -> Any:
        return nullcontext(lambda count, words: None)


def opened(samples: Path, folder: Path, bundle: Path, tap: str) -> tuple[Session, Lens, Studio]:
    flags = {
        "encoder.source": str(bundle),
        "encoder.tap": tap,
        "data.targets": samples / "faces",
        "data.retain": samples / "others",
        "run.run_dir": folder / ".ireu",
    }
    session = open_session("locate", load_config(None, {}, flags, cwd=folder), Silent(), force=False)
    encoder = session.encoder()
    return session, Lens(session, encoder, photo_reader(session.config)), need_studio(session, encoder)


@pytest.mark.parametrize(("tap", "features", "name"), [("image_embeds", 12, "A"), ("penultimate", 16, "B")])
def test_saliency_makes_a_mask_with_evidence(
    samples: Path, bundle: Path, tmp_path: Path, tap: str, features: int, name: str
) -> None:
    done = run_locate(samples, tmp_path, bundle, "--method", "saliency", "--tap", tap)
    assert done.code == 0, done.err
    mask = read_mask(tmp_path / "mask.pt")
    assert mask.mask.shape == (features,)
    assert float(mask.score.min()) >= 0
    assert float(mask.score.std()) > 0
    evidence = done.json["metrics"]["evidence"]
    assert evidence["photos_without_face"] == 0
    assert -1 <= evidence["split_half"]["rank_correlation"] <= 1
    record = evidence["interchange"]
    assert (record["generator"], record["pairs"], record["pairs_without_face"]) == (name, 3, 0)
    assert record["share"] == pytest.approx(mask.kept / features)
    assert set(record["mask"]) == set(record["random"]) == {
        "identity", "rest", "pose", "light", "background", "without_face",
    }  # fmt: skip
    assert run_locate(samples, tmp_path, bundle, "--method", "saliency", "--tap", tap).json["reused"]


def test_what_was_sketched_is_not_sketched_again(
    samples: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--method", "saliency", "--set", "locate.interchange_pairs=0")
    assert run_locate(samples, tmp_path, bundle, *arguments).code == 0
    before = (tmp_path / "mask.pt").read_bytes()

    monkeypatch.setattr(Generator, "sketch", lambda *_: pytest.fail("sketched again"))
    assert run_locate(samples, tmp_path, bundle, *arguments, "--force").code == 0
    assert (tmp_path / "mask.pt").read_bytes() == before
    with pytest.raises(pytest.fail.Exception, match="sketched again"):
        run_locate(samples, tmp_path, bundle, *arguments, "--force", "--set", "locate.saliency_draws=3")


def test_taps_without_a_generator_are_refused_with_those_that_have_one(
    samples: Path, bundle: Path, tmp_path: Path
) -> None:
    for tap in ("pooled", "last"):
        done = run_locate(samples, tmp_path, bundle, "--method", "saliency", "--tap", tap)
        assert done.code == 3
        assert "image_embeds and penultimate" in done.json["error"]
    done = run_locate(samples, tmp_path, bundle / "image_encoder", "--method", "saliency")
    assert done.code == 3
    assert "comes without one" in done.json["error"]


def test_other_methods_bring_interchanges_where_there_is_a_generator(
    samples: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run_locate(samples, tmp_path, bundle)
    assert done.json["metrics"]["evidence"]["interchange"]["pairs"] == 3
    monkeypatch.setattr(drawn, "measure", lambda *_: pytest.fail("interchanged"))
    for arguments in (
        (bundle, "--set", "locate.interchange_pairs=0"),
        (bundle, "--tap", "pooled"),
        (bundle, "--method", "all"),
        (bundle / "image_encoder",),
    ):
        done = run_locate(samples, tmp_path, *arguments, "--force")
        assert done.code == 0, done.err
        assert "interchange" not in done.json["metrics"]["evidence"]


def test_without_faces_nothing_is_claimed(samples: Path, faceless: Path, tmp_path: Path) -> None:
    done = run_locate(samples, tmp_path, faceless, "--method", "saliency")
    assert done.code == 3
    assert "draws no face from any of the 3 target photos" in done.json["error"]
    record = run_locate(samples, tmp_path, faceless).json["metrics"]["evidence"]["interchange"]
    assert (record["pairs"], record["pairs_without_face"]) == (0, 3)
    assert record["mask"] is None


def test_a_generator_that_changes_makes_another_result(samples: Path, bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(bundle, other)
    assert run_locate(samples, tmp_path, other, "--method", "random").code == 0
    index = json.loads((other / "portrait.json").read_text())
    index["generators"][0]["guidance"] = 3.0
    (other / "portrait.json").write_text(json.dumps(index))
    done = run_locate(samples, tmp_path, other, "--method", "random")
    assert done.code == 3
    assert "--force" in done.json["error"]


@pytest.mark.parametrize("tap", ["image_embeds", "penultimate"])
def test_sketches_are_compared_as_pictures_are(samples: Path, bundle: Path, tmp_path: Path, tap: str) -> None:
    """The similarity with gradients is that of the drawn picture, aligned the usual way, up to rounding of pixels."""
    session, lens, studio = opened(samples, tmp_path, bundle, tap)
    targets = lens.encode(load_cast(session).targets, "--targets", "")
    photo = targets.flat[0]
    face = photo_face(session, lens, studio, photo)
    features = lens.features([photo, photo]).clone().requires_grad_()
    similarity, found = studio.likeness(face, [1, 2], studio.generator.steps)(features)
    assert found.tolist() == [True, True]
    pictures = studio.draw(features.detach(), [1, 2])
    expected = torch.stack([picture.face @ face for picture in pictures if picture.face is not None])
    torch.testing.assert_close(similarity.detach(), expected, atol=0.02, rtol=0)
    assert abs(float(expected[0] - expected[1])) > 0
    (gradient,) = torch.autograd.grad(similarity[0], features)
    assert float(gradient[0].abs().max()) > 0
    assert float(gradient[1].abs().max()) == 0


def test_pairs_are_of_different_people_each_once_while_there_are_enough(
    samples: Path, bundle: Path, tmp_path: Path
) -> None:
    session, _, _ = opened(samples, tmp_path, bundle, "image_embeds")
    people = scan_people(samples / "others", "--retain", "everybody")
    firsts, seconds = (
        people.where(lambda photo: photo.person % 2 == 0),
        people.where(lambda photo: photo.person % 2 == 1),
    )
    count = min(len(firsts.photos), len(seconds.photos))
    pairs = choose_pairs(session, firsts, seconds, count)
    assert len({first.person for first, _ in pairs}) == len({second.person for _, second in pairs}) == count
    assert all(first.person % 2 == 0 and second.person % 2 == 1 for first, second in pairs)
    again = choose_pairs(session, firsts, seconds, 2 * count + 1)
    assert again[:count] == pairs
    assert len(again) == 2 * count + 1


def test_saliency_is_measured_against_the_mean_of_retained_people(
    samples: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    means = []

    def watched(features: torch.Tensor, mean: torch.Tensor, *_: object) -> torch.Tensor:
        means.append(mean)
        return torch.rand(mean.shape[-1])

    monkeypatch.setattr(drawn, "photo_saliency", watched)
    assert (
        run_locate(samples, tmp_path, bundle, "--method", "saliency", "--set", "locate.interchange_pairs=0").code == 0
    )
    session, lens, _ = opened(samples, tmp_path, bundle, "image_embeds")
    used = lens.encode(load_cast(session).used, "--retain", "")
    np.testing.assert_allclose(means[0], lens.features(used.flat).mean(0), atol=1e-6)
