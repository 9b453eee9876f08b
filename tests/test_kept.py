"""What is kept between commands is not made, read or checked again: work is counted, never timed."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from ireu_cli.faces.folder import scan_people
from ireu_cli.faces.photo_files import digest_photo
from ireu_cli.store import digests, features
from ireu_cli.store.digests import DigestBook
from ireu_cli.store.features import FeatureCache
from ireu_cli.store.tensors import read_tensors, write_tensors
from ireu_cli.support import stamps
from ireu_cli.support.photo_table import keys_of
from tests.conftest import Run, copy_with_second_target, manifest, run_ireu


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were just written count as old."""
    monkeypatch.setattr(stamps, "_SETTLED", -(10**12))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts files whose bytes are hashed, by name."""
    seen: Counter[str] = Counter()
    whole = hashlib.file_digest

    def counting(file: Any, name: str) -> Any:
        seen[Path(file.name).name] += 1
        return whole(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counting)

    def counting_photos(path: Path, *given: Any) -> str:
        seen[path.name] += 1
        return digest_photo(path, *given)

    monkeypatch.setattr("ireu_cli.faces.folder.digest_photo", counting_photos)
    return seen


def filled(folder: Path, batches: int = 6) -> list[str]:
    cache = FeatureCache(folder)
    for batch in range(batches):
        keys = [f"{batch}-{row}" for row in range(4)]
        cache.put(keys, torch.arange(12.0).view(4, 3) + 100 * batch)
    return [f"{batch}-{row}" for batch in range(batches) for row in range(4)]


class TestCache:
    @pytest.mark.usefixtures("settled")
    def test_files_that_nobody_touched_are_checked_once(self, tmp_path: Path, hashed: Counter[str]) -> None:
        keys = filled(tmp_path)
        assert FeatureCache(tmp_path).missing(keys) == []
        assert sorted(hashed.values()) == [1] * 6
        assert FeatureCache(tmp_path).missing(keys) == []
        assert sum(hashed.values()) == 6
        found = FeatureCache(tmp_path).get(["3-1", "0-0", "3-1"])
        assert found.tolist() == [[303, 304, 305], [0, 1, 2], [303, 304, 305]]

    @pytest.mark.usefixtures("settled")
    def test_a_file_that_changed_is_checked_again_and_missed(self, tmp_path: Path) -> None:
        keys = filled(tmp_path)
        assert FeatureCache(tmp_path).missing(keys) == []
        file = sorted(tmp_path.glob("*.safetensors"))[2]
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        lost = FeatureCache(tmp_path).missing(keys)
        assert len(lost) == 4
        assert not file.exists()

    @pytest.mark.usefixtures("settled")
    def test_headers_are_read_once_and_do_not_count_as_checked(
        self, tmp_path: Path, hashed: Counter[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = filled(tmp_path)
        FeatureCache(tmp_path)
        with monkeypatch.context() as shut:
            shut.setattr(features, "_batch", None)
            assert FeatureCache(tmp_path).missing(keys) == []
        assert sorted(hashed.values()) == [1] * 6

    @pytest.mark.usefixtures("settled")
    def test_a_file_whose_header_is_known_is_missed_if_its_rows_are_damaged(self, tmp_path: Path) -> None:
        keys = filled(tmp_path)
        file = sorted(tmp_path.glob("*.safetensors"))[2]
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        FeatureCache(tmp_path)
        assert len(FeatureCache(tmp_path).missing(keys)) == 4

    @pytest.mark.parametrize(("gap", "span"), [(0, 1 << 22), (1 << 15, 1 << 22), (1 << 15, 24), (0, 1)])
    def test_rows_in_any_order_are_read_in_spans(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gap: int, span: int
    ) -> None:
        monkeypatch.setattr(features, "_GAP", gap)
        monkeypatch.setattr(features, "_SPAN", span)
        keys = [f"{number:03d}" for number in range(50)]
        rows = torch.arange(150.0).view(50, 3)
        FeatureCache(tmp_path).put(keys, rows)
        wanted = torch.randperm(50, generator=torch.Generator().manual_seed(0))[:20].tolist()
        wanted += wanted[:3]
        assert torch.equal(FeatureCache(tmp_path).get([keys[place] for place in wanted]), rows[wanted])

    def test_files_that_just_changed_are_not_trusted(self, tmp_path: Path, hashed: Counter[str]) -> None:
        keys = filled(tmp_path)
        for _ in range(2):
            assert FeatureCache(tmp_path).missing(keys) == []
        assert sorted(hashed.values()) == [2] * 6

    @pytest.mark.usefixtures("settled")
    def test_notes_that_were_cut_off_or_forged_are_passed_over(self, tmp_path: Path, hashed: Counter[str]) -> None:
        keys = filled(tmp_path)
        assert FeatureCache(tmp_path).missing(keys) == []
        notes = tmp_path / "checked.jsonl"
        lines = notes.read_text().splitlines()
        notes.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:40])
        with notes.open("a") as file:
            file.write('\n{"a": 1}\n[1, 2]\n' + "[" * 100_000)
        hashed.clear()
        assert FeatureCache(tmp_path).missing(keys) == []
        assert sum(hashed.values()) == 1
        assert FeatureCache(tmp_path).missing(keys) == []
        assert sum(hashed.values()) == 1

    @pytest.mark.usefixtures("settled")
    def test_notes_do_not_pile_up(self, tmp_path: Path) -> None:
        keys = filled(tmp_path, 40)
        for _ in range(6):
            assert FeatureCache(tmp_path).missing(keys) == []
            for file in tmp_path.glob("*.safetensors"):
                file.write_bytes(file.read_bytes())
        FeatureCache(tmp_path)
        assert len((tmp_path / "checked.jsonl").read_text().split()) < 40 * 4 * 10

    @pytest.mark.usefixtures("settled")
    def test_notes_of_checks_replace_those_of_openings(self, tmp_path: Path) -> None:
        keys = filled(tmp_path, 100)
        FeatureCache(tmp_path)
        assert FeatureCache(tmp_path).missing(keys) == []
        FeatureCache(tmp_path)
        assert len([line for line in (tmp_path / "checked.jsonl").read_text().splitlines() if line]) == 100

    @pytest.mark.usefixtures("settled")
    def test_files_of_another_length_than_they_say_are_not_noted(self, tmp_path: Path) -> None:
        keys = filled(tmp_path, 2)
        short, long = sorted(tmp_path.glob("*.safetensors"))
        short.write_bytes(short.read_bytes()[:-1])
        long.write_bytes(long.read_bytes() + b"x")
        for _ in range(3):
            FeatureCache(tmp_path)
        assert not (tmp_path / "checked.jsonl").exists()
        assert FeatureCache(tmp_path).missing(keys) == keys

    def test_headers_of_files_that_just_changed_are_not_noted(self, tmp_path: Path) -> None:
        filled(tmp_path)
        FeatureCache(tmp_path)
        assert not (tmp_path / "checked.jsonl").exists()

    @pytest.mark.usefixtures("settled")
    def test_long_notes_of_earlier_versions_become_short(self, tmp_path: Path, hashed: Counter[str]) -> None:
        keys = sorted(hashlib.sha256(b"%d" % number).hexdigest() for number in range(4))
        FeatureCache(tmp_path).put(keys, torch.arange(12.0).view(4, 3))
        assert FeatureCache(tmp_path).missing(keys) == []
        notes = tmp_path / "checked.jsonl"
        short = notes.read_text()
        assert "".join(keys) in short
        notes.write_text(short.replace(f'"{"".join(keys)}"', json.dumps(keys)))
        assert notes.read_text() != short
        hashed.clear()
        cache = FeatureCache(tmp_path)
        assert cache.missing(keys) == []
        assert not hashed
        assert notes.read_text().splitlines()[-1] == short.splitlines()[-1]
        digests = np.array([list(bytes.fromhex(key)) for key in keys], np.uint8)
        assert torch.equal(cache.get(digests[::-1]), torch.arange(12.0).view(4, 3).flip(0))
        assert (sorted(cache), list(cache.has(digests))) == (sorted(keys), [True] * 4)

    @pytest.mark.usefixtures("settled")
    def test_notes_of_earlier_versions_are_those_of_checked_files(self, tmp_path: Path, hashed: Counter[str]) -> None:
        keys = filled(tmp_path)
        assert FeatureCache(tmp_path).missing(keys) == []
        notes = tmp_path / "checked.jsonl"
        notes.write_text(notes.read_text().replace(", true]", "]"))
        hashed.clear()
        assert FeatureCache(tmp_path).missing(keys) == []
        assert not hashed

    @pytest.mark.usefixtures("settled")
    def test_a_full_disk_only_means_that_nothing_is_noted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = filled(tmp_path)

        def full(*_given: Any) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("ireu_cli.store.features.os.write", full)
        assert FeatureCache(tmp_path).missing(keys) == []

    def test_each_file_is_opened_once_for_many_keys(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = filled(tmp_path)
        asked: list[int] = []
        read = features._read_rows

        def counting(batch: Any, places: Any, rows: Any, found: Any) -> None:
            asked.append(len(rows))
            read(batch, places, rows, found)

        monkeypatch.setattr(features, "_read_rows", counting)
        FeatureCache(tmp_path).get(keys)
        assert asked == [4] * 6

    def test_a_file_that_cannot_be_read_now_is_left(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        keys = filled(tmp_path, 1)
        (file,) = tmp_path.glob("*.safetensors")
        opened = Path.open

        def refusing(path: Path, *how: Any, **more: Any) -> Any:
            if path == file:
                raise PermissionError(13, "Permission denied")
            return opened(path, *how, **more)

        with monkeypatch.context() as broken:
            broken.setattr(Path, "open", refusing)
            assert FeatureCache(tmp_path).missing(keys) == keys
        assert FeatureCache(tmp_path).missing(keys) == []

    def test_a_damaged_file_that_another_process_took_away_is_a_miss(self, tmp_path: Path) -> None:
        keys = filled(tmp_path, 1)
        first, second = FeatureCache(tmp_path), FeatureCache(tmp_path)
        (file,) = tmp_path.glob("*.safetensors")
        file.write_bytes(file.read_bytes()[:-1] + b"\xff")
        assert first.missing(keys) == second.missing(keys) == keys


class TestDigests:
    @pytest.mark.usefixtures("settled")
    def test_photos_that_nobody_touched_are_read_once(self, tmp_path: Path, hashed: Counter[str]) -> None:
        folder = photos_in(tmp_path / "photos")
        first = scanned(folder, tmp_path)
        assert hashed == {"0.jpg": 1, "1.jpg": 1, "2.jpg": 1}
        assert scanned(folder, tmp_path) == first
        assert sum(hashed.values()) == 3
        (folder / "1.jpg").write_bytes(b"another")
        (folder / "3.jpg").write_bytes(b"new")
        changed = scanned(folder, tmp_path)
        assert hashed == {"0.jpg": 1, "1.jpg": 2, "2.jpg": 1, "3.jpg": 1}
        assert changed[1] == hashlib.sha256(b"another").hexdigest()
        assert [changed[0], changed[2]] == [first[0], first[2]]

    @pytest.mark.usefixtures("settled")
    def test_a_folder_that_nobody_touched_is_recognised_as_a_whole(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = photos_in(tmp_path / "photos")
        asked: list[str] = []
        whole = DigestBook.digest

        def digest(book: DigestBook, file: str, read: Callable[[str], str]) -> bytes:
            asked.append(Path(file).name)
            return whole(book, file, read)

        monkeypatch.setattr(DigestBook, "digest", digest)
        first = scanned(folder, tmp_path)
        assert len(asked) == 3
        assert scanned(folder, tmp_path) == first
        assert len(asked) == 3
        (folder / "1.jpg").unlink()
        assert scanned(folder, tmp_path) == [first[0], first[2]]
        assert scanned(folder, tmp_path) == [first[0], first[2]]
        assert len(asked) == 5
        (folder / "0.jpg").rename(folder / "9.jpg")
        assert scanned(folder, tmp_path) == [first[2], first[0]]
        (folder / "4.jpg").write_bytes((folder / "9.jpg").read_bytes())
        assert scanned(folder, tmp_path) == [first[2], first[0]]

    @pytest.mark.usefixtures("settled")
    def test_digests_of_earlier_versions_get_their_keyed_ones_once(self, tmp_path: Path) -> None:
        folder = photos_in(tmp_path / "photos")
        first = scanned(folder, tmp_path)
        kept = read_tensors(tmp_path / "book")
        assert kept is not None
        write_tensors(tmp_path / "book", {name: part for name, part in kept.items() if name != "keyed"})
        assert scanned(folder, tmp_path) == first
        again = read_tensors(tmp_path / "book")
        assert again is not None
        assert torch.equal(again["keyed"], kept["keyed"])

    def test_photos_that_just_changed_are_read_again(self, tmp_path: Path, hashed: Counter[str]) -> None:
        folder = photos_in(tmp_path / "photos")
        assert scanned(folder, tmp_path) == scanned(folder, tmp_path)
        assert sum(hashed.values()) == 6

    @pytest.mark.usefixtures("settled")
    def test_a_damaged_book_is_empty_and_paths_are_not_in_it(self, tmp_path: Path, hashed: Counter[str]) -> None:
        folder = photos_in(tmp_path / "photos")
        first = scanned(folder, tmp_path)
        book = tmp_path / "book"
        assert b"jpg" not in book.read_bytes()
        book.write_bytes(book.read_bytes()[:-1])
        assert scanned(folder, tmp_path) == first
        assert sum(hashed.values()) == 6

    def test_inodes_and_times_of_all_bits_come_back(self) -> None:
        found = (status_of(2**64 - 1, 2**63 + 5, 7, -3, 2**64), status_of(1, 2, 3, 4, 5))
        stamps = b"".join(map(digests._key, found))
        rows = np.arange(64, dtype=np.uint8).reshape(2, 32)
        known = digests._unpacked(digests._packed(stamps, rows, rows + 1), keyed)
        assert known[0] == stamps
        assert (known[1] == rows).all()
        assert (known[2] == rows + 1).all()
        assert [digests._stamp(digests._key(status)) for status in found] == [
            (2**64 - 1, 2**63 + 5, 7, -3, 0),
            (1, 2, 3, 4, 5),
        ]


def status_of(device: int, inode: int, size: int, content_time: int, inode_time: int) -> Any:
    return SimpleNamespace(st_dev=device, st_ino=inode, st_size=size, st_mtime_ns=content_time, st_ctime_ns=inode_time)


def keyed(digest: bytes) -> bytes:
    return hashlib.sha256(digest).digest()


def photos_in(folder: Path) -> Path:
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.jpg").write_bytes(b"photo %d" % number)
    return folder


def scanned(folder: Path, place: Path) -> list[str]:
    book = DigestBook(lambda: place / "book", keyed)
    people = scan_people(folder, "--retain", "everybody", book)
    book.keep()
    assert keys_of(people.photos.keyed) == [keyed(digest) for digest in keys_of(people.photos.digests)]
    return [photo.sha256 for photo in people.flat]


@pytest.fixture
def place(samples: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    copy_with_second_target(samples, folder)
    assert run_ireu("locate", "--method", "all", cwd=folder).code == 0
    return folder


def unlearn(folder: Path, *more: str) -> Run:
    given = ("--mask", "mask.pt", "--method", "gated", "--set", "gated.people=3")
    return run_ireu("unlearn", *given, *more, cwd=folder)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Counter[str]]:
    """Counts calls of a function where it is used."""

    def watch(module: str, name: str) -> Counter[str]:
        calls: Counter[str] = Counter()
        whole = getattr(__import__(module, fromlist=[name]), name)

        def counting(*given: Any, **named: Any) -> Any:
            calls[name] += 1
            return whole(*given, **named)

        monkeypatch.setattr(f"{module}.{name}", counting)
        return calls

    return watch


class TestCommands:
    @pytest.mark.usefixtures("settled")
    def test_a_later_request_sums_no_rows_and_reads_no_retained_photo(
        self, place: Path, hashed: Counter[str], counted: Callable[[str, str], Counter[str]]
    ) -> None:
        assert unlearn(place, "-o", "one.safetensors").code == 0
        photos = {path.name for path in place.rglob("*.png")} | {path.name for path in place.rglob("*.jpg")}
        calls = counted("ireu_cli.unlearning.gated.site", "sum_site")
        kept = {path: path.stat().st_mtime_ns for path in (place / ".ireu" / "features").rglob("people-*")}
        assert len(kept) == 1
        hashed.clear()
        assert unlearn(place, "--targets", "more", "-o", "two.safetensors").code == 0
        assert not calls
        assert {path: path.stat().st_mtime_ns for path in (place / ".ireu" / "features").rglob("people-*")} == kept
        targets = len(list((place / "more").rglob("*.*")))
        assert sum(count for name, count in hashed.items() if name in photos) == targets

    def test_the_second_request_is_the_same_with_kept_sums_and_without(self, place: Path) -> None:
        assert unlearn(place, "-o", "one.safetensors").code == 0
        assert unlearn(place, "--targets", "more", "-o", "kept.safetensors").code == 0
        shutil.rmtree(place / ".ireu" / "features")
        assert unlearn(place, "--targets", "more", "-o", "fresh.safetensors").code == 0
        assert (place / "kept.safetensors").read_bytes() == (place / "fresh.safetensors").read_bytes()

    def test_a_bad_photo_does_not_cost_what_passed_before_it(
        self, place: Path, counted: Callable[[str, str], Counter[str]]
    ) -> None:
        assert unlearn(place, "-o", "whole.safetensors").code == 0
        shutil.rmtree(place / ".ireu" / "features")
        used = sorted(path for path in (place / "others").rglob("*.*") if path.is_file())
        bad, good = used[-20], used[-20].read_bytes()
        # Its first bytes tell nothing against it.
        bad.write_bytes(good[: len(good) // 2])
        calls = counted("ireu_cli.unlearning.gated.site", "watching")
        first = unlearn(place, "-o", "stopped.safetensors")
        assert (first.code, "ends early" in first.err) == (3, True), first.err
        done = calls.total()
        bad.write_bytes(good)
        assert unlearn(place, "-o", "stopped.safetensors").code == 0
        repeated = calls.total() - done
        calls.clear()
        shutil.rmtree(place / ".ireu" / "features")
        assert unlearn(place, "-o", "again.safetensors").code == 0
        assert done > 0
        assert done + repeated == calls.total()
        assert (place / "stopped.safetensors").read_bytes() == (place / "whole.safetensors").read_bytes()

    def test_features_of_other_batches_are_kept_apart_and_the_record_names_them(self, place: Path) -> None:
        def located(size: int, name: str) -> bytes:
            given = ("--method", "variance", "--set", f"run.batch_size={size}", "-o", name)
            assert run_ireu("locate", *given, cwd=place).code == 0
            assert manifest(place, name)["environment"]["batch_size"] == str(size)
            return (place / name).read_bytes()

        located(16, "sixteen.pt")
        three = located(3, "three.pt")
        shutil.rmtree(place / ".ireu" / "features")
        assert located(3, "alone.pt") == three
        (folder,) = [path.name for path in (place / ".ireu" / "features").iterdir()]
        assert folder.endswith("-cpux3")

    def test_only_the_sample_of_retained_photos_is_opened(
        self, place: Path, counted: Callable[[str, str], Counter[str]]
    ) -> None:
        calls = counted("ireu_cli.faces.read", "decode")
        few = ("--method", "block", "--steps", "1", "--set", "gated.erase_photos=100")
        run = run_ireu("unlearn", "--mask", "mask.pt", *few, "-o", "block.safetensors", cwd=place)
        assert run.code == 0, run.err
        # Each of the sample twice, once to see whether it can be used; the rest are targets and their copies.
        assert calls.total() < 2 * 100 + 200

    def test_tokens_of_retained_people_are_not_kept(self, place: Path) -> None:
        tap = ("--tap", "last", "--method", "all", "-o", "tokens.pt")
        assert run_ireu("locate", *tap, cwd=place).code == 0
        train = ("--method", "block", "--steps", "1", "-o", "tokens.safetensors")
        assert run_ireu("unlearn", "--mask", "tokens.pt", *train, cwd=place).code == 0
        bare = ("--set", "attacks.suite=none", "--set", "pictures.generators=none")
        assert run_ireu("verify", "--delta", "tokens.safetensors", *bare, cwd=place).code in {0, 4, 5}
        whole = [
            key
            for path in (place / ".ireu" / "features").rglob("*.safetensors")
            for key, row in safetensors.torch.load_file(path).items()
            if len(key) == 64 and row.ndim == 2
        ]
        targets = [path for path in (place / "faces").rglob("*.*") if path.is_file()]
        assert 0 < len(whole) <= 2 * len(targets)


def test_every_file_that_is_looked_at_is_told(tmp_path: Path) -> None:
    """Also one that cannot be read."""
    folder = photos_in(tmp_path / "photos")
    (folder / "3.jpg").symlink_to("nowhere")
    told: list[int] = []

    @contextmanager
    def progress(total: int) -> Iterator[Callable[[int, str], None]]:
        told.append(total)
        yield lambda count, _words: told.append(count)

    scan_people(folder, "--retain", "everybody", progress=progress)
    assert (told[0], sum(told[1:])) == (4, 4)
