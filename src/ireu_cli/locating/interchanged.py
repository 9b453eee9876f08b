"""Interchange features of two people, and measure how the picture changes."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from ireu_cli.drawing.drawn_faces import Draw, Drawing
from ireu_cli.maths.interchange import ASPECTS, Moves, Point, curve, identity_span
from ireu_cli.maths.masks import top_mask
from ireu_cli.support.runtime import generator
from ireu_cli.values import Json

_BORDER = 8
"""The background is a frame whose width is this fraction of the picture's side: one eighth."""
_RESAMPLES = 1000


@dataclass(frozen=True)
class Exchanged:
    """Two people, A and B: features (…, d) of a photo each, the recogniser's unit vector of that photo, A's seed."""

    first: Tensor
    second: Tensor
    first_face: Tensor
    second_face: Tensor
    seed: int


@dataclass(frozen=True)
class Interchanged:
    """The measurements, and the number of pairs that could not be measured, because A or B is drawn without a face."""

    moves: Moves | None
    left_out: int


def interchange(first: Tensor, second: Tensor, masks: Tensor) -> Tensor:
    """A's features with B's in place of masked ones: (…, d), (…, d) and bool (m, d) to (m, …, d), for every token."""
    shaped = masks.view(len(masks), *[1] * (first.ndim - 1), masks.shape[-1])
    return torch.where(shaped, second, first)


def beside_random(mask: Tensor, seed: int, number: int) -> Tensor:
    """The mask and a random one of the same size, a new one for each pair: bool (d,) to bool (2, d)."""
    score = torch.rand(len(mask), generator=generator(seed, "interchange", "mask", number))
    return torch.stack([mask, top_mask(score, float(mask.sum()) / len(mask))])


def record(done: Interchanged, share: float, seed: int) -> dict[str, Json]:
    """The manifest's entry for interchanges with `beside_random`; null if nothing could be measured.

    Args:
        done: two points a pair, the mask's and the random mask's.
        share: share of the features that the mask keeps.
        seed: seed of the run; both points are resampled in the same way.
    """
    moves = done.moves
    pairs = 0 if moves is None else len(moves.identity)
    span = None if moves is None else identity_span(moves, _RESAMPLES, generator(seed, "interchange", "bootstrap"))
    found: dict[str, Json] = {
        "share": share,
        "pairs": pairs,
        "pairs_without_face": done.left_out,
        "identity_span": span and asdict(span),
    }
    for column, name in enumerate(("mask", "random")):
        rng = generator(seed, "interchange", "bootstrap")
        found[name] = (
            None if moves is None else plain_point(curve(moves.points([column]), [share], _RESAMPLES, rng).points[0])
        )
    return found


def plain_point(point: Point) -> dict[str, Json]:
    """A point of a curve, for JSON."""
    plain = asdict(point)
    return {
        "identity": plain["identity"],
        "rest": plain["rest"],
        **plain["aspects"],
        "without_face": point.without_face,
    }


def measure(pairs: Iterable[Exchanged], masks: Iterable[Tensor], draw: Draw) -> Interchanged:
    """Draw every interchange of every pair.

    Args:
        pairs: the pairs of people.
        masks: for each pair, bool (points, d), the features to take from B.
        draw: the generator with its judges.

    Returns:
        The pairs whose own two drawings both have a face; None if there are none. A point without a face is NaN.
    """
    rows: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    left_out = 0
    for pair, points in zip(pairs, masks, strict=True):
        row = _row(pair, points, draw)
        if row is None:
            left_out += 1
        else:
            rows.append(row)
    if not rows:
        return Interchanged(None, left_out)
    identity, span, rest, rest_span = (torch.stack(column) for column in zip(*rows, strict=True))
    return Interchanged(Moves(identity, span, rest, rest_span), left_out)


def _row(pair: Exchanged, points: Tensor, draw: Draw) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    start, end = draw(torch.stack([pair.first, pair.second]), [pair.seed] * 2)
    if start.face is None or end.face is None:
        return None
    # With all features from B, the picture is B's own and need not be drawn again.
    partial = [i for i, mask in enumerate(points) if not bool(mask.all())]
    drawings = [end] * len(points)
    drawn = draw(interchange(pair.first, pair.second, points[partial]), [pair.seed] * len(partial))
    for i, drawing in zip(partial, drawn, strict=True):
        drawings[i] = drawing
    own = _lean(pair, start)
    identity = torch.stack([_lean(pair, drawing) - own for drawing in drawings])
    rest = torch.stack([_distances(drawing, start) for drawing in drawings])
    return identity, _lean(pair, end) - own, rest, _distances(end, start)


def _lean(pair: Exchanged, drawing: Drawing) -> Tensor:
    """How much closer the drawn face is to B's photo than to A's; NaN without a face."""
    if drawing.face is None:
        return torch.tensor(torch.nan, dtype=torch.float64)
    return (drawing.face.double() * (pair.second_face - pair.first_face).double()).sum()


def _distances(drawing: Drawing, start: Drawing) -> Tensor:
    """Distances to A's own drawing, in the order of `ASPECTS`: float64, NaN without a face."""
    if drawing.landmarks is None or start.landmarks is None:
        return torch.full((len(ASPECTS),), torch.nan, dtype=torch.float64)
    one, other = drawing.picture.astype(np.float64) / 255, start.picture.astype(np.float64) / 255
    places = (drawing.landmarks - start.landmarks) / max(start.picture.shape[:2])
    width = max(1, max(start.picture.shape[:2]) // _BORDER)
    frame = np.ones(one.shape[:2], bool)
    frame[width:-width, width:-width] = False
    return torch.tensor(
        [
            np.linalg.norm(places, axis=1).mean(),
            np.linalg.norm(one.mean((0, 1)) - other.mean((0, 1))),
            np.abs(one - other)[frame].mean(),
        ],
        dtype=torch.float64,
    )
