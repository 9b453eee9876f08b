"""The model card of an export: its origin, its licence, and the generators that it covers."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ireu_cli.coverage import Coverage
from ireu_cli.encoders.systems import SYSTEMS
from ireu_cli.errors import ModelError
from ireu_cli.store.files import write_bytes
from ireu_cli.support.bounded import leads_inside, printable

CARD = "README.md"
_MOST_CARD, _MOST_WORDS = 1 << 22, 200
_LICENCE = ("license", "license_name", "license_link")
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "MODEL.LICENSE")
"""Files that state a licence and are copied with the weights."""


@dataclass(frozen=True)
class Told:
    """What a card says: the library that loads the weights, where they come from, and how verification ended.

    `hub_id` and `revision` name an original that comes from the hub. `verification` is the outcome in the report of the
    delta, None without a report. `again` is the outcome of the written weights, in `dtype`, on features; it is None if
    there were no photos. `covered` says what the edit does to each system that mounts the encoder.
    """

    library: str
    hub_id: str | None
    revision: str | None
    verification: str | None
    again: str | None
    dtype: str
    covered: tuple[Coverage, ...]


def write_card(folder: Path, source: Path | None, told: Told) -> None:
    """Write `README.md` into an export, with the licence of the original; a card that exists is kept.

    Args:
        folder: the export.
        source: the folder of the original, whose licence is copied.
        told: what to say.
    """
    from huggingface_hub import ModelCardData

    if source is not None:
        _copy_licences(source, folder)
    if (folder / CARD).exists():
        return
    licence = {} if source is None else _licence_of(source)
    more: dict[str, Any] = dict(licence)
    if told.hub_id:
        more |= {"base_model": told.hub_id, "base_model_relation": "finetune"}
    data = ModelCardData(library_name=told.library, tags=["unlearning", "ireu"], **more)
    text = f"---\n{data.to_yaml()}\n---\n{_text(told, bool(licence))}"
    write_bytes(folder / CARD, text.encode())


def _text(told: Told, licensed: bool) -> str:
    at = f" at {told.revision}" if told.revision else ""
    origin = f"`{told.hub_id}`{at}" if told.hub_id else "the encoder that ireu.json names"
    terms = (
        "The licence is that of the original."
        if licensed
        else "No licence was found beside the original. The terms of the original apply here too."
    )
    rows = "\n".join(
        f"| {SYSTEMS[one.system].title} | {one.status}{f': {one.why}' if one.why else ''} |" for one in told.covered
    )
    table = f"\n| system | |\n|---|---|\n{rows}\n" if rows else "\nNo published system is known to mount it.\n"
    return f"""
# Edited image encoder

Some people have asked that portrait generators do not draw them. This is {origin}, edited with ireu so that they do
not. It replaces the original under the same name; nothing else in a generator changes. {_verified(told)} {terms}

`ireu.json` records what was edited, how it was verified and what was not measured. It does not record who was removed.
Weights that were published before, and embeddings that were computed with them, still know these people.

## Generators

How far the edit covers each system that mounts such an encoder:
{table}"""


def _verified(told: Told) -> str:
    """The outcome of the verification, as the report words it, and of the second one on the written weights."""
    if told.verification is None:
        first = "It was **not verified** by `ireu verify` when it was written, or no report was available."
    else:
        first = f"The report of `ireu verify` on this edit says: **{told.verification}**."
    if told.again is None:
        return f"{first} The written weights were not tested on photos."
    once_more = f"The written weights were tested on photos again, in {told.dtype} and on features only"
    return f"{first} {once_more}: {told.again}."


def _licence_of(source: Path) -> dict[str, Any]:
    """What the original's card states about its licence."""
    from huggingface_hub.repocard import metadata_load

    card = source / CARD
    try:
        if not leads_inside(source, card) or card.stat().st_size > _MOST_CARD:
            return {}
        told = metadata_load(card) or {}
        return {key: told[key] for key in _LICENCE if _is_words(told.get(key))}
    except Exception:  # noqa: BLE001 - the YAML reader raises its own kinds, and a card need not be readable
        return {}


def _is_words(value: Any) -> bool:
    """Whether a value from a card is one short line."""
    return isinstance(value, str) and 0 < len(value) <= _MOST_WORDS and value.isprintable()


def _copy_licences(source: Path, folder: Path) -> None:
    for pattern in LICENCES:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and not (folder / path.name).exists():
                # An export may be published: nothing comes into it that lies elsewhere.
                if not leads_inside(source, path):
                    raise ModelError(
                        f"{printable(path.name)} beside the encoder is a link that leads out of its folder",
                        "Put a copy there instead of the link",
                    )
                shutil.copyfile(path, folder / path.name)
