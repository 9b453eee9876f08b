"""What a kind of service has to offer so that exports can be put into it; a file beside this one for each kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ireu_cli.serving.exported import Exported


@dataclass(frozen=True)
class Holding:
    """What a service holds now.

    `digest` (64 hex) names its weights; `version` is the number under which it holds them, where it has numbers. `note`
    says what is odd: what it holds cannot be known, or the next start brings something else.
    """

    digest: str
    version: int | None = None
    note: str | None = None


@dataclass(frozen=True)
class Back:
    """What a service held earlier, and what it takes to put it back; `path` is where the service finds it."""

    holding: Holding
    path: str | None = None


class Stack(Protocol):
    """A place in a running service that holds one encoder."""

    @property
    def kind(self) -> str:
        """The name of the kind of service."""

    @property
    def place(self) -> str:
        """Which place it is, for people."""

    @property
    def key(self) -> str:
        """Which place it is, however it is named."""

    def holding(self) -> Holding | None:
        """What it holds now; None if that is nothing.

        Raises:
            ServiceError: it does not say.
        """

    def path_of(self, export: Exported) -> str | None:
        """Where the service finds an export; None if it gets it in another way."""

    def can_return(self, back: Back) -> bool:
        """Whether `put_back` has what it takes."""

    def held_as(self, export: Exported, held: Holding) -> str | None:
        """How it holds an export, in words; None if it holds something else."""

    def put(self, export: Exported) -> Back:
        """Load an export in place of what is there, which stays until the new one was seen to be loaded.

        Returns:
            What it takes to put this export back later.

        Raises:
            ServiceError: the service did not load it; it holds what it held before, or the message says otherwise.
        """

    def put_back(self, back: Back) -> Back:
        """Load again what it held earlier.

        Raises:
            ServiceError: as `put`.
        """


@dataclass(frozen=True)
class Seen:
    """Which of some exports a service holds: the first one, another, or none; and how, in words."""

    holding: Holding | None
    export: Exported | None
    words: str


def look(stack: Stack, exports: Sequence[Exported]) -> Seen:
    """Compare what a service holds with exports."""
    held = stack.holding()
    if held is None:
        return Seen(None, None, "nothing")
    for export in exports:
        if (how := stack.held_as(export, held)) is not None:
            return Seen(held, export, how)
    return Seen(held, None, "weights that none of the named exports has")
