"""`ireu inspect`: describe an encoder and its readers, or describe what ireu wrote."""

from pathlib import Path

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.systems import GROUPS, SYSTEMS, depths_read, systems_of
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
