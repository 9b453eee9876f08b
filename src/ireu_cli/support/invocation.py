"""The command line of this process, for workers that have to run the same."""

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

_ARGUMENTS: ContextVar[tuple[str, ...] | None] = ContextVar("arguments", default=None)


@contextlib.contextmanager
def invoked(arguments: Sequence[str]) -> Iterator[None]:
    """Run a command line; args: without the program."""
    token = _ARGUMENTS.set(tuple(arguments))
    try:
        yield
    finally:
        _ARGUMENTS.reset(token)


def command_line() -> tuple[str, ...] | None:
    """The arguments of the command that runs; None if no command line runs."""
    return _ARGUMENTS.get()
