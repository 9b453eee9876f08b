"""Which generators an edit covers, said of the encoder at hand."""

from collections.abc import Iterable, Sequence

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.systems import GROUPS, Coverage, Status, coverage_of, systems_of
from ireu_cli.errors import ConfigError
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.values import Json

_ORDER: tuple[Status, ...] = ("covered", "half covered", "not covered", "out of reach")


def groups_for(params: EncoderParams, encoder: ImageEncoder) -> tuple[str, ...]:
    """The groups of the encoder: those the user states, or else those that its sizes and its layout admit.

    Raises:
        ConfigError: the user states a group that there is not.
    """
    if unknown := [name for name in params.groups if name not in GROUPS]:
        raise ConfigError(f"No group is called {unknown[0]}", f"Set encoder.groups to some of {', '.join(GROUPS)}")
    if params.groups or find_bundle(params.source) is not None:
        return params.groups
    return encoder.groups(params)


def coverage_in(groups: Iterable[str], taps: Sequence[Tap], systems: Sequence[str] = ()) -> list[Coverage]:
    """What an edit that changes some taps of an encoder does to the systems that mount it.

    Args:
        groups: of the encoder.
        taps: that change.
        systems: the ones to speak of; none: all that read the encoder.
    """
    reached = {group: tuple(taps) for group in groups}
    return [coverage_of(name, reached) for name in systems or systems_of(reached)]


def refuse_missed(systems: Sequence[str], wanted: Sequence[Tap], reached: Sequence[Tap]) -> None:
    """Refuse an edit that does not reach what the named systems read.

    Raises:
        ConfigError: it does not.
    """
    if missed := [tap for tap in wanted if tap not in reached]:
        raise ConfigError(
            f"The edit does not reach {', '.join(missed)}, which {', '.join(systems)} read",
            "Train earlier parts with --layers, or use another --method; `ireu inspect` says what reaches which tap",
        )


def sentences(found: Sequence[Coverage]) -> list[str]:
    """In words for the user, covered systems first."""
    return [one.sentence() for status in _ORDER for one in found if one.status == status]


def recorded(found: Sequence[Coverage]) -> dict[str, Json]:
    """For a manifest: of each system its status, and why."""
    return {one.system: {"status": one.status, "why": one.why} for one in found}
