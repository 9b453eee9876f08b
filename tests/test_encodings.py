"""The loop that everything passes through: what is to be looked at can travel, and no batch of pictures is held."""

import contextlib
import multiprocessing
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

import ireu_cli
from ireu_cli.attacks.plan import DisguisedPhoto, Victim
from ireu_cli.drawing.jobs import DrawnPicture
from ireu_cli.encoders.clip import Encoder
from ireu_cli.encodings.lens import AtTap, PlainPhoto, SteadyPhoto
from ireu_cli.encodings.loop import Batch, Encodings, Fold, Item, stream
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.disguise import DISGUISES, disguise
from ireu_cli.faces.folder import scan_people
from ireu_cli.faces.read import PhotoReader
from ireu_cli.faces.swap import blend
from ireu_cli.locating.swaps import BroughtPair, SwappedPhoto
from ireu_cli.params import DataParams
from ireu_cli.session import Session
from ireu_cli.sharding.executor import Alone
from ireu_cli.store.features import FeatureCache
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.unlearning.gated.changed_copies import ChangedCopy
from ireu_cli.values import People, RgbImage
from ireu_cli.verifying.rival.rival_gate import MadePicture
from tests.test_photos import people_folder, picture


@dataclass(frozen=True, slots=True)
class Numbered(Item):
    """A grey picture, or none."""

    def load(self, _reader: PhotoReader, /) -> RgbImage:
        """See `Item`."""
        if self.key == "bad":
            raise BadPhotoError("shows nothing")
        return np.array(picture(seed=int(self.key)))


def numbered(count: int) -> list[Item]:
    return [Numbered(str(number), f"photo {number}") for number in range(count)]


class Watched:
    """A session that notes progress, and nothing else."""

    def __init__(self, batch_size: int) -> None:
        self.config = SimpleNamespace(run=SimpleNamespace(batch_size=batch_size, shard_batches=2, photos_at_once=2))
        self.executor = Alone()
        self.talk = self
        self.bars: list[tuple[str, int]] = []
        self.done: list[int] = []
        self.parts: list[str] = []
        self.ended: list[str] = []

    @contextlib.contextmanager
    def timed(self, part: str) -> Iterator[None]:
        self.parts.append(part)
        yield

    @contextlib.contextmanager
    def progress(self, label: str, total: int) -> Iterator[Any]:
        self.bars.append((label, total))
        try:
            yield lambda count, _words: self.done.append(count)
        finally:
            self.ended.append(label)


def loop(batch_size: int) -> tuple[Encodings, Watched]:
    watched = Watched(batch_size)
    return Encodings(cast("Session", watched), PhotoReader(DataParams(), None)), watched


class TwoNumbers:
    """A look that takes two things of a picture: its mean, and its first pixel."""

    def __init__(self) -> None:
        self.looked = 0

    def prepare(self, image: RgbImage) -> RgbImage:
        """See `Look`."""
        return image

    def rows(self, prepared: Sequence[RgbImage]) -> list[torch.Tensor]:
        """See `Look`."""
        self.looked += len(prepared)
        return [
            torch.tensor([[float(image.mean())] for image in prepared]),
            torch.tensor([image[0, 0].astype(float).tolist() for image in prepared]),
        ]


@pytest.fixture
def everybody(tmp_path: Path) -> People:
    return scan_people(people_folder(tmp_path / "people"), "--targets", "one person")


def every_kind(people: People, tmp_path: Path) -> list[Item]:
    """One item of each kind that there is."""
    first, second = people.flat[:2]
    drawn = PictureCache(tmp_path / "drawn")
    drawn.put("d" * 64, np.array(picture(seed=7)))
    change = disguise("rotate-left-10")
    brought = tmp_path / "pair.png"
    shutil.copyfile(second.path, brought)
    return [
        PlainPhoto("a", "one", first),
        SteadyPhoto("b", "two", first),
        SwappedPhoto("c", "three", first, second, blend),
        BroughtPair("e", "four", brought, 10.0),
        ChangedCopy("f", "five", first, change),
        DisguisedPhoto("g", "six", Victim(0, first, second, second), change, ("x", "y", "z")),
        DrawnPicture("d" * 64, "seven", drawn),
        MadePicture("h", "eight", np.array(picture(seed=9))),
    ]


def test_every_item_can_be_sent_to_another_process(everybody: People, tmp_path: Path) -> None:
    """By its values alone: whoever has a reader of their own makes the same picture of it."""
    items = every_kind(everybody, tmp_path)
    ours = Path(ireu_cli.__file__).parent
    kinds = [kind for kind in subclasses(Item) if kind.__module__.startswith(f"{ours.name}.")]
    assert {type(item) for item in items} == set(kinds)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        for item, there in zip(items, other.map(load_alone, items), strict=True):
            assert np.array_equal(load_alone(item), there), type(item).__name__
        changed = [ChangedCopy("", "", everybody.flat[0], change) for change in DISGUISES]
        for item, there in zip(changed, other.map(load_alone, changed), strict=True):
            assert np.array_equal(load_alone(item), there), item.change.name


def load_alone(item: Item) -> RgbImage:
    """As somebody does who has the item, and a reader of their own."""
    return item.load(PhotoReader(DataParams(), None))


def subclasses(kind: Any) -> list[type[Item]]:
    # A dataclass with slots is made twice; the first one, which is nobody's, goes with the next collection.
    found = {each.__qualname__: each for each in kind.__subclasses__()}
    return [*found.values(), *(below for each in found.values() for below in subclasses(each))]


def test_a_look_may_keep_several_things_and_takes_each_once(tmp_path: Path) -> None:
    caches = [FeatureCache(tmp_path / "means"), FeatureCache(tmp_path / "pixels")]
    look = TwoNumbers()
    caches[0].put(["1"], torch.tensor([[99.0]]))
    encodings, watched = loop(4)
    items = [*numbered(6), Numbered("bad", "photo bad")]
    assert encodings.fill(look, items, caches, "looking", "judge") == {"bad": "shows nothing"}
    assert look.looked == 6
    assert watched.bars == [("looking", 7)]
    assert watched.parts == ["judge"]
    assert sum(watched.done) == 7
    means = caches[0].get([str(n) for n in range(6)]).flatten().tolist()
    assert means[1] == 99.0
    assert means[0] == pytest.approx(float(np.array(picture(seed=0)).mean()))
    assert caches[1].get(["1"]).tolist() == [np.array(picture(seed=1))[0, 0].astype(float).tolist()]
    assert encodings.fill(look, items, caches, "looking", "judge") == {"bad": "shows nothing"}
    assert look.looked == 6


def test_pictures_of_a_batch_are_not_held_together(tiny: Encoder) -> None:
    """Each becomes pixels before the next but one is read: whole pictures of a batch may take gigabytes."""
    lock, held, most = threading.Lock(), 0, 0

    class Counted(AtTap):
        def prepare(self, image: RgbImage) -> torch.Tensor:
            nonlocal held
            found = super().prepare(image)
            with lock:
                held -= 1
            return found

    class Held(Numbered):
        def load(self, reader: PhotoReader, /) -> RgbImage:
            nonlocal held, most
            with lock:
                held += 1
                most = max(most, held)
            return Numbered.load(self, reader)

    encodings, _ = loop(8)
    items = [Held(str(number), "") for number in range(20)]
    seen = Seen()
    encodings.gather(Counted(tiny, "image_embeds"), items, seen.fold(), "looking")
    assert [len(batch.keys) for batch in seen.batches] == [8, 8, 4]
    assert [len(batch.prepared) for batch in seen.batches] == [8, 8, 4]
    assert most <= 2


class Seen:
    """Gathers the numbers of the batches of each shard, and notes the batches; stops where it is told to."""

    def __init__(self, stop: int | None = None) -> None:
        self.batches: list[Batch[Any]] = []
        self.shards: list[tuple[int, list[int]]] = []
        self.stop = stop

    def fold(self) -> Fold[Any]:
        def begin(first: int) -> "Seen":
            self.shards.append((first, []))
            return self

        return Fold("seen", begin, lambda _tensors: None)

    def add(self, batch: Batch[Any]) -> None:
        if len(self.batches) == self.stop:
            raise RuntimeError("enough")
        self.batches.append(batch)
        self.shards[-1][1].append(len(batch))

    def tensors(self) -> dict[str, torch.Tensor]:
        return {}


def test_what_is_gathered_begins_anew_with_each_shard() -> None:
    seen = Seen()
    bad = loop(4)[0].gather(TwoNumbers(), [*numbered(18), Numbered("bad", "")], seen.fold(), "looking")
    assert seen.shards == [(0, [4, 4]), (8, [4, 4]), (16, [3])]
    assert bad == {"bad": "shows nothing"}


def test_whoever_stops_early_leaves_nothing_behind() -> None:
    encodings, watched = loop(4)
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="enough"):
        encodings.gather(TwoNumbers(), numbered(400), Seen(stop=1).fold(), "looking")
    assert threading.active_count() == before
    assert sum(watched.done) == 4
    assert watched.ended == ["looking"]


def test_stopping_does_not_wait_for_photos_that_nobody_wants() -> None:
    loaded = []

    def load(item: Item) -> str:
        loaded.append(1)
        time.sleep(0.02)
        return item.key

    items = numbered(400)
    going = stream([items[:200], items[200:]], load, 2)
    with contextlib.closing(going):
        next(going)
        time.sleep(0.2)
    assert len(loaded) < 300
