"""`ireu inspect --systems`: list all systems. It loads no library that takes seconds to start."""

from typing import Any

from ireu_cli.encoders.systems import GROUPS, SYSTEMS, is_gated_only


def list_systems() -> list[dict[str, Any]]:
    """Every system with the tensors that it reads, as plain values, and whether edits can close each channel."""
    return [
        {
            "system": name,
            "title": system.title,
            "reads": [
                {"group": channel.group, "what": channel.sentence(), "edited": GROUPS[channel.group].edited}
                for channel in system.channels
            ],
            "within_reach": _within_reach(name),
            "remark": system.remark,
            "enters": system.enters,
        }
        for name, system in SYSTEMS.items()
    ]


def _within_reach(name: str) -> str:
    """Whether edits of all its encoders cover a system: yes, in part, by a gate only, or no."""
    if is_gated_only(SYSTEMS[name]):
        return "by a gate only"
    edited = [GROUPS[channel.group].edited for channel in SYSTEMS[name].channels]
    return "yes" if edited and all(edited) else "in part" if any(edited) else "no"
