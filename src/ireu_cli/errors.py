"""All errors that a user can cause, as one tree.

Each error has a fact (what was found) and a remedy (what to do next), one sentence each. Only `ireu_cli.cli.exit_codes`
turns them into exit codes.
"""


class IreuError(Exception):
    """Base of all errors that `ireu` raises on purpose."""

    def __init__(self, fact: str, remedy: str) -> None:
        """Keep both sentences; `str(error)` joins them."""
        super().__init__(fact, remedy)
        self.fact = fact
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: the fact, then the remedy."""
        return f"{self.fact}. {self.remedy}."


class UsageError(IreuError):
    """The command line itself is wrong."""


class UserError(IreuError):
    """An input of the user cannot be used."""


class ConfigError(UserError):
    """The configuration is wrong; all mistakes are reported at once."""


class PhotoError(UserError):
    """A photo or a folder of photos cannot be used."""


class ArtifactError(UserError):
    """A mask, delta, manifest, checkpoint or export is missing, damaged, or does not belong to this run."""


class ModelError(UserError):
    """An encoder or a face model cannot be loaded or does not fit."""


class ForeignEncoderError(ModelError):
    """An encoder is of a kind that ireu knows but does not edit."""


class DivergedError(UserError):
    """The optimisation left the range in which its result could be used."""


class CapacityError(UserError):
    """The encoder has no room for so many requests, or there are too few photos for them."""


class VanishedEditError(UserError):
    """Rounding to the served dtype loses the edit."""


class FailedErasureError(UserError):
    """An edit failed its verification and must not be served."""


class ServiceError(UserError):
    """A service does not answer, refuses access, or does not do what it was asked."""


class InterruptedRunError(IreuError):
    """The run was stopped from outside; finished work is kept."""


def interrupted() -> InterruptedRunError:
    """A run was asked to stop and has stopped."""
    return InterruptedRunError("Interrupted", "Run the same command again to go on")


class PartDoneError(Exception):
    """This process has done its part of a step, and others have not done theirs; nothing went wrong."""

    def __init__(self, left: int) -> None:
        """Args: the number of shards of the stage that others have to do."""
        super().__init__(left)
        self.left = left


class WorkerDoneError(Exception):
    """This process helped another one, and has nothing more to do; nothing went wrong."""
