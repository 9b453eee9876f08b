"""A method of unlearning: the settings that it reads, the weights that it may change, and how it makes a delta."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.lens import Lens
from ireu_cli.errors import ConfigError
from ireu_cli.params import Config, Tap, has_depths
from ireu_cli.photos import Cast
from ireu_cli.session import Session
from ireu_cli.values import AnyLedger, FeatureMask, Json, WeightDelta


@dataclass(frozen=True)
class Plan:
    """The changes that a method is going to make.

    Attributes:
        names: tensors of the encoder that may change.
        moving: those of them that decide which taps are reached.
        class_token_only: whether they move only the class token of the last block; see `reach_of`.
    """

    names: Sequence[str]
    moving: Sequence[str]
    class_token_only: bool = False


@dataclass(frozen=True)
class Work:
    """One request: the run, the encoder at its tap, who takes part, the mask, and the plan.

    Attributes:
        identity: digest (hex) of everything that decides the result; it names the checkpoints.
        case: the name of the request, if deltas keep requests apart.
        onto: earlier requests that this one is added to.
    """

    session: Session
    lens: Lens
    cast: Cast
    mask: FeatureMask
    plan: Plan
    identity: str
    case: str
    onto: AnyLedger | None


def refuse_depths(name: str, taps: Collection[Tap]) -> None:
    """Refuse taps that read early blocks, for a method that edits late in the encoder.

    Args:
        name: the method's.
        taps: what the edit has to reach.

    Raises:
        ConfigError: one is the input of a block, or joins several taps.
    """
    if early := sorted(tap for tap in taps if has_depths(tap)):
        raise ConfigError(
            f"The method {name} does not support the tap {early[0]}: it edits late in the encoder, and generators that "
            "read a tap like that read earlier blocks, which would still show the person",
            "Use --method ireu or global with --layers that come before all parts of the tap",
        )


class Method(Protocol):
    """A way to unlearn. To add one, write a class like this in a folder of its own, and a row in `methods`."""

    @property
    def name(self) -> str:
        """Its name in `unlearn.method`."""
        ...

    @property
    def keeps_requests(self) -> bool:
        """Whether its deltas keep requests apart, so that requests can be added, merged and withdrawn."""
        ...

    def passes_over(self, key: str) -> bool:
        """Whether it ignores a setting of the sections `unlearn` and `gated`, such as `unlearn.alpha`."""
        ...

    def plan(self, encoder: ImageEncoder, config: Config, taps: Collection[Tap]) -> Plan:
        """Choose the weights to change.

        Args:
            encoder: the original.
            config: all settings.
            taps: the taps that the edit has to reach.

        Raises:
            ConfigError: the settings reach no tap, or the method cannot reach these.
            ModelError: the method does not support this kind of encoder.
        """
        ...

    def run(self, work: Work) -> tuple[WeightDelta, dict[str, Json]]:
        """Make the delta, and entries for the record.

        Raises:
            IreuError: photos cannot be used, the mask does not fit, or the method fails.
            KeyboardInterrupt: stopped; a checkpoint is kept first, if possible.
        """
        ...
