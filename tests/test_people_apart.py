"""Groups of few people have no figures, folders of two people are noticed, photos that change are told of."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ireu_cli.attacks.plan import face_of
from ireu_cli.encodings.lens import Lens, SteadyPhoto, steady
from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.locating.alike import FEWEST, halves
from ireu_cli.locating.through_generator import photo_face
from ireu_cli.report import Figure
from ireu_cli.support.runtime import generator
from ireu_cli.values import Photo
from ireu_cli.verifying.label_groups import shareable
from tests.conftest import manifest, run_ireu

D = 24


def figure(group: str | None, people: int, **more: Any) -> Figure:
    plain = {"name": "psnr", "role": "retained", "state": "change", "measure": "m", "value": 1.0, "low": None,
             "high": None, "photos": people, "people": people, "unit": "dB", "group": group}  # fmt: skip
    return Figure(**(plain | more))


def test_figures_of_few_people_are_left_out_with_all_that_would_tell_them() -> None:
    whole = figure(None, 30)
    few = [figure("hair = red", 1), figure("hair = dark", 29)]
    many = [figure("age = old", 3), figure("age = young", 27)]
    other = [figure("hair = red", 3, generator="A"), figure("hair = dark", 27, generator="A")]
    assert shareable([whole, *few, *many, *other]) == (whole, *many, *other)
    assert shareable([figure("hair = red", 2)]) == ()


def faces(number: int, photos: int) -> torch.Tensor:
    rng = generator(0, "person", number)
    return 2 * torch.randn(D, generator=rng) + torch.randn(photos, D, generator=rng)


OTHERS = [faces(n, 4) for n in range(100, 160)]


@pytest.mark.parametrize("photos", [4, 6, 10, 20])
def test_two_people_in_one_folder(photos: int) -> None:
    noticed = 0
    for number in range(20):
        one = halves(faces(number, photos), OTHERS)
        assert one is None or not one.are_two
        mixed = torch.cat([faces(number, photos // 2), faces(number + 50, photos - photos // 2)])
        two = halves(mixed, OTHERS)
        assert two is not None
        sides = two.first if two.first[0] else ~two.first
        assert sides.tolist() == [True] * (photos // 2) + [False] * (photos - photos // 2)
        noticed += two.are_two
    # Strangers may look alike.
    assert noticed >= 15


def test_many_people_are_not_two() -> None:
    """Halves that do not hold together say that photos are poor, or of a crowd."""
    noticed = 0
    for number in range(10):
        crowd = halves(torch.cat([faces(200 + 8 * number + n, 1) for n in range(8)]), OTHERS)
        assert crowd is not None
        noticed += crowd.are_two
    assert noticed <= 2


@pytest.mark.parametrize("photos", range(FEWEST))
def test_few_photos_say_nothing(photos: int) -> None:
    assert halves(faces(0, photos), OTHERS) is None


def test_nothing_to_compare_with_and_photos_that_are_all_the_same() -> None:
    assert halves(faces(0, 8), []) is None
    alike = halves(faces(0, 1).expand(8, D), OTHERS)
    assert alike is None or not alike.are_two
    # One odd photo is not yet another person.
    assert halves(torch.cat([faces(0, 7), faces(50, 1)]), OTHERS) is None


def test_locate_says_so(data: Path, tmp_path: Path) -> None:
    """Real people and the embedded encoder: one folder of one person, one of two."""
    people = sorted((data / "faces" / "eval").iterdir())
    several = [p for p in sorted((data / "faces" / "train").iterdir()) if len(list(p.glob("*.jpg"))) >= 4][:40]
    for person in several:
        shutil.copytree(person, tmp_path / "others" / person.name)
    for number, sources in enumerate([people[:1], people[1:3]]):
        (tmp_path / "faces" / str(number)).mkdir(parents=True)
        for source in sources:
            for path in sorted(source.glob("*.jpg"))[:6]:
                shutil.copyfile(path, tmp_path / "faces" / str(number) / f"{source.name}-{path.name}")
    locate = ("locate", "--method", "variance", "--set", "locate.interchange_pairs=0")
    found = run_ireu(*locate, "--targets", "faces", "--retain", "others", cwd=tmp_path)
    assert found.code == 0, found.err
    assert "target 2: the photos look like those of two people" in found.err
    assert "(6 and 6 photos)" in found.err
    assert "target 1:" not in found.err
    assert manifest(tmp_path, "mask.pt")["metrics"]["mixed_targets"] == [2]


@pytest.mark.parametrize("error", [BadPhotoError("changed during the run"), FileNotFoundError(2, "gone")])
def test_a_photo_that_changes_is_told_in_a_sentence(error: Exception) -> None:
    def read(_photo: Photo) -> None:
        raise error

    photo = Photo(0, 2, "x", "0")
    with pytest.raises(PhotoError, match="photo 3 of person 1 ") as told:
        steady(photo, read, photo.label)
    assert "do not change photos while it runs" in str(told.value)


@pytest.mark.parametrize("how", ["pixels", "attack", "quality", "drawing"])
@pytest.mark.parametrize("error", [BadPhotoError("is damaged"), FileNotFoundError(2, "gone", "/home/erika/1.jpg")])
def test_whatever_reads_a_photo_again_says_so(how: str, error: Exception) -> None:
    """By number: file names of people stand in no message."""

    def read(_photo: Photo) -> None:
        raise error

    session = SimpleNamespace(name_of=lambda photo: photo.label)
    reader = SimpleNamespace(image=read, face=read)
    lens = SimpleNamespace(_session=session, reader=reader, encoder=SimpleNamespace(pixels=list))
    photo = Photo(0, 2, "x", "0")
    ways: dict[str, Any] = {
        "pixels": lambda: Lens.pixels(lens, [photo]),  # type: ignore[arg-type]
        "attack": lambda: face_of(SimpleNamespace(session=session, reader=reader), photo),  # type: ignore[arg-type]
        "quality": lambda: SteadyPhoto("", photo.label, photo).load(reader),  # type: ignore[arg-type]
        "drawing": lambda: photo_face(session, lens, SimpleNamespace(face=list), photo),  # type: ignore[arg-type]
    }
    with pytest.raises(PhotoError, match="photo 3 of person 1 ") as told:
        ways[how]()
    assert "do not change photos while it runs" in str(told.value)
    assert "erika" not in str(told.value)
