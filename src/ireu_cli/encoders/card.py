"""What an encoder in a file is."""

from collections.abc import Mapping
from dataclasses import dataclass

from ireu_cli.params import Tap


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
