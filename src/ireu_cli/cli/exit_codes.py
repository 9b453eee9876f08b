"""The one place that maps outcomes and errors to exit codes."""

from enum import IntEnum

from ireu_cli.errors import InterruptedRunError, IreuError, UsageError, UserError


class ExitCode(IntEnum):
    """The exit codes that scripts may rely on."""

    DONE = 0
    BUG = 1
    USAGE = 2
    USER_ERROR = 3
    FAILED = 4
    INCONCLUSIVE = 5
    INTERRUPTED = 130


OUTCOMES = {"pass": ExitCode.DONE, "fail": ExitCode.FAILED, "inconclusive": ExitCode.INCONCLUSIVE}

# Subclasses come before their bases.
_ERRORS: tuple[tuple[type[IreuError], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (UserError, ExitCode.USER_ERROR),
    (InterruptedRunError, ExitCode.INTERRUPTED),
)


def code_of(error: IreuError) -> ExitCode:
    """The exit code of one of our errors."""
    return next((code for kind, code in _ERRORS if isinstance(error, kind)), ExitCode.BUG)
