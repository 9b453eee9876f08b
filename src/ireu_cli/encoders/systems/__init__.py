"""Which generators read which encoder at which tap: data, from their code and model cards.

A system is covered by an edit only when every identity channel it reads is reached. Sizes alone do not tell which
weights a file holds. A group is named after the architecture of its encoder; the owner of a file has to say whether it
is that very encoder.
"""

from collections.abc import Iterable

from ireu_cli.encoders.systems.groups import GROUPS, Group
from ireu_cli.encoders.systems.table import PICTURES, Channel, System, listed
from ireu_cli.encoders.systems.videos import VIDEOS
from ireu_cli.params import Tap, depth_of

__all__ = ["GROUPS", "SYSTEMS", "Channel", "Group", "System", "depths_read", "is_gated_only", "listed", "systems_of"]

SYSTEMS: dict[str, System] = {**PICTURES, **VIDEOS}
"""The systems by their names in `--for`."""


def is_gated_only(system: System) -> bool:
    """Whether a gate is all that can keep a person out: a photo gets in, and no identity encoder reads it."""
    return not system.channels and bool(system.enters)


def systems_of(groups: Iterable[str]) -> list[str]:
    """The systems that read an encoder of some groups, in the order of the table."""
    wanted = set(groups)
    return [name for name, system in SYSTEMS.items() if wanted & {channel.group for channel in system.channels}]


def depths_read(groups: Iterable[str]) -> list[Tap]:
    """The inputs of blocks at which systems read an encoder of some groups, from the first block on."""
    wanted = set(groups)
    channels = [channel for system in SYSTEMS.values() for channel in system.channels if channel.group in wanted]
    found = {tap: depth for channel in channels for tap in channel.taps if (depth := depth_of(tap)) is not None}
    return sorted(found, key=lambda tap: found[tap])
