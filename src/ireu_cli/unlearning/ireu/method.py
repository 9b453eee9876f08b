"""`ireu unlearn --method ireu` and `global`: the published training, which makes a delta from swapped faces."""

from collections.abc import Collection
from dataclasses import dataclass

from ireu_cli.encoders.family import ImageEncoder, need_gradients
from ireu_cli.encodings.lens import Lens, batch_of, refuse_other_mask
from ireu_cli.locating.swaps import plan_swaps
from ireu_cli.params import Config, Tap
from ireu_cli.photos import Cast
from ireu_cli.session import Session
from ireu_cli.unlearning.checkpoints import Keeper, resume
from ireu_cli.unlearning.ireu.published import ForgetSet, RetainSet, planned_steps, unlearn
from ireu_cli.unlearning.method import Plan, Work
from ireu_cli.values import FeatureMask, Json, WeightDelta


@dataclass(frozen=True)
class Published:
    """Trains the weights that `unlearn.layers` names; `global` uses a mask of all features."""

    name: str
    keeps_requests: bool = False

    def passes_over(self, key: str) -> bool:
        """It ignores all settings of `gated`."""
        return key.startswith("gated.")

    def plan(self, encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
        """The weights of `unlearn.layers` that can change the tap."""
        del taps
        found = need_gradients(encoder, f"The method {self.name}")
        names = found.weights_for(config.unlearn.layers, config.encoder.tap)
        return Plan(names, names)

    def run(self, work: Work) -> tuple[WeightDelta, dict[str, Json]]:
        """Train; continue where an earlier run was stopped, if there was one."""
        session, lens, config = work.session, work.lens, work.session.config
        forget, retain = _sets(session, lens, work.cast, work.mask)
        session.executor.leave()
        start = resume(session, work.identity)
        total = planned_steps(config.unlearn, len(set(forget.people)))
        keep = Keeper(session, work.identity)
        with session.timed("train"), session.talk.progress(f"unlearning ({self.name})", total) as advance:
            advance(start.step if start else 0, "")
            return unlearn(
                need_gradients(lens.encoder, f"The method {self.name}"), lens.tap, list(work.plan.names), forget,
                retain, work.mask.mask, config.unlearn, config.seed, start, keep.on_step(advance),
            )  # fmt: skip


def _sets(session: Session, lens: Lens, cast: Cast, mask: FeatureMask) -> tuple[ForgetSet, RetainSet]:
    targets = lens.encode(cast.targets, "--targets", "target photos")
    used = lens.encode(cast.used, "--retain", "retained photos").flat
    plan = plan_swaps(session, lens, targets, cast.used).encode(lens)
    features = lens.features(plan.photos)
    refuse_other_mask(mask, features.shape[-1], lens.tap)
    forget = ForgetSet(
        pixels=lens.pixels(plan.photos),
        features=features,
        shifts=plan.shifts(lens, average=session.config.unlearn.average_partners),
        people=tuple(photo.person for photo in plan.photos),
    )
    nulls = lens.encoder.null_pixels()
    return forget, RetainSet(len(used), lambda positions: batch_of(lens, used, positions), nulls, lens.null_features())
