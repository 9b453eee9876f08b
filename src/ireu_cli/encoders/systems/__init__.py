"""Which generators read which encoder at which tap: data, from their code and model cards.

A system is covered by an edit only when every identity channel it reads is reached. Sizes alone do not tell which
weights a file holds. A group is named after the architecture of its encoder; the owner of a file has to say whether it
is that very encoder.
"""

from collections.abc import Iterable

from ireu_cli.encoders.systems.groups import GROUPS, Group
from ireu_cli.encoders.systems.table import PICTURES, Channel, System
from ireu_cli.encoders.systems.videos import VIDEOS

__all__ = ["GROUPS", "SYSTEMS", "Channel", "Group", "System", "is_gated_only", "systems_of"]

SYSTEMS: dict[str, System] = {**PICTURES, **VIDEOS}
"""The systems by their names in `--for`."""


def is_gated_only(system: System) -> bool:
    """Whether a gate is all that can keep a person out: a photo gets in, and no identity encoder reads it."""
    return not system.channels and bool(system.enters)


def systems_of(groups: Iterable[str]) -> list[str]:
    """The systems that read an encoder of some groups, in the order of the table."""
    wanted = set(groups)
    return [name for name, system in SYSTEMS.items() if wanted & {channel.group for channel in system.channels}]
