"""Which generators an edit of this encoder covers."""

from collections.abc import Iterable, Sequence

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.systems import GROUPS, Coverage, Status, coverage_of, systems_of
from ireu_cli.errors import ConfigError
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.values import Json

_ORDER: tuple[Status, ...] = ("covered", "half covered", "not covered", "out of reach")


def groups_for(params: EncoderParams, encoder: ImageEncoder) -> tuple[str, ...]:
    """The groups of the encoder: those that you state, or those that its sizes and its layout allow.

    Raises:
        ConfigError: a stated group does not exist.
    """
    if unknown := [name for name in params.groups if name not in GROUPS]:
        raise ConfigError(f"No group is called {unknown[0]}", f"Set encoder.groups to some of {', '.join(GROUPS)}")
    if params.groups or find_bundle(params.source) is not None:
        return params.groups
    return encoder.groups(params)


def coverage_in(groups: Iterable[str], taps: Sequence[Tap], systems: Sequence[str] = ()) -> list[Coverage]:
    """How far an edit that changes some taps of an encoder covers the systems that mount it.

    Args:
        groups: groups of the encoder.
        taps: taps that change.
        systems: the wanted systems; none: all that read the encoder.
    """
    reached = {group: tuple(taps) for group in groups}
    return [coverage_of(name, reached) for name in systems or systems_of(reached)]


def refuse_missed(systems: Sequence[str], wanted: Sequence[Tap], reached: Sequence[Tap]) -> None:
    """Refuse an edit that does not reach the taps that the named systems read.

    Raises:
        ConfigError: it does not reach them.
    """
    if missed := [tap for tap in wanted if tap not in reached]:
        raise ConfigError(
            f"The edit does not reach {', '.join(missed)}, which {', '.join(systems)} read",
            "Train earlier parts with --layers, or use another --method; `ireu inspect` says which edits reach which "
            "tap",
        )


def sentences(found: Sequence[Coverage]) -> list[str]:
    """The sentences for the user, covered systems first."""
    return [one.sentence() for status in _ORDER for one in found if one.status == status]


def recorded(found: Sequence[Coverage]) -> dict[str, Json]:
    """The entry for a manifest: each system's status, with the reason."""
    return {one.system: {"status": one.status, "why": one.why} for one in found}
