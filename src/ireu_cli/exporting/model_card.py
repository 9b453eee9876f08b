"""The model card of an export: what it comes from, under which licence, and which generators it covers."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ireu_cli.encoders.systems import SYSTEMS, Coverage
from ireu_cli.errors import ModelError
from ireu_cli.store.files import write_bytes
from ireu_cli.support.bounded import leads_inside, printable

CARD = "README.md"
_MOST_CARD, _MOST_WORDS = 1 << 22, 200
_LICENCE = ("license", "license_name", "license_link")
LICENCES = ("LICENSE*", "LICENCE*", "NOTICE*", "MODEL.LICENSE")
"""Files that state a licence, and go along with the weights."""


@dataclass(frozen=True)
class Told:
    """What a card says: the library that loads the weights, where they come from, and how verification ended.

    `hub_id` and `revision` are of an original that the hub gives out; `verification` is what the report of the delta
    calls its outcome, None without a report; `again` is how the written weights, in `dtype`, did on features, None
    where there were no photos; `covered` is what the edit does to each system that mounts the encoder.
    """

    library: str
    hub_id: str | None
    revision: str | None
    verification: str | None
    again: str | None
    dtype: str
    covered: tuple[Coverage, ...]


def write_card(folder: Path, source: Path | None, told: Told) -> None:
    """Write `README.md` into an export, with the licence of the original; a card that is there stays.

    Args:
        folder: the export.
        source: the folder that the original is, whose licence is carried over.
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
        else "Under which licence the original is was not found beside it: its terms hold here too."
    )
    rows = "\n".join(
        f"| {SYSTEMS[one.system].title} | {one.status}{f': {one.why}' if one.why else ''} |" for one in told.covered
    )
    table = f"\n| system | |\n|---|---|\n{rows}\n" if rows else "\nNo published system is known to mount it.\n"
    return f"""
# Edited image encoder

Some people have asked that portrait generators do not draw them. This is {origin}, edited with
ireu to that end. It takes the original's place under the same name; nothing else in a generator changes.
{_verified(told)} {terms}

What was edited, how it was verified and what was not measured is recorded in `ireu.json`. Who was removed is not.
Weights that were published before, and embeddings that were computed with them, still know these people.

## Generators

What the edit can reach of each system that mounts such an encoder:
{table}"""


def _verified(told: Told) -> str:
    """How the verification ended, in the report's own words, and what the written weights were asked after it."""
    if told.verification is None:
        first = "It was **not verified** by `ireu verify` when it was written, or no report of that was at hand."
    else:
        first = f"The report of `ireu verify` on this edit says: **{told.verification}**."
    if told.again is None:
        return f"{first} The written weights were not tried on photos."
    once_more = f"The written weights were tried on photos once more, in {told.dtype} and on features alone"
    return f"{first} {once_more}: {told.again}."


def _licence_of(source: Path) -> dict[str, Any]:
    """What the original's card states of its licence."""
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
    """Whether a value out of a card is one short line."""
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
