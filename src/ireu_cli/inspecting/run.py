"""`ireu inspect`: describe an encoder and its readers, describe what ireu wrote, or list all systems."""

from pathlib import Path

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.systems import GROUPS, SYSTEMS, depths_read, is_gated_only, systems_of
from ireu_cli.inspecting.gates import gate_told
from ireu_cli.inspecting.own import inspect_own
from ireu_cli.values import Json


def inspect_encoder(source: str) -> dict[str, Json]:
    """Describe an encoder, a gate, or an artifact that ireu wrote, as plain values; an export is both.

    Raises:
        IreuError: it cannot be read.
    """
    own = inspect_own(Path(source))
    if own is not None and own["step"] != "export":
        return own
    told = gate_told(Path(source), own) or _told(card_of(source))
    if own is None:
        return told
    files = own.pop("files")
    return told | {"ireu": own, "files": files}


def _told(card: Card) -> dict[str, Json]:
    return {
        "kind": card.kind,
        "layout": card.layout,
        "architecture": card.architecture,
        "dtype": card.dtype,
        "parameters": card.parameters,
        "fingerprint": card.fingerprint,
        "groups": {name: f"{GROUPS[name].title}: {GROUPS[name].file}" for name in card.groups},
        "taps": {tap: _readers(card, tap) for tap in (*depths_read(card.groups), *card.taps)},
        "edit_sites": {part: list(taps) for part, taps in card.sites.items()},
        **({"gated_holds": card.holds} if card.holds else {}),
        "read_by": {} if card.taps else _read_by(card),
    }


def list_systems() -> list[dict[str, Json]]:
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


def _readers(card: Card, tap: str) -> list[Json]:
    """The systems that read a tap of this encoder."""
    return [
        name
        for name in systems_of(card.groups)
        if any(channel.group in card.groups and tap in channel.taps for channel in SYSTEMS[name].channels)
    ]


def _read_by(card: Card) -> dict[str, Json]:
    """The systems that read an encoder for which we have no taps, and what they read."""
    return {
        name: channel.sentence()
        for name in systems_of(card.groups)
        for channel in SYSTEMS[name].channels
        if channel.group in card.groups
    }


def _within_reach(name: str) -> str:
    """Whether edits of all its encoders cover a system: yes, in part, by a gate only, or no."""
    if is_gated_only(SYSTEMS[name]):
        return "by a gate only"
    edited = [GROUPS[channel.group].edited for channel in SYSTEMS[name].channels]
    return "yes" if edited and all(edited) else "in part" if any(edited) else "no"
