"""The model card of an export: what it comes from, under which licence, and which generators it covers."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ireu_cli.models.systems import SYSTEMS, Coverage
from ireu_cli.store.files import write_bytes

CARD = "README.md"
_LICENCE = ("license", "license_name", "license_link")
_TEXTS = ("LICENSE*", "LICENCE*", "NOTICE*", "MODEL.LICENSE")
"""Files that state a licence, and go along with the weights."""


def write_card(
    folder: Path, source: Path, library: str, hub_id: str | None, revision: str | None, covered: Sequence[Coverage]
) -> None:
    """Write `README.md` into an export, with the licence of the original; a card that is there stays.

    Args:
        folder: the export.
        source: the folder that the original lies in.
        library: that loads the weights, such as transformers.
        hub_id: where the original comes from, for one that the hub gives out.
        revision: of it.
        covered: what the edit does to each system that mounts the encoder.
    """
    from huggingface_hub import ModelCardData

    _copy_licences(source, folder)
    if (folder / CARD).exists():
        return
    licence = _licence_of(source)
    more: dict[str, Any] = dict(licence)
    if hub_id:
        more |= {"base_model": hub_id, "base_model_relation": "finetune"}
    data = ModelCardData(library_name=library, tags=["unlearning", "ireu"], **more)
    text = f"---\n{data.to_yaml()}\n---\n{_text(hub_id, revision, bool(licence), covered)}"
    write_bytes(folder / CARD, text.encode())


def _text(hub_id: str | None, revision: str | None, licensed: bool, covered: Sequence[Coverage]) -> str:
    origin = f"`{hub_id}`{f' at {revision}' if revision else ''}" if hub_id else "the encoder that ireu.json names"
    terms = (
        "The licence is that of the original."
        if licensed
        else "The original states no licence in a form that could be carried over: its terms hold here too."
    )
    rows = "\n".join(
        f"| {SYSTEMS[one.system].title} | {one.status}{f': {one.why}' if one.why else ''} |" for one in covered
    )
    table = f"\n| system | |\n|---|---|\n{rows}\n" if covered else "\nNo published system is known to mount it.\n"
    return f"""
# Edited image encoder

Some people have asked that portrait generators do not draw them. This is {origin}, edited with
ireu so that generators that mount it do not. It takes the original's place under the same name; nothing else in a
generator changes. {terms}

What was edited, how it was verified and what was not measured is recorded in `ireu.json`. Who was removed is not.
Weights that were published before, and embeddings that were computed with them, still know these people.

## Generators
{table}"""


def _licence_of(source: Path) -> dict[str, str]:
    """What the original's card states of its licence."""
    from huggingface_hub.repocard import metadata_load

    try:
        told = metadata_load(source / CARD) or {}
    except (OSError, ValueError):
        return {}
    return {key: str(told[key]) for key in _LICENCE if told.get(key)}


def _copy_licences(source: Path, folder: Path) -> None:
    for pattern in _TEXTS:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and not (folder / path.name).exists():
                shutil.copyfile(path, folder / path.name)
