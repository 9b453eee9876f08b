"""What an encoder in a file is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.params import Tap

ANY_NUMBER = "any number of people; each adds two vectors of the embedding's length to the file"
"""What `Card.holds` says of encoders that take gates."""


@dataclass(frozen=True)
class Card:
    """Facts about an encoder in a file."""

    kind: str
    layout: str
    architecture: str
    dtype: str
    parameters: int
    fingerprint: str
    groups: tuple[str, ...]
    taps: tuple[Tap, ...]
    sites: Mapping[str, tuple[Tap, ...]]
    """For each part whose weights an edit may change, the taps that change with it."""
    holds: str = ""
    """How many people the method `gated` can remove from it, and what each of them takes, in words."""
    files: tuple[Path, ...] = ()
    """The files that its weights were read from; empty if the family does not say."""
    settings: str | None = None
    """As `ImageEncoder.settings`; None too if the family does not say."""
