"""The attack `relearn`: fine-tuning of the edited encoder on photos of the person."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ireu_cli.attacks.plan import AttackPlan, Lenses
from ireu_cli.attacks.relearn import relearn, report_steps
from ireu_cli.attacks.success import FeatureMatcher, Tried
from ireu_cli.encoders.family import need_gradients
from ireu_cli.encodings.lens import flatten_tokens
from ireu_cli.manifest import digest_of
from ireu_cli.sharding.search import search
from ireu_cli.values import Photo


def relearning(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> list[Tried]:
    """Fine-tune the edited encoder on a person's photos, and on somebody else's as a control.

    Returns:
        For each step that is looked at, whether the target's other photos match; the control has the role retained.
    """
    params = plan.session.config.attacks
    if not params.relearn_steps:
        return []
    marks = report_steps(params.relearn_steps)
    before, after = lenses
    courses = _courses(plan)
    trained = dict.fromkeys(photo for course in courses for photo in course.photos)
    before.encode_items([before.item(photo) for photo in trained], "--retain", "photos to fine-tune on")
    encoder = need_gradients(after.encoder, "Relearning")

    def find(places: list[int]) -> dict[str, Tensor]:
        course = courses[places[0]]
        steps = relearn(
            encoder, after.tap, before.pixels(course.photos), before.features(course.photos),
            before.pixels(course.probes), steps=params.relearn_steps, rate=params.relearn_rate, report_at=marks,
            seed=plan.session.config.seed, progress=lambda _step: advance(1, ""),
        )  # fmt: skip
        return {str(one.step): one.features for one in steps}

    name = ["relearn", before.name, after.name, params.relearn_steps, params.relearn_rate, plan.session.config.seed]
    name += [[[photo.sha256 for photo in part] for part in (one.photos, one.probes)] for one in courses]
    total = len(courses) * params.relearn_steps
    with plan.session.timed("attack"), plan.session.talk.progress("relearning", total) as advance:
        shown = search(plan.session.executor, lambda: digest_of(name), len(courses), 1, find)
    found: dict[tuple[str, int], dict[int, Tensor]] = {}
    for course, steps in zip(courses, shown, strict=True):
        for step, features in sorted((int(step), features) for step, features in steps.items()):
            hits = matcher.match(flatten_tokens(features), course.person)
            found.setdefault((course.role, step), {})[course.person] = hits
    return [
        Tried(
            "relearned", f"relearn-{step}", "edited", matcher.measure, None, values,
            "target-unseen" if role == "target" else "retained",
        )
        for (role, step), values in found.items()
    ]  # fmt: skip


@dataclass(frozen=True)
class _Course:
    """One fine-tuning: for which person, on photos of the target or of somebody else as a control, and the probes."""

    role: str
    person: int
    photos: tuple[Photo, ...]
    probes: tuple[Photo, ...]


def _courses(plan: AttackPlan) -> list[_Course]:
    """Every fine-tuning that there are photos for."""
    found = []
    for person in dict.fromkeys(victim.person for victim in plan.victims):
        train, probes = _split(plan.everyone[person], plan.session.config.attacks.relearn_photos)
        somebody = next(victim.other.person for victim in plan.victims if victim.person == person)
        control = [photo for photo in plan.others if photo.person == somebody][: len(train)]
        found += [
            _Course(role, person, tuple(photos), tuple(probes))
            for role, photos in (("target", train), ("control", control))
            if probes and photos
        ]
    return found


def _split(photos: Sequence[Photo], count: int) -> tuple[list[Photo], list[Photo]]:
    """Photos to fine-tune on, used ones first, and photos to judge, if possible ones that unlearning never used.

    `photos` come with the unseen ones first; at most half of them are trained on.
    """
    count = min(count, len(photos) // 2)
    return (list(photos[-count:]), list(photos[:-count])) if count else ([], list(photos))
