"""A method that shrinks what the last block writes: everybody is drawn a little otherwise."""

from collections.abc import Collection

from ireu_cli.encoders.family import ImageEncoder, need_gradients
from ireu_cli.params import Config, Tap
from ireu_cli.unlearning.method import Plan, Work
from ireu_cli.unlearning.methods import register
from ireu_cli.values import Json, WeightDelta


class Shrink:
    """Takes a hundredth off the last block's output weights."""

    name = "shrink"
    keeps_requests = False

    def passes_over(self, key: str) -> bool:
        """Every setting."""
        del key
        return True

    def plan(self, encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
        """One tensor."""
        del config, taps
        names = [f"vision_model.encoder.layers.{encoder.blocks - 1}.mlp.fc2.weight"]
        return Plan(names, names)

    def run(self, work: Work) -> tuple[WeightDelta, dict[str, Json]]:
        """No photo is looked at."""
        (name,) = work.plan.names
        weights = need_gradients(work.lens.encoder, "The method shrink").model.state_dict()[name]
        return WeightDelta({name: weights.cpu().float() * -0.01}), {"shrunk": 1}


register(Shrink())
