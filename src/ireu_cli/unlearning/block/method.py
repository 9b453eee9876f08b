"""`ireu unlearn --method block`: pass photos through the earlier blocks, then train one block on its inputs."""

from collections.abc import Collection

from ireu_cli.encoders.family import ImageEncoder, need_blocks
from ireu_cli.encodings.lens import refuse_other_mask
from ireu_cli.params import Config, Tap
from ireu_cli.unlearning.block.block_inputs import gather_states
from ireu_cli.unlearning.block.one_block import STEPS, block_for, unlearn_block
from ireu_cli.unlearning.checkpoints import Keeper, resume
from ireu_cli.unlearning.method import Plan, Work, refuse_depths
from ireu_cli.values import Json, WeightDelta

_NOT_READ = frozenset(f"unlearn.{key}" for key in ("alpha", "layers", "direction", "mask_scope", "average_partners"))
_READ = frozenset(f"gated.{key}" for key in ("copies", "gain", "erase_photos"))


class Block:
    """Trains the last block that reaches every token of the tap."""

    name = "block"
    keeps_requests = False

    def passes_over(self, key: str) -> bool:
        """It ignores settings of swapped faces and of the weights to train, and most of `gated`."""
        return key in _NOT_READ or (key.startswith("gated.") and key not in _READ)

    def plan(self, encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
        """The weights of the block."""
        found, tap = need_blocks(encoder, "The method block"), config.encoder.tap
        refuse_depths(self.name, {tap, *taps})
        layers = f"block:{block_for(found.blocks, tap)}"
        names = found.weights_for(layers, tap)
        return Plan(names, names)

    def run(self, work: Work) -> tuple[WeightDelta, dict[str, Json]]:
        """Train; continue where an earlier run was stopped, if there was one."""
        session, lens, config = work.session, work.lens, work.session.config
        encoder = need_blocks(lens.encoder, "The method block")
        block = block_for(encoder.blocks, lens.tap)
        refuse_other_mask(work.mask, lens.null_features().shape[-1], lens.tap)
        entering = gather_states(session, lens, encoder, work.cast.targets, work.cast.used, block)
        session.executor.leave()
        keep, start = Keeper(session, work.identity), resume(session, work.identity)
        total = STEPS if config.unlearn.steps == "auto" else config.unlearn.steps
        with session.timed("train"), session.talk.progress("unlearning (block)", total) as advance:
            advance(start.step if start else 0, "")
            return unlearn_block(
                encoder, lens.tap, block, entering, work.mask.mask, config.gated.gain, config.unlearn, config.seed,
                start, keep.on_step(advance),
            )  # fmt: skip
