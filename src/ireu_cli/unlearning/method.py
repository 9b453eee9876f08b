"""What a method of unlearning is: which settings it reads, which weights it may change, and how it makes a delta."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.lens import Lens
from ireu_cli.params import Config, Tap
from ireu_cli.photos import Cast
from ireu_cli.session import Session
from ireu_cli.values import FeatureMask, GateLedger, Json, Ledger, WeightDelta


@dataclass(frozen=True)
class Plan:
    """What a method is going to change.

    Attributes:
        names: tensors of the encoder that may change.
        moving: those of them that decide which taps are reached.
        class_token_only: whether they move the class token of the last block alone; see `reach_of`.
    """

    names: Sequence[str]
    moving: Sequence[str]
    class_token_only: bool = False


@dataclass(frozen=True)
class Work:
    """One request: the run, the encoder at its tap, who takes part, the mask, and the plan.

    Attributes:
        identity: digest (hex) of everything that decides the result; checkpoints are called by it.
        case: what the request is called, where deltas keep requests apart.
        onto: earlier requests that this one is added to.
    """

    session: Session
    lens: Lens
    cast: Cast
    mask: FeatureMask
    plan: Plan
    identity: str
    case: str
    onto: Ledger | GateLedger | None


class Method(Protocol):
    """A way to unlearn. To add one, write a class like this in a folder of its own, and a row in `methods`."""

    @property
    def name(self) -> str:
        """What `unlearn.method` calls it."""
        ...

    @property
    def keeps_requests(self) -> bool:
        """Whether its deltas keep requests apart, so that they can be added to, merged and withdrawn from."""
        ...

    def passes_over(self, key: str) -> bool:
        """Whether it takes no notice of a setting of the sections `unlearn` and `gated`, such as `unlearn.alpha`."""
        ...

    def plan(self, encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
        """Choose what changes.

        Args:
            encoder: the original.
            config: all settings.
            taps: those that the edit has to reach.

        Raises:
            ConfigError: the settings reach no tap, or the method cannot reach these.
            ModelError: the method is none for this kind of encoder.
        """
        ...

    def run(self, work: Work) -> tuple[WeightDelta, dict[str, Json]]:
        """Make the delta, and say what is worth recording.

        Raises:
            IreuError: photos cannot be used, the mask does not fit, or the method does not get there.
            KeyboardInterrupt: stopped; what can be gone on from is kept first.
        """
        ...
