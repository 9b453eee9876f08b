"""Which encoder a file or folder holds, whatever its own record says, and which others lie beside it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ireu_cli.checking.known_exports import Export, Identity, identify
from ireu_cli.checking.traps import is_weights
from ireu_cli.encoders.card import Card
from ireu_cli.encoders.families import card_of
from ireu_cli.errors import IreuError

_ADAPTERS = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin")
"""Files that transformers applies to a model in whose folder they lie."""


def card_at(path: Path) -> Card | str:
    """What an encoder is, or why there is none.

    Its weights are read, so that no name, record or date has to be believed.
    """
    try:
        return card_of(str(path))
    except IreuError as error:
        return error.fact


def identity_of(path: Path, card: Card | str, exports: Sequence[Export]) -> Identity:
    """Say which of some exports an encoder is; it should be the first one.

    It is the wanted one only if no other encoder lies where a loader may take it instead.
    """
    if isinstance(card, str):
        return Identity(False if exports else None, f"nothing that can be read as an encoder: {card}")
    found = identify(card.fingerprint, exports)
    if not found.is_wanted:
        return found
    wanted = exports[0].manifest.encoder
    if card.settings is not None and not wanted.fits(card.settings):
        words = "the edited weights, but its config.json states another activation, number of heads or epsilon"
        return Identity(False, words)
    for name, words in _rivals(path, card, exports):
        return replace(found, is_wanted=False, words=f"{found.words}. But {name} beside it {words}")
    return found


def _rivals(path: Path, card: Card, exports: Sequence[Export]) -> list[tuple[str, str]]:
    """Other files of the same folder that a loader may take, with what is wrong about each."""
    if not path.is_dir():
        return []
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    found = [(name, "is applied to it by transformers") for name in names if name in _ADAPTERS]
    read = {file.resolve() for file in card.files}
    for name in names:
        if not is_weights(name) or (path / name).resolve() in read or not card.files:
            continue
        other = card_at(path / name)
        if isinstance(other, Card) and other.fingerprint != exports[0].edited:
            found.append((name, f"is {identify(other.fingerprint, exports).words}"))
    return found
