"""Which generators an edit of this encoder covers."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.reach import Reach
from ireu_cli.encoders.systems import GROUPS, SYSTEMS, Channel, is_gated_only, listed, systems_of
from ireu_cli.errors import ConfigError
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.values import Json

Status = Literal["covered", "half covered", "not covered", "by a gate only", "out of reach"]
_ORDER: tuple[Status, ...] = ("covered", "half covered", "not covered", "by a gate only", "out of reach")


@dataclass(frozen=True)
class Coverage:
    """What an edit does to a system, and why."""

    system: str
    status: Status
    why: str

    def sentence(self) -> str:
        """Say it in words."""
        return f"{SYSTEMS[self.system].title}: {self.status}{f': {self.why}' if self.why else ''}"


def coverage_of(name: str, reached: Mapping[str, Reach]) -> Coverage:
    """How far edits of some encoders cover a system.

    Args:
        name: a key of `SYSTEMS`.
        reached: for each edited group, what changes.

    Returns:
        It is covered only if every channel is reached at every tap that it reads.
    """
    system = SYSTEMS[name]
    if is_gated_only(system):
        return Coverage(name, "by a gate only", f"it has no identity encoder, and the photo enters {system.enters}")
    if not system.channels:
        return Coverage(name, "out of reach", "it has no identity encoder")
    closed = [channel for channel in system.channels if _is_closed(channel, reached)]
    left = [channel for channel in system.channels if channel not in closed]
    if not left:
        return Coverage(name, "covered", "")
    reads = " and ".join(_left_of(channel, reached.get(channel.group)) for channel in left)
    if closed:
        return Coverage(name, "half covered", f"also reads {reads}")
    # A system that no kind of edit could close is another matter than one that this edit does not.
    if not any(GROUPS[channel.group].edited for channel in system.channels):
        return Coverage(name, "out of reach", f"reads {reads}, and ireu does not edit that kind")
    return Coverage(name, "not covered", f"reads {reads}")


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


def coverage_in(groups: Iterable[str], reach: Reach, systems: Sequence[str] = ()) -> list[Coverage]:
    """How far an edit of an encoder covers the systems that mount it.

    Args:
        groups: groups of the encoder.
        reach: the taps that change.
        systems: the wanted systems; none: all that read the encoder.
    """
    reached = dict.fromkeys(groups, reach)
    return [coverage_of(name, reached) for name in systems or systems_of(reached)]


def gated_only() -> list[Coverage]:
    """The systems that only a gate covers."""
    return [coverage_of(name, {}) for name, system in SYSTEMS.items() if is_gated_only(system)]


def needed_taps(names: Iterable[str], groups: Iterable[str]) -> tuple[Tap, ...]:
    """The taps at which some systems read an encoder of some groups.

    Raises:
        ConfigError: a system is not known, or reads no encoder of these groups.
    """
    wanted, taps = set(groups), []
    for name in names:
        if name not in SYSTEMS:
            raise ConfigError(f"No system is called {name}", f"Use some of {', '.join(SYSTEMS)}")
        found = [tap for channel in SYSTEMS[name].channels if channel.group in wanted for tap in channel.taps]
        if not found:
            raise ConfigError(
                f"{SYSTEMS[name].title} does not read an encoder of the group "
                f"{' or '.join(sorted(wanted)) or 'unknown'}",
                "See `ireu inspect --systems`, and name systems that mount the encoder",
            )
        taps += found
    return tuple(dict.fromkeys(taps))


def refuse_missed(systems: Sequence[str], wanted: Sequence[Tap], reach: Reach) -> None:
    """Refuse an edit that does not reach the taps that the named systems read.

    Raises:
        ConfigError: it does not reach them.
    """
    if missed := [tap for tap in wanted if not reach.includes(tap)]:
        parts = "".join(f". {told}" for tap in missed for told in reach.parts(tap))
        raise ConfigError(
            f"The edit does not reach {', '.join(missed)}, which {', '.join(systems)} read{parts}",
            "Train earlier parts with --layers, or use another --method; `ireu inspect` says which edits reach which "
            "tap",
        )


def sentences(found: Sequence[Coverage]) -> list[str]:
    """The sentences for the user, covered systems first."""
    return [one.sentence() for status in _ORDER for one in found if one.status == status]


def recorded(found: Sequence[Coverage]) -> dict[str, Json]:
    """The entry for a manifest: each system's status, with the reason."""
    return {one.system: {"status": one.status, "why": one.why} for one in found}


def _left_of(channel: Channel, reach: Reach | None) -> str:
    """What a channel still reads of the person, in words: what an edit does not change, and what it does."""
    changed = [] if reach is None else [tap for tap in channel.taps if reach.includes(tap)]
    if not changed:
        return channel.sentence()
    left = listed([tap for tap in channel.taps if tap not in changed])
    return f"{left} of {GROUPS[channel.group].title} (the edit changes only {listed(changed)} of it)"


def _is_closed(channel: Channel, reached: Mapping[str, Reach]) -> bool:
    reach = reached.get(channel.group)
    return reach is not None and bool(channel.taps) and all(reach.includes(tap) for tap in channel.taps)
