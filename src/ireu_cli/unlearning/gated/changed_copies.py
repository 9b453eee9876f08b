"""Photos and changed copies of them as items to encode."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ireu_cli.encodings.lens import Lens
from ireu_cli.encodings.loop import Item
from ireu_cli.faces.disguise import DISGUISE_VERSION, Disguise, disguise
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import digest_of
from ireu_cli.support.runtime import generator
from ireu_cli.values import People, Photo, RgbImage

_VIEWED = 200
"""The number of retained photos that are changed like the targets' copies, one a person."""


@dataclass(frozen=True, slots=True)
class ChangedCopy(Item):
    """A photo under a disguise."""

    photo: Photo
    change: Disguise

    def load(self, reader: PhotoReader, /) -> RgbImage:
        """See `Item`."""
        face = reader.face(self.photo)
        return self.change.apply(face.image, face.points, face.image, face.image)


def views_of(lens: Lens, photo: Photo, names: Sequence[str]) -> list[Item]:
    """A photo and its changed copies, by the names of disguises."""
    return [lens.item(photo), *(_copy(lens, photo, disguise(name)) for name in names)]


def retained_views(lens: Lens, used: People, names: Sequence[str], seed: int) -> list[list[Item]]:
    """The first photos of some people, each with changed copies; they tell what a change does to a photo."""
    if not names:
        return []
    order = torch.randperm(len(used.photos), generator=generator(seed, "gated", "views"))[:_VIEWED]
    return [views_of(lens, used.photos[i][0], names) for i in order.tolist()]


def _copy(lens: Lens, photo: Photo, change: Disguise) -> Item:
    key = digest_of(["copy", DISGUISE_VERSION, change.name, lens.reader.points_name, photo.sha256])
    return ChangedCopy(key, lens.item(photo).label, photo, change)
