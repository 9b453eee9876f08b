"""A method that shrinks weights, of any encoder that gives them by name: everybody is drawn a little otherwise."""

from collections.abc import Collection

from ireu_cli.encoders.family import ImageEncoder, need_gradients
from ireu_cli.params import Config, Tap
from ireu_cli.unlearning.method import Plan, Work
from ireu_cli.unlearning.methods import register
from ireu_cli.values import Json, WeightDelta


class Shrink:
    """Takes a hundredth off every weight that the tap depends on."""

    name = "shrink"
    keeps_requests = False

    def passes_over(self, key: str) -> bool:
        """Every setting."""
        del key
        return True

    def plan(self, encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
        """All that reach the tap."""
        del taps
        names = need_gradients(encoder, "The method shrink").weights_for("all", config.encoder.tap)
        return Plan(names, names)

    def run(self, work: Work) -> tuple[WeightDelta, dict[str, Json]]:
        """No photo is looked at."""
        state = need_gradients(work.lens.encoder, "The method shrink").model.state_dict()
        tensors = {name: state[name].cpu().float() * -0.01 for name in work.plan.names}
        return WeightDelta(tensors), {"shrunk": len(tensors)}


register(Shrink())
