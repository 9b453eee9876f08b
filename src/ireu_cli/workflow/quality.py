"""How far sets of drawn pictures are from photos, before and after the edit: KID and FID."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ireu_cli.faces.read import PhotoReader
from ireu_cli.features import Item
from ireu_cli.manifest import digest_of
from ireu_cli.maths.quality import Spread, fid, kid, kid_change
from ireu_cli.models.clip import Encoder
from ireu_cli.models.image_net import ImageNetFeatures, load_image_net
from ireu_cli.report import Definition, Figure, State
from ireu_cli.steps.shots import Shot
from ireu_cli.store.features import FeatureCache
from ireu_cli.values import RgbImage
from ireu_cli.workflow.drawing import Drawn
from ireu_cli.workflow.photos import Lens
from ireu_cli.workflow.session import Session

_SETS = "pictures of retained people with the base prompt, and the photos they were drawn from"
QUALITY_DEFINITIONS = {
    "kid": Definition(
        text="Kernel Inception distance of drawn pictures to the photos, on the features named by `measure`; its "
        "change is the edited encoder's less the original's, paired by person. Comparable only within one `measure`.",
        unit="distance",
        reference=_SETS,
    ),
    "fid": Definition(
        text="Frechet distance of drawn pictures to the photos, on the same features, where there are more pictures "
        "than features.",
        unit="distance",
        reference=_SETS,
    ),
}

_FEWEST = 20
"""With fewer pictures in a set the distances say nothing."""

_Sets = tuple[list[Tensor], list[Tensor], list[Tensor]]
"""Features (n_i, d) by person: of photos, of pictures before, of pictures after."""


def measure_quality(
    session: Session, encoder: Encoder, drawn: Sequence[Drawn], reader: PhotoReader
) -> tuple[Figure, ...]:
    """Measure on the original encoder's features, and on those of `judges.image_model` where there is one.

    Args:
        session: the run.
        encoder: the original one; `image_embeds` are taken, as they describe the whole picture.
        drawn: what the generators drew.
        reader: reads the photos.

    Raises:
        ModelError: the image model cannot be loaded.
    """
    path = session.config.judges.image_model
    net = None if path is None else load_image_net(path, session.config.run.device)
    lens = Lens(session, encoder, reader, "image_embeds")
    figures: list[Figure] = []
    for plan in drawn:
        numbers = [n for n, shot in enumerate(plan.shots) if shot.role == "retained" and shot.edit is None]
        if len(numbers) < _FEWEST:
            continue
        label = f"pictures of generator {plan.generator} for KID"
        sets = _by_encoder(lens, plan, numbers, label)
        figures += _figures(plan.generator, "original encoder, image_embeds at unit RMS", _scaled(sets))
        if net is not None:
            sets = _by_network(session, net, plan, numbers, reader, label)
            figures += _figures(plan.generator, f"image model {net.fingerprint[:12]}", sets)
    return tuple(figures)


def _by_encoder(lens: Lens, plan: Drawn, numbers: Sequence[int], label: str) -> _Sets:
    keys = [[plan.keys[state][n] for n in numbers] for state in (0, 1)]
    items = [
        Item(key, f"picture {n + 1}", _picture(plan, n, state))
        for state in (0, 1)
        for key, n in zip(keys[state], numbers, strict=True)
    ]
    photos = list(dict.fromkeys(plan.shots[n].photo for n in numbers))
    lens.encode_items([*(lens.item(photo) for photo in photos), *items], "--retain", label)
    people = list(dict.fromkeys(photo.person for photo in photos))
    real = [lens.features([photo for photo in photos if photo.person == person]) for person in people]
    sides = [
        [lens.cache.get([plan.keys[state][n] for n in _of(plan.shots, numbers, person)]) for person in people]
        for state in (0, 1)
    ]
    return real, sides[0], sides[1]


def _by_network(
    session: Session, net: ImageNetFeatures, plan: Drawn, numbers: Sequence[int], reader: PhotoReader, label: str
) -> _Sets:
    cache = FeatureCache(session.run.features / f"image-model-{net.fingerprint[:32]}")

    def row(key: str, load: Callable[[], RgbImage]) -> Tensor:
        if cache.missing([key]):
            cache.put([key], net.features([load()]))
        advance(1, "")
        return cache.get([key])

    photos = list(dict.fromkeys(plan.shots[n].photo for n in numbers))
    people = list(dict.fromkeys(photo.person for photo in photos))
    total = len(photos) + 2 * len(numbers)
    with session.timed("quality"), session.talk.progress(label, total) as advance:
        rows = {photo: row(digest_of([reader.name, photo.sha256]), partial(reader.image, photo)) for photo in photos}
        real = [torch.cat([rows[photo] for photo in photos if photo.person == one]) for one in people]
        sides = [
            [
                torch.cat([row(plan.keys[state][n], _picture(plan, n, state)) for n in _of(plan.shots, numbers, one)])
                for one in people
            ]
            for state in (0, 1)
        ]
    return real, sides[0], sides[1]


def _scaled(sets: _Sets) -> _Sets:
    """Every feature vector at a root mean square of 1, for which the kernel's constants are made."""
    first, second, third = (
        [rows * (rows.shape[-1] ** 0.5 / torch.linalg.vector_norm(rows, dim=-1, keepdim=True)) for rows in side]
        for side in sets
    )
    return first, second, third


def _of(shots: Sequence[Shot], numbers: Sequence[int], person: int) -> list[int]:
    return [n for n in numbers if shots[n].photo.person == person]


def _picture(plan: Drawn, number: int, state: int) -> Callable[[], RgbImage]:
    return lambda: plan.picture(number, state)


def _figures(generator: str, measure: str, sets: _Sets) -> list[Figure]:
    real, before, after = sets
    found: list[tuple[str, State, Spread | None]] = [
        ("kid", "original", kid(real, before)),
        ("kid", "edited", kid(real, after)),
        ("kid", "change", kid_change(real, before, after)),
        ("fid", "original", fid(real, before)),
        ("fid", "edited", fid(real, after)),
    ]
    return [
        Figure(
            name=name,
            role="retained",
            state=state,
            measure=measure,
            generator=generator,
            value=spread.value,
            low=spread.low,
            high=spread.high,
            photos=spread.photos,
            people=spread.people,
            unit="distance",
        )
        for name, state, spread in found
        if spread is not None
    ]
