"""What the judges see in everybody's photos."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.drawing.panel import Panel, Sight
from ireu_cli.encodings.lens import PlainPhoto, photo_key
from ireu_cli.encodings.loop import Encodings
from ireu_cli.values import Groups, People, Photo

_NO_SIGHT = Sight(None, ())


@dataclass(frozen=True)
class Photos:
    """What the panel sees in the photos of targets and retained people.

    `encodings` is the loop that they passed through; pictures pass through it too. `sights` has one entry for each
    photo. `vectors` has, for each recogniser, for targets and for retained people, one array of unit vectors (k, d) a
    person, from the photos that show a face.
    """

    encodings: Encodings
    people: Groups[People]
    sights: dict[Photo, Sight]
    vectors: tuple[Groups[list[Tensor]], ...]

    def seen(self, photos: Sequence[Photo], recogniser: int, width: int) -> Tensor:
        """Unit vectors (n, width) of photos; rows of photos without a face are NaN."""
        rows = [s.vectors[recogniser] for photo in photos if (s := self.sights.get(photo)) is not None]
        return torch.stack(rows) if rows else torch.empty(0, width)


def look_at_photos(encodings: Encodings, panel: Panel, people: Groups[People]) -> Photos:
    """Let the panel judge every photo of targets, and of retained people whom unlearning never used."""
    targets, retained = people
    sights = _look(encodings, panel, [*targets.flat, *retained.flat])
    vectors = []
    for number in range(len(panel.recognisers)):
        vectors.append(Groups(*([vectors_of(sights, person, number) for person in group.photos] for group in people)))
    return Photos(encodings, people, sights, tuple(vectors))


def _look(encodings: Encodings, panel: Panel, photos: Sequence[Photo]) -> dict[Photo, Sight]:
    reader, name_of = encodings.reader, encodings.session.name_of
    items = {photo: PlainPhoto(photo_key(reader, photo), name_of(photo), photo) for photo in photos}
    found = panel.look(encodings, list(items.values()), "looking at photos")
    return {photo: found[item.key] for photo, item in items.items() if item.key in found}


def vectors_of(sights: dict[Photo, Sight], person: Sequence[Photo], recogniser: int) -> Tensor:
    """Unit vectors (k, d) of the photos that show a face and for which the recogniser gives a vector."""
    seen = [s.vectors[recogniser] for photo in person if (s := sights.get(photo, _NO_SIGHT)).landmarks is not None]
    rows = [row for row in seen if bool(torch.isfinite(row).all())]
    return torch.stack(rows) if rows else torch.empty(0, 0)
