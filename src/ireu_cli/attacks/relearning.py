"""The attack `relearn`: fine-tuning of the edited encoder on photos of the person."""

from collections.abc import Sequence

from torch import Tensor

from ireu_cli.attacks.plan import AttackPlan, Lenses
from ireu_cli.attacks.relearn import relearn, report_steps
from ireu_cli.attacks.success import FeatureMatcher, Tried
from ireu_cli.encoders.family import need_gradients
from ireu_cli.encodings.lens import flatten_tokens
from ireu_cli.values import Photo


def relearning(plan: AttackPlan, lenses: Lenses, matcher: FeatureMatcher) -> list[Tried]:
    """Fine-tune the edited encoder on a person's photos, and on somebody else's as a control.

    Returns:
        For each step that is looked at, whether the target's other photos match; the control has the role retained.
    """
    params = plan.session.config.attacks
    if not params.relearn_steps:
        return []
    people = dict.fromkeys(victim.person for victim in plan.victims)
    marks = report_steps(params.relearn_steps)
    found: dict[tuple[str, int], dict[int, Tensor]] = {}
    total = 2 * len(people) * params.relearn_steps
    with plan.session.timed("attack"), plan.session.talk.progress("relearning", total) as advance:
        before, after = lenses
        encoder = need_gradients(after.encoder, "Relearning")
        for person in people:
            train, probes = _split(plan.everyone[person], params.relearn_photos)
            somebody = next(victim.other.person for victim in plan.victims if victim.person == person)
            control = [photo for photo in plan.others if photo.person == somebody]
            for role, photos in (("target", train), ("control", control[: len(train)])):
                if not probes or not photos:
                    continue
                before.encode_items([before.item(photo) for photo in photos], "--retain", "photos to fine-tune on")
                steps = relearn(
                    encoder, after.tap, before.pixels(photos), before.features(photos),
                    before.pixels(probes), steps=params.relearn_steps, rate=params.relearn_rate, report_at=marks,
                    seed=plan.session.config.seed, progress=lambda _step: advance(1, ""),
                )  # fmt: skip
                for one in steps:
                    hits = matcher.match(flatten_tokens(one.features), person)
                    found.setdefault((role, one.step), {})[person] = hits
    return [
        Tried(
            "relearned", f"relearn-{step}", "edited", matcher.measure, None, values,
            "target-unseen" if role == "target" else "retained",
        )
        for (role, step), values in found.items()
    ]  # fmt: skip


def _split(photos: Sequence[Photo], count: int) -> tuple[list[Photo], list[Photo]]:
    """Photos to fine-tune on, used ones first, and photos to judge, if possible ones that unlearning never used.

    `photos` come with the unseen ones first; at most half of them are trained on.
    """
    count = min(count, len(photos) // 2)
    return (list(photos[-count:]), list(photos[:-count])) if count else ([], list(photos))
