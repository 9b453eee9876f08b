"""Where photos lie: subfolders, links, folders of the system, and files that cannot be opened."""

import errno
import os
import shutil
import socket
import threading
from pathlib import Path
from typing import IO, Any

import pytest

from ireu_cli.errors import PhotoError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.folder import scan_people
from ireu_cli.faces.labels import Labels
from ireu_cli.faces.listing import SYSTEM
from ireu_cli.faces.photo_files import digest_photo, most_bytes, read_photo
from ireu_cli.faces.read import PhotoReader
from ireu_cli.faces.swap import Face
from ireu_cli.params import DataParams
from ireu_cli.values import People, Photo
from tests.conftest import run_ireu
from tests.test_photos import encoded, people_folder, picture


def scan(folder: Path, **named: object) -> People:
    return scan_people(folder, "--targets", "one person", **named)  # type: ignore[arg-type]


def put(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(picture(seed=seed)))


def reasons(people: People) -> dict[str, str]:
    return {one.label: one.reason for one in people.unread}


def test_photos_in_subfolders_of_a_person_count(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    put(folder / "p1" / "2023" / "summer" / "a.png", 50)
    put(folder / "p1" / "phone" / "b.png", 51)
    people = scan(folder)
    assert [len(person) for person in people.photos] == [2, 4, 2]
    assert people.notes == ("2 photos are in subfolders of a person's folder, and count as that person's",)
    paths = [photo.path.relative_to(folder / "p1").as_posix() for photo in people.photos[1]]
    assert paths == ["0.png", "1.png", "2023/summer/a.png", "phone/b.png"]
    assert [photo.index for photo in people.photos[1]] == [0, 1, 2, 3]
    labels = Labels(("group",), "person", {"p1": ("x",), "2023": ("wrong",)})
    assert labels.of(people).values["group"][1] == "x"


def test_labels_go_by_the_persons_folder_where_the_first_photo_is_deeper(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    put(folder / "p1" / "0" / "a.png", 50)
    labels = Labels(("group",), "person", {"p1": ("x",)})
    people = scan(folder)
    assert people.photos[1][0].path.parent.name == "0"
    assert labels.of(people).values["group"][1] == "x"


def test_a_folder_of_people_one_level_too_high_is_not_taken_for_a_person(tmp_path: Path) -> None:
    shutil.move(people_folder(tmp_path), tmp_path / "all" / "train")
    with pytest.raises(PhotoError, match=r"Person 1 of .* has no photos|holds no photos"):
        scan(tmp_path / "all")
    put(tmp_path / "all" / "zz" / "a.png", 70)
    with pytest.raises(PhotoError, match="Person 1 of the folder given by --targets has no photos, only 3 subfolders"):
        scan(tmp_path / "all")


@pytest.mark.parametrize("name", [*SYSTEM.values(), "$Recycle.Bin"])
def test_folders_of_the_system_are_nobody(tmp_path: Path, name: str) -> None:
    folder = people_folder(tmp_path)
    put(folder / name / "0.png", 60)
    put(folder / "p0" / name / "0.png", 61)
    people = scan(folder)
    assert [len(person) for person in people.photos] == [2, 2, 2]
    assert people.notes == (f"2 folders of the system are left out ({SYSTEM[name.casefold()]})",)
    # Nor do they make a folder of photos one of people.
    put(folder / "p2" / name / "0.png", 62)
    assert [len(person) for person in scan(folder / "p2").photos] == [2]


def test_links_that_lead_nowhere_are_photos_that_cannot_be_opened(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    (folder / "p0" / "2.jpg").symlink_to("/nowhere/at/all.jpg")
    (folder / "p0" / "3.jpg").symlink_to("3.jpg")
    (folder / "p0" / "4.jpg").mkdir()
    (folder / "p0" / "2023").symlink_to("/nowhere")
    (folder / "p3").symlink_to("/nowhere")
    people = scan(folder)
    assert len(people.flat) == 6
    assert reasons(people) == {
        "photo 3 of person 1": "is a link that leads nowhere",
        "photo 4 of person 1": "is a link that leads to itself",
        "photo 5 of person 1": "is a folder, not a file",
        "a folder of person 1": "is a link that leads nowhere",
        "a folder of person 4": "is a link that leads nowhere",
    }
    assert people.notes == ()


def test_links_elsewhere_are_followed_and_circles_are_left_out(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    put(tmp_path / "share" / "a.png", 80)
    put(tmp_path / "share" / "deep" / "b.png", 81)
    (folder / "p0" / "share").symlink_to(tmp_path / "share")
    (folder / "p0" / "again").symlink_to(tmp_path / "share")
    (tmp_path / "share" / "deep" / "back").symlink_to(tmp_path / "share")
    (folder / "p1" / "up").symlink_to("..")
    (folder / "p1" / "root").symlink_to("/")
    (folder / "p2" / "2.png").symlink_to(tmp_path / "share" / "a.png")
    (folder / "zz").symlink_to(".")
    people = scan(folder)
    assert [len(person) for person in people.photos] == [4, 2, 2]
    assert people.notes == (
        "5 links are left out, because they lead back to a folder around them or to one seen before",
        "2 photos are in subfolders of a person's folder, and count as that person's",
        "1 second copies of the same photo are ignored",
    )


def test_pictures_that_are_not_read_are_told_by_their_endings(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    for name in ("a.HEIC", "b.heic", "c.dng", "d.txt"):
        (folder / "p0" / name).write_bytes(b"x")
    assert scan(folder).notes == (
        "4 files with other endings are ignored",
        "some of them are pictures that ireu does not read (1 .dng, 2 .heic): convert them to JPEG",
    )
    (tmp_path / "only").mkdir()
    shutil.copy(folder / "p0" / "b.heic", tmp_path / "only")
    with pytest.raises(PhotoError, match=r"holds no photos \(1 other files, .*ireu does not read: 1 \.heic\)"):
        scan(tmp_path / "only")


def test_paths_are_named_where_the_user_asks_for_them_only(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    (folder / "Jane Doe").mkdir()
    with pytest.raises(PhotoError) as plain:
        scan(folder)
    assert "Jane" not in str(plain.value)
    with pytest.raises(PhotoError, match="Jane Doe"):
        scan(folder, verbose=True)


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder"])
def test_nothing_but_regular_files_is_opened(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.jpg")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()

    def refused(*_arguments: object) -> None:
        raise AssertionError("opened")

    monkeypatch.setattr(os, "open", refused)
    words: list[str] = []
    thread = threading.Thread(target=lambda: words.append(str(_refusal(path))), daemon=True)
    thread.start()
    thread.join(10)
    assert words == [f"is a {kind}, not a file"]


def _refusal(path: Path) -> Exception:
    try:
        read_photo(path, 100)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is looked at
        return error
    return AssertionError("it was read")


class Unreadable:
    """An open file that nobody may read."""

    def __init__(self, file: IO[Any]) -> None:
        self._file = file

    def __enter__(self) -> "Unreadable":
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def fileno(self) -> int:
        return self._file.fileno()

    def read(self, *_count: int) -> bytes:
        raise AssertionError("read")


def test_large_files_are_refused_before_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jpg"
    with path.open("wb") as file:
        file.truncate(10 * 2**40)

    whole = os.fdopen
    with monkeypatch.context() as patched:
        patched.setattr(os, "fdopen", lambda *given: Unreadable(whole(*given)))
        for read in (read_photo, digest_photo):
            with pytest.raises(
                BadPhotoError, match=r"than 552 MiB, which no picture within data\.max_megapixels needs"
            ):
                read(path, most_bytes(64))
    path.write_bytes(bytes(101))
    # Of a file that grows, or of one whose size the system does not know.
    monkeypatch.setattr(os, "fstat", lambda _file: (tmp_path / "empty").stat())
    (tmp_path / "empty").touch()
    for read in (read_photo, digest_photo):
        with pytest.raises(BadPhotoError, match="more than 0 MiB"):
            read(path, 100)
    assert read_photo(path, 101) == bytes(101)


@pytest.mark.parametrize(("code", "kind"), [(errno.EMFILE, OSError), (errno.ENOMEM, MemoryError)])
def test_troubles_of_the_machine_are_no_bad_photos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    folder = people_folder(tmp_path)

    def fails(*_arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "open", fails)
    with pytest.raises(kind):
        scan(folder)


def test_what_the_first_bytes_tell_is_told_before_anything_is_encoded(
    samples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demo = tmp_path / "demo"
    shutil.copytree(samples, demo)
    person = sorted((demo / "others").iterdir())[-1]
    (person / "zz.jpg").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    (person / "zzz.jpg").symlink_to("/nowhere.jpg")

    def encoded_already(*_arguments: object, **_named: object) -> None:
        raise AssertionError("something was encoded")

    monkeypatch.setattr("ireu_cli.encodings.loop.Encodings.fill", encoded_already)
    found = run_ireu("locate", cwd=demo)
    assert found.code == 3
    assert "is a git-lfs pointer, not the picture: fetch it with git lfs pull; photo" in found.err
    assert "is a link that leads nowhere. Replace or remove these files" in found.err
    assert str(person) not in found.err
    assert f"({person.relative_to(demo) / 'zzz.jpg'}) is a link" in run_ireu("locate", "-v", cwd=demo).err


def test_photos_that_cannot_be_opened_are_skipped_where_the_user_says_so(samples: Path, tmp_path: Path) -> None:
    demo = tmp_path / "demo"
    shutil.copytree(samples, demo)
    people = sorted((demo / "others").iterdir())
    (people[-1] / "zz.jpg").symlink_to("/nowhere.jpg")
    (people[-1] / "zy.jpg").mkdir()
    (demo / "others" / "zz").symlink_to("/nowhere")
    found = run_ireu("locate", "--bad-photos", "skip", cwd=demo)
    assert found.code == 0, found.err
    assert "retain: 3 unusable photos skipped (is a folder, not a file; is a link that leads nowhere)" in found.err
    (demo / "faces" / "zz").mkdir()
    (demo / "faces" / "zz" / "a.jpg").symlink_to("/nowhere.jpg")
    found = run_ireu("locate", "--bad-photos", "skip", "-o", "m2.pt", cwd=demo)
    assert found.code == 3
    assert "A target has no usable photo" in found.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_photos_and_folders_without_rights(tmp_path: Path) -> None:
    folder = people_folder(tmp_path)
    (folder / "p0" / "0.png").chmod(0)
    (folder / "p2").chmod(0)
    assert reasons(scan(folder)) == {
        "photo 1 of person 1": "cannot be opened (Permission denied)",
        "a folder of person 3": "cannot be opened (Permission denied)",
    }
    (folder / "p2").chmod(0o700)


def test_rights_are_facts_about_a_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = people_folder(tmp_path)
    real = os.open

    def fails(path: Path, *arguments: int) -> int:
        if path == folder / "p0" / "0.png":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", fails)
    assert reasons(scan(folder)) == {"photo 1 of person 1": "cannot be opened (Permission denied)"}


def test_recent_photos_are_bounded_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = scan(people_folder(tmp_path)).flat
    reader = PhotoReader(DataParams(), None)
    size = reader.face(photos[0]).image.nbytes
    monkeypatch.setattr("ireu_cli.faces.read.RECENT_BYTES", 3 * size)
    reads: list[Photo] = []
    reader = PhotoReader(DataParams(), None)
    read = reader._read

    def counted(photo: Photo) -> Face:
        reads.append(photo)
        return read(photo)

    monkeypatch.setattr(reader, "_read", counted)
    for photo in photos[:3]:
        reader.face(photo)
    reader.face(photos[0])
    assert reads == photos[:3]
    reader.face(photos[3])
    assert len(reader._recent._faces) == 3
    assert reader._recent._held == 3 * size
    reader.face(photos[0])
    assert reads == photos[:4]
    reader.face(photos[1])
    assert reads == [*photos[:4], photos[1]]
