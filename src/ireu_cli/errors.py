"""Every error a user can cause, as one tree.

Each error carries the fact (what was found) and the remedy (what to do next), each one sentence. Only
`ireu_cli.cli.exit_codes` turns them into exit codes.
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
    """What the user handed in cannot be used."""


class ConfigError(UserError):
    """The configuration is wrong; all mistakes are reported at once."""


class PhotoError(UserError):
    """A photo or a folder of photos cannot be used."""


class ArtifactError(UserError):
    """A mask, delta, manifest, checkpoint or export is missing, damaged or does not belong."""


class ModelError(UserError):
    """An encoder or a face model cannot be loaded or does not fit."""


class ForeignEncoderError(ModelError):
    """An encoder is of a kind that is known and not edited."""


class DivergedError(UserError):
    """The optimisation left the range in which its result could be used."""


class CapacityError(UserError):
    """The encoder has no room, or the photos give no ground, for so many requests."""


class VanishedEditError(UserError):
    """Rounding to the served dtype loses the edit."""


class FailedErasureError(UserError):
    """An edit was verified and failed, and is not to be served."""


class InterruptedRunError(IreuError):
    """The run was stopped from outside; what was done is kept."""


def interrupted() -> InterruptedRunError:
    """What a run that was asked to stop ends with."""
    return InterruptedRunError("Interrupted", "Run the same command again to go on")
