"""What a batch is asked to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.batching.requests_in import Request


@dataclass(frozen=True)
class Plan:
    """A batch: its requests, where its results go, and what they are added to."""

    requests: Sequence[Request]
    place: Path
    in_table: bool = False
    onto: Path | None = None
    mask: Path | None = None
    strict: bool = False
    allow_failed: bool = False
