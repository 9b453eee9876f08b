"""Synthetic reports of every outcome: two generators, two recognisers, attacks, a gate, groups. No real numbers."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Any

import numpy as np
from PIL import Image

from ireu_cli.report import (
    Calibration,
    Control,
    Criterion,
    Curve,
    Definition,
    ErasureRecord,
    Figure,
    Kept,
    OperatingPoint,
    Outcome,
    Provenance,
    Report,
    Role,
    State,
    Subject,
    Unit,
)
from ireu_cli.store.picture_cache import png_bytes
from tests.drawn.people import draw_photo, person_numbers, photo_numbers

GENERATORS = ("A", "B")
RECOGNISERS = ("portrait-mini", "face-encoder")
ATTACKS = ("none", "flip", "crop-0.8", "jpeg-20", "blur-3", "noise-0.1", "glasses", "mix-same", "mix-other-0.25",
           "seeds", "generator-noise", "pgd-8", "relearn")  # fmt: skip
TAP = "tap features, whitened"
RATE = 0.01
_TARGETS: tuple[Role, ...] = ("target-seen", "target-unseen")
_ROLES: tuple[Role, ...] = (*_TARGETS, "look-alike", "retained")
_FAILS = {"pass": 1.0, "fail": 6.0, "inconclusive": 1.0}
"""By how much more often the target is still found."""


@dataclass
class _Maker:
    """Draws numbers that look like a run's."""

    rng: Random
    scale: float

    def figure(self, name: str, role: Role, state: State, measure: str, value: float, **more: Any) -> Figure:
        """A figure with an interval around its value."""
        unit: Unit = more.pop("unit", "share")
        wide = {"share": 0.04, "dB": 1.1}.get(unit, 0.03) * (0.5 + self.rng.random())
        low, high = value - wide, value + wide
        if unit == "share":
            value, low, high = (min(max(v, 0.0), 1.0) for v in (value, low, high))
        few = role in _TARGETS and more.get("attack") is None and name == "rank1"
        return Figure(
            name=name, role=role, state=state, measure=measure, value=value, low=None if few else low,
            high=None if few else high, photos=40 if role in _TARGETS else 180,
            people=5 if role in _TARGETS else 30, unit=unit, **more,
        )  # fmt: skip

    def near(self, value: float, spread: float = 0.03) -> float:
        """A number around another."""
        return value + self.rng.uniform(-spread, spread)


@cache
def sample(outcome: Outcome = "pass") -> Report:
    """A full report of generator level."""
    maker = _Maker(Random(0), _FAILS[outcome])
    figures = tuple(_figures(maker))
    return Report(
        outcome=outcome,
        reason=REASONS[outcome],
        summary=SUMMARIES[outcome],
        next_steps=() if outcome == "pass" else ("Give more photos of the person.", "Verify again."),
        level="generator",
        subject=SUBJECT,
        recognisers=tuple(_calibration(n, usable=outcome != "inconclusive") for n in range(len(RECOGNISERS))),
        controls=tuple(_controls(outcome)),
        criteria=tuple(_criteria(figures)),
        figures=figures,
        curves=tuple(_curves(maker)),
        kept=tuple(_kept(maker, g, r) for g in GENERATORS for r in RECOGNISERS),
        definitions=_definitions(figures),
        not_measured=("Distances between sets of pictures (KID, FID): no features are at hand.",
                      "Taps that no generator reads."),
        record=_record(),
        provenance=_provenance(),
    )  # fmt: skip


def encoder_only() -> Report:
    """A report on features alone: no generator, no recogniser, no attack."""
    full = sample()
    return full.model_copy(
        update={
            "level": "encoder",
            "recognisers": (),
            "figures": tuple(f for f in full.figures if f.generator is None and f.attack is None and f.group is None
                             and f.measure.startswith("tap")),
            "criteria": tuple(c for c in full.criteria if c.generator is None and c.name != "attacks"),
            "controls": tuple(c for c in full.controls if c.generator is None and c.measure is None),
            "curves": (),
            "kept": (),
        }
    )  # fmt: skip


def nothing_measured() -> Report:
    """An inconclusive report that ended before anything was measured."""
    empty = dict.fromkeys(("recognisers", "controls", "criteria", "figures", "curves", "kept", "not_measured"), ())
    known = {"people": 1, "photos_supplied": 3, "photos_used": 3, "edit_norm": 0.5}
    lists = ("recipients", "edited_tensors", "systems_covered", "systems_missed", "attacks_tried", "limits")
    bare = ErasureRecord(**{**dict.fromkeys(ErasureRecord.model_fields), **dict.fromkeys(lists, ()), **known})
    reason = "Fewer than two retained people remain that unlearning did not use."
    return sample("inconclusive").model_copy(
        update={**empty, "reason": reason, "level": "encoder", "definitions": {}, "record": bare}
    )


def hostile(text: str, *, names: bool = False) -> Report:
    """A report in which every string is `text`, but for those that the schema chooses from; with or without names."""
    content = sample().model_dump(mode="json")
    keep = {"outcome", "level", "role", "state", "unit", "kind", "sense"} | (set() if names else {"name"})

    def replaced(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            free = key in {"digests", "environment", "plan", "definitions"}
            return {f"{k}{text}" if free else k: replaced(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [replaced(v, key) for v in value]
        return text if isinstance(value, str) and key not in keep else value

    return Report.model_validate(replaced(content))


@cache
def sample_pictures() -> tuple[tuple[str, str, bytes], ...]:
    """Grids of drawn people: 64-pixel photos, before and after."""
    grids = [_grid(n) for n in range(len(_ROLES))]
    return tuple((generator, role, grids[n]) for generator in GENERATORS for n, role in enumerate(_ROLES))


REASONS: dict[Outcome, str] = {
    "pass": "All controls hold and all limits are met.",
    "fail": "Limits were missed: reidentified_unseen with generator A is 0.214 and must be at most 0.1 (share of "
    "pictures from other target photos that the recogniser still matches); reidentified_unseen with generator B is "
    "0.187 and must be at most 0.1 (share of pictures from other target photos that the recogniser still matches).",
    "inconclusive": "The evidence is not enough: tells_people_apart by face-encoder is 0.61, and 0.8 is needed (pairs "
    "of photos of one retained person that face-encoder matches: at a false-match rate of 1 % it misses too many).",
}
SUMMARIES: dict[Outcome, str] = {
    "pass": "This edit keeps every limit: 4 % of the pictures still show the person.",
    "fail": "This edit misses its limits: 21 % of the pictures still show the person.",
    "inconclusive": "This run cannot say whether the edit works: face-encoder cannot see.",
}
SUBJECT = Subject(
    original_encoder="3f9c2a71d04be855" * 4,
    edited_encoder="b81e40c7562fa9d3" * 4,
    delta_manifest="77aa0c19e2d4f638" * 4,
    tap="image_embeds",
    served_dtype="float16",
    taps_reached=("image_embeds", "pooled"),
    taps_missed=("penultimate",),
)


_GATE: tuple[tuple[Role, float], ...] = (("target-seen", 0.99), ("target-unseen", 0.91))


def _figures(maker: _Maker) -> Iterator[Figure]:
    yield from _features(maker)
    for generator in GENERATORS:
        for recogniser in RECOGNISERS:
            yield from _identity(maker, generator, recogniser)
        yield from _pixels(maker, generator)
    yield from _attacks(maker)
    yield from _gate(maker)


def _pair(before: float, after: float) -> tuple[tuple[State, float], tuple[State, float]]:
    return ("original", before), ("edited", after)


def _features(maker: _Maker) -> Iterator[Figure]:
    for role in _ROLES:
        target = role in _TARGETS
        for state, value in _pair(0.9, 0.02 * maker.scale if target else 0.9):
            yield maker.figure("match_rate", role, state, TAP, maker.near(value, 0.02), false_match_rate=RATE)
            yield maker.figure("similarity", role, state, TAP, maker.near(0.75 * value + 0.05), unit="cosine")
        yield maker.figure("feature_cosine", role, "change", "tap features", 0.4 if target else 0.985, unit="cosine")
        yield maker.figure("centred_change", role, "change", "tap features", 1.1 if target else 0.15, unit="ratio")
        for label, values in (("hair", ("dark", "fair", "grey")), ("age", ("18 to 40", "over 40"))):
            for value_of in values if role == "retained" else ():
                yield maker.figure("feature_cosine", role, "change", "tap features", maker.near(0.98, 0.01),
                                   unit="cosine", group=f"{label} = {value_of}")  # fmt: skip
    yield maker.figure("relative_change", "null", "change", "tap features", 0.003, unit="ratio")


def _identity(maker: _Maker, generator: str, by: str) -> Iterator[Figure]:
    for role in _ROLES:
        target = role in _TARGETS
        for rate, less in ((RATE, 0.0), (0.001, 0.02)):
            after = max(0.03 * maker.scale - less, 0.0) if target else 0.85 - less
            for state, value in _pair(0.93 - less, after):
                yield maker.figure("reidentified", role, state, by, maker.near(value, 0.02), generator=generator,
                                   false_match_rate=rate)  # fmt: skip
        for state, value in _pair(0.62, 0.1 if target else 0.6):
            yield maker.figure("id_original", role, state, by, maker.near(value), generator=generator, unit="cosine")
            yield maker.figure("rank1", role, state, by, maker.near(value + 0.3), generator=generator)
        kept = 0.2 if target else 0.93 if role == "retained" else 0.88
        yield maker.figure("id_generated", role, "change", by, maker.near(kept), generator=generator, unit="cosine")
        if target:
            yield maker.figure("delta_id", role, "change", by, maker.near(0.7), generator=generator, unit="cosine")
    for value_of in ("dark", "fair", "grey"):
        yield maker.figure("id_generated", "retained", "change", by, maker.near(0.92), generator=generator,
                           unit="cosine", group=f"hair = {value_of}")  # fmt: skip
    yield maker.figure("id_impostor", "retained", "original", by, -0.004, generator=generator, unit="cosine")


def _pixels(maker: _Maker, generator: str) -> Iterator[Figure]:
    kids: tuple[tuple[State, float], ...] = (*_pair(0.0912, 0.0935), ("change", 0.0023))
    for kid, value in kids:
        yield maker.figure("kid", "retained", kid, "portrait-mini", value, generator=generator, unit="distance")
    for role in _ROLES:
        target = role in _TARGETS
        for name, value, unit in (
            ("psnr", 14.2 if target else 31.4, "dB"),
            ("ssim", 0.41 if target else 0.94, "ratio"),
        ):
            yield maker.figure(
                name, role, "change", "torchmetrics", maker.near(value, 0.02), generator=generator, unit=unit
            )
        for state in ("original", "edited"):
            yield maker.figure("face_found", role, state, "face check", 0.99, generator=generator)
            for edit in (None, "dark", "close-up"):
                yield maker.figure("prompt_adherence", role, state, "pixels and landmarks", maker.near(0.9),
                                   generator=generator, edit=edit)  # fmt: skip


def _attacks(maker: _Maker) -> Iterator[Figure]:
    for n, attack in enumerate(ATTACKS):
        strength = 0.9 if attack.startswith(("pgd", "relearn")) else 0.02 + 0.02 * ((7 * n) % 11)
        judges: Sequence[tuple[str | None, str]] = [(None, TAP), *((g, r) for g in GENERATORS for r in RECOGNISERS)]
        for generator, by in judges:
            if generator is not None and attack in {"relearn", "pgd-8"}:
                continue
            for state, value in _pair(0.9, min(strength * maker.scale**0.3, 1.0)):
                yield maker.figure("attack_success", "target-unseen", state, by, maker.near(value, 0.01),
                                   generator=generator, attack=attack, false_match_rate=RATE)  # fmt: skip
            if generator is not None:
                yield maker.figure("gate_beaten", "target-unseen", "original", by, maker.near(0.4 * strength, 0.01),
                                   generator=generator, attack=attack, false_match_rate=RATE)  # fmt: skip
        for by in RECOGNISERS:
            yield maker.figure("gate_evaded", "target-unseen", "original", by, maker.near(0.5 * strength + 0.05, 0.02),
                               attack=attack, false_match_rate=RATE)  # fmt: skip
    for steps in (10, 20, 40, 60):
        relearned: dict[Role, float] = {"target-unseen": 1 - math.exp(-steps / 25), "retained": 0.05 + steps / 900}
        for role, value in relearned.items():
            yield maker.figure(
                "relearned", role, "edited", TAP, value, attack=f"relearn-{steps}", false_match_rate=RATE
            )


def _gate(maker: _Maker) -> Iterator[Figure]:
    for by in RECOGNISERS:
        for role, value in _GATE:
            yield maker.figure("gate_caught", role, "original", by, maker.near(value, 0.01), false_match_rate=RATE)
        yield maker.figure("gate_false_refusal", "retained", "original", by, 0.046, false_match_rate=RATE)


def _criteria(figures: Sequence[Figure]) -> Iterator[Criterion]:
    def judged(name: str, generator: str | None, key: tuple[str, Role, State], limit: float, meaning: str) -> Criterion:
        values = [f.value for f in figures if (f.name, f.role, f.state, f.generator) == (*key, generator)
                  and f.group is None and f.attack not in {"pgd-8", "relearn"}
                  and (name == "attacks") == (f.attack is not None) and f.false_match_rate in {None, RATE}]  # fmt: skip
        most = name.startswith(("match", "reid", "attacks"))
        found = max(values) if most else min(values)
        good = found <= limit if most else found >= limit
        return Criterion(name=name, generator=generator, outcome="pass" if good else "fail", found=found,
                         threshold=limit, sense="at most" if most else "at least", meaning=meaning)  # fmt: skip

    yield judged(
        "match_seen", None, ("match_rate", "target-seen", "edited"), 0.2, "target photos used that still match"
    )
    yield judged("match_unseen", None, ("match_rate", "target-unseen", "edited"), 0.2,
                 "share of other target photos that still match")  # fmt: skip
    yield judged("retained_similarity", None, ("feature_cosine", "retained", "change"), 0.95,
                 "cosine of retained people's features, before against after")  # fmt: skip
    for g in GENERATORS:
        for seen in ("seen", "unseen"):
            role: Role = "target-seen" if seen == "seen" else "target-unseen"
            yield judged(f"reidentified_{seen}", g, ("reidentified", role, "edited"), 0.1,
                         "pictures from photos of the targets that the recogniser still matches")  # fmt: skip
        yield judged("delta_id", g, ("delta_id", "target-unseen", "change"), 0.4,
                     "similarity of pictures before and after: retained people minus targets")  # fmt: skip
        yield judged("retained_id", g, ("id_generated", "retained", "change"), 0.8,
                     "recogniser similarity of retained pictures, before against after")  # fmt: skip
        yield judged("retained_psnr", g, ("psnr", "retained", "change"), 25.0,
                     "PSNR in dB of retained pictures, before against after")  # fmt: skip
    for place in (None, *GENERATORS):
        yield judged("attacks", place, ("attack_success", "target-unseen", "edited"), 0.25,
                     "share of attempts that the most successful attack wins")  # fmt: skip


def _controls(outcome: Outcome) -> Iterator[Control]:
    yield Control(name="gallery_people", met=True, found=30, needed=20, meaning="retained people not used to unlearn")
    for by in RECOGNISERS:
        low = outcome == "inconclusive" and by == "face-encoder"
        yield Control(name="tells_people_apart", measure=by, met=not low, found=0.61 if low else 0.93, needed=0.8,
                      meaning=f"pairs of photos of one retained person that {by} matches")  # fmt: skip
    for g in GENERATORS:
        yield Control(name="original_draws_target", generator=g, met=True, found=0.91, needed=0.5,
                      meaning="pictures of the targets that the recogniser matches, before the edit")  # fmt: skip
        yield Control(name="no_op_fails", generator=g, met=True, found=0.91, needed=0.1,
                      meaning="share of matched pictures with a delta that changes nothing")  # fmt: skip


def _calibration(number: int, *, usable: bool) -> Calibration:
    low = number == 1 and not usable
    points = tuple(
        OperatingPoint(false_match_rate=rate, threshold=at + 0.05 * number, threshold_low=at + 0.05 * number - 0.02,
                       threshold_high=at + 0.05 * number + 0.03, true_accept_rate=accept,
                       true_accept_low=accept - 0.04, true_accept_high=min(accept + 0.03, 1.0), resolved=rate == RATE)
        for rate, at, accept in ((RATE, 0.31, 0.61 if low else 0.93), (0.001, 0.4, 0.82))
    )  # fmt: skip
    why = "At a false-match rate of 1 % it matches 61 % of the pairs of one person's photos; 80 % are needed."
    return Calibration(
        recogniser=RECOGNISERS[number], fingerprint=f"{number + 5}c" * 32, photos=180, people=30, genuine_mean=0.58,
        impostor_mean=0.02, points=points, needed=0.8, usable=not low, why_not=why if low else None,
    )  # fmt: skip


def _bell(centre: float, width: float, total: int, rng: Random) -> tuple[int, ...]:
    heights = [math.exp(-(((-1 + 0.04 * (n + 0.5)) - centre) ** 2) / (2 * width**2)) for n in range(50)]
    counts = [0] * 50
    for place in rng.choices(range(50), heights, k=total):
        counts[place] += 1
    return tuple(counts)


def _curves(maker: _Maker) -> Iterator[Curve]:
    for number, by in enumerate(RECOGNISERS):
        move = 0.05 * number
        grid: dict[str, Any] = {"measure": by, "start": -1.0, "width": 0.04}
        yield Curve(kind="impostor", counts=_bell(0.02 + move, 0.11, 8000, maker.rng), **grid)
        yield Curve(kind="genuine", counts=_bell(0.58 + move, 0.12, 900, maker.rng), **grid)
        for generator in GENERATORS:
            for role in _TARGETS:
                for state, centre in _pair(0.6, 0.06 + 0.03 * maker.scale):
                    yield Curve(kind="drawn", generator=generator, role=role, state=state,
                                counts=_bell(centre + move, 0.1, 40, maker.rng), **grid)  # fmt: skip


def _kept(maker: _Maker, generator: str, by: str) -> Kept:
    likeness = [maker.rng.gauss(0.05, 0.12) for _ in range(30)]
    kept = [min(0.95 - 0.12 * max(x, 0) + maker.rng.gauss(0, 0.02), 0.999) for x in likeness]
    return Kept(generator=generator, measure=by, changes=tuple(zip(kept, likeness, strict=True)))


def _definitions(figures: Sequence[Figure]) -> dict[str, Definition]:
    found = {f.name: f.unit for f in figures}
    named = {n: Definition(text=f"What {n} means, in a sentence.", unit=u, reference="pictures of the role") for n, u in
             found.items()}  # fmt: skip
    return named | {
        "flip": Definition(text="the photo is mirrored left to right", unit="share", reference="attacked photos")
    }


def _record() -> ErasureRecord:
    return ErasureRecord(
        case_id="2031-0042", request_date=None, legal_basis="GDPR Art. 17(1)(c)",
        requester_verified_by="ID check at desk", photos_deleted_by=None, encoder_source="registry.example.org/encoder",
        encoder_revision="r12",
        encoder_licence="Apache-2.0", approved_by=None, recipients=("studio", "mirror"), supersedes=None,
        superseded_by=None, people=5, photos_supplied=40, photos_used=20,
        edited_tensors=tuple(f"vision_model.encoder.layers.{n}.mlp.fc1.weight" for n in range(12)), edit_norm=3.217,
        systems_covered=("generator A", "generator B"), systems_missed=("generator C",), attacks_tried=ATTACKS,
        limits=("Nothing is said of generators that read another tap.",
                "Whoever holds the original encoder can draw the person as before."),
    )  # fmt: skip


def _provenance() -> Provenance:
    return Provenance(
        tool_version="0.2.0", plan_digest="0d1e" * 16, seed=7,
        plan={"verify": {"false_match_rate": RATE, "max_attack_success": 0.25}, "pictures": {"seeds": 2}},
        digests={"generator A": "aa11" * 16, "generator B": "bb22" * 16, "judges": "cc33" * 16},
        environment={"python": "3.12.4", "torch": "2.7.1", "device": "cpu"},
        command="ireu verify --delta DELTA --force, in the folder where the run began, or with --run-dir; leave out "
        "--with-pictures for a report without pictures of people",
    )  # fmt: skip


def _grid(number: int) -> bytes:
    columns = []
    for person in range(8):
        who = person_numbers(1, 20 * number + person)
        after = person_numbers(2, person) if number < 2 else who
        cells = [draw_photo(who, photo_numbers(1, person, 0)), draw_photo(who, photo_numbers(1, person, 1)),
                 draw_photo(after, photo_numbers(1, person, 1))]  # fmt: skip
        gap = np.full((4, 64, 3), 255, np.uint8)
        small = [np.asarray(Image.fromarray(cell).resize((64, 64))) for cell in cells]
        columns.append(np.concatenate([small[0], gap, small[1], gap, small[2]]))
    line = np.full((columns[0].shape[0], 4, 3), 255, np.uint8)
    parts = [part for column in columns for part in (column, line)][:-1]
    return png_bytes(np.concatenate(parts, axis=1))
