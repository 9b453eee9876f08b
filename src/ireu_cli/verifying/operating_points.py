"""A calibrated recogniser in the report: its operating points, and its scores as curves."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ireu_cli.drawing.panel import Panel
from ireu_cli.drawing.seen_photos import Photos
from ireu_cli.maths.calibration import CalibratedPoint, CalibrationResult, calibrate
from ireu_cli.params import Config, JudgesParams, VerifyParams
from ireu_cli.report import Calibration, Curve, OperatingPoint
from ireu_cli.support.runtime import generator

START, WIDTH, BINS = -0.5, 0.02, 75
"""The bins of curves, from -0.5 to 1. Lower similarities are rare and count in the first bin."""


def calibrated_panel(config: Config, panel: Panel, photos: Photos) -> tuple[tuple[Calibration, ...], tuple[Curve, ...]]:
    """Calibrate every recogniser on the run's own retained photos, before it says anything of targets."""
    found: list[Calibration] = []
    charts: list[Curve] = []
    for number, net in enumerate(panel.recognisers):
        retained = [rows for rows in photos.vectors[number].retained if len(rows)]
        one, lines = calibrated(net.name, net.fingerprint, retained, config.judges, config.verify, config.seed)
        found.append(one)
        charts += lines
    return tuple(found), tuple(charts)


def calibrated(
    recogniser: str, fingerprint: str, people: Sequence[Tensor], judges: JudgesParams, params: VerifyParams, seed: int
) -> tuple[Calibration, tuple[Curve, ...]]:
    """Calibrate a recogniser on retained people.

    Args:
        recogniser: its name.
        fingerprint: its fingerprint (hex).
        people: unit vectors (n_i, d) of each retained person's photos that show a face.
        judges: the true-accept rate that it has to reach.
        params: false-match rates, resamples.
        seed: decides the resampling.
    """
    rates = (params.false_match_rate, *params.further_rates)
    rng = generator(seed, "calibration", recogniser)
    result = calibrate(people, rates, judges.min_accept_rate, params.false_match_rate, params.bootstrap, rng)
    return reported(recogniser, fingerprint, result), curves(recogniser, result)


def reported(recogniser: str, fingerprint: str, result: CalibrationResult) -> Calibration:
    """The entry of the report.

    Args:
        recogniser: its name.
        fingerprint: its fingerprint (hex).
        result: its result on the retained people.
    """
    return Calibration(
        recogniser=recogniser,
        fingerprint=fingerprint,
        photos=result.photos,
        people=result.people,
        genuine_mean=_mean(result.genuine),
        impostor_mean=_mean(result.impostor),
        points=tuple(_point(point) for point in result.points),
        needed=result.needed,
        usable=result.usable,
        why_not=result.why_not,
    )


def curves(recogniser: str, result: CalibrationResult) -> tuple[Curve, ...]:
    """Distributions of impostor and genuine scores, if there are any."""
    kinds = (("impostor", result.impostor), ("genuine", result.genuine))
    return tuple(
        Curve(kind=kind, measure=recogniser, start=START, width=WIDTH, counts=histogram(scores))
        for kind, scores in kinds
        if len(scores)
    )


def histogram(scores: Tensor) -> tuple[int, ...]:
    """Count finite similarities (n,) in the bins of a curve; values beyond an end count in the bin at that end."""
    # Round first, so that 0.1 is in the bin that begins at 0.1, whatever its binary form.
    places = ((scores.double() - START) / WIDTH).mul(1e6).round().div(1e6).floor().long().clamp(0, BINS - 1)
    return tuple(torch.bincount(places, minlength=BINS).tolist())


def _mean(scores: Tensor) -> float | None:
    return float(scores.mean()) if len(scores) else None


def _point(point: CalibratedPoint) -> OperatingPoint:
    return OperatingPoint(
        false_match_rate=point.false_match_rate,
        threshold=point.threshold.value,
        threshold_low=point.threshold.low,
        threshold_high=point.threshold.high,
        true_accept_rate=point.true_accept_rate.value,
        true_accept_low=point.true_accept_rate.low,
        true_accept_high=point.true_accept_rate.high,
        resolved=point.resolved,
    )
