"""Measure the distance between sets of drawn pictures and photos, before and after the edit."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ireu_cli.drawing.judged_pictures import Drawn
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.lens import Lens, SteadyPhoto, photo_key
from ireu_cli.encodings.loop import Encodings, Item
from ireu_cli.encodings.refusals import refuse_bad
from ireu_cli.judges.image_net import ImageNetFeatures, load_image_net
from ireu_cli.report import Figure
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import People, Photo
from ireu_cli.verifying.pictures.distance_figures import Sets, distances, scaled

_FEWEST = 20
"""The fewest pictures in a set for which the distances mean something."""
_OTHER_PHOTOS = 2
"""The number of photos of each retained person who was not drawn, for comparison."""

_OTHER_PEOPLE = 1000
"""The most of these people that are taken, evenly from all: the distances go through all pairs."""


def measure_quality(
    encodings: Encodings, encoder: ImageEncoder, drawn: Sequence[Drawn], retained: People
) -> tuple[Figure, ...]:
    """Measure with the original encoder's features, and with those of `judges.image_model` if there is one.

    Args:
        encodings: the loop through which photos and pictures pass.
        encoder: the original one, at the tap that describes the whole picture (`image_embeds` of CLIP).
        drawn: the generators' pictures.
        retained: the retained people drawn from, and others.

    Raises:
        ModelError: the image model cannot be loaded.
    """
    session, reader = encodings.session, encodings.reader
    path = session.config.judges.image_model
    net = None if path is None else load_image_net(path, session.config.run.device)
    # A face embedding only says whose face a picture shows.
    lens = None if encoder.whole_tap is None else Lens(session, encoder, reader, encoder.whole_tap)
    figures: list[Figure] = []
    for plan in drawn:
        numbers = [n for n, shot in enumerate(plan.shots) if shot.role == "retained" and shot.edit is None]
        if len(numbers) < _FEWEST:
            continue
        label = f"pictures of generator {plan.generator} for KID"
        chosen = _Chosen(encodings, plan, numbers, retained)
        if lens is not None:
            sets = chosen.sets(_by_encoder(lens, chosen.items, label))
            figures += distances(plan.generator, f"original encoder, {lens.tap} at unit RMS", scaled(sets))
        if net is not None:
            sets = chosen.sets(_by_network(encodings, net, chosen.items, label))
            figures += distances(plan.generator, f"image model {net.fingerprint[:12]}", sets)
    return tuple(figures)


class _Chosen:
    """The pictures to compare, the photos that they were drawn from, and photos of people who were not drawn."""

    def __init__(self, encodings: Encodings, plan: Drawn, numbers: Sequence[int], retained: People) -> None:
        shots = [plan.shots[n] for n in numbers]
        self._people = list(dict.fromkeys(shot.photo.person for shot in shots))
        own = {photo: _photo(encodings, photo) for photo in dict.fromkeys(shot.photo for shot in shots)}
        # Targets have numbers of their own.
        drawn = {shot.photo.person for shot in plan.shots if shot.role in {"retained", "look-alike"}}
        undrawn = [person for person in retained.photos if person[0].person not in drawn]
        undrawn = (
            [undrawn[n * len(undrawn) // _OTHER_PEOPLE] for n in range(_OTHER_PEOPLE)]
            if len(undrawn) > _OTHER_PEOPLE
            else undrawn
        )
        others = [[_photo(encodings, photo) for photo in person[:_OTHER_PHOTOS]] for person in undrawn]
        self._real = [[item.key for photo, item in own.items() if photo.person == one] for one in self._people]
        self._others = [[item.key for item in person] for person in others]
        self._sides = [
            [[plan.keys[state][n] for n in numbers if plan.shots[n].photo.person == one] for one in self._people]
            for state in (0, 1)
        ]
        photos = [*own.values(), *(item for person in others for item in person)]
        pictures = [item for state in (0, 1) for item in plan.items(state, numbers)]
        self.items = list({item.key: item for item in [*photos, *pictures]}.values())

    def sets(self, rows: Mapping[str, Tensor]) -> Sets:
        """Features (1, d) of every picture and photo, by person."""

        def joined(people: Sequence[Sequence[str]]) -> list[Tensor]:
            return [torch.cat([rows[key] for key in keys]) for keys in people]

        return Sets(joined(self._real), joined(self._sides[0]), joined(self._sides[1]), joined(self._others))


def _photo(encodings: Encodings, photo: Photo) -> Item:
    return SteadyPhoto(photo_key(encodings.reader, photo), encodings.session.name_of(photo), photo)


def _by_encoder(lens: Lens, items: Sequence[Item], label: str) -> dict[str, Tensor]:
    lens.encode_items(items, "--retain", label)
    return {item.key: lens.cache.get([item.key]) for item in items}


def _by_network(encodings: Encodings, net: ImageNetFeatures, items: Sequence[Item], label: str) -> dict[str, Tensor]:
    cache = FeatureCache(encodings.session.run.features / f"image-model-{net.fingerprint[:32]}")
    bad = encodings.fill(net, items, [cache], label, "quality")
    refuse_bad(bad, {item.key: item.label for item in items}, "--retain")
    return {item.key: cache.get([item.key]) for item in items}
