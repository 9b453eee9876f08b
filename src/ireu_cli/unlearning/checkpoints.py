"""Training that can be stopped and continued: it shows progress and keeps checkpoints."""

from collections.abc import Callable
from time import monotonic

from ireu_cli.errors import InterruptedRunError
from ireu_cli.session import Session
from ireu_cli.unlearning.ireu.published import TrainState


class Keeper:
    """Shows progress and writes checkpoints, by time, and once more when the run is stopped."""

    def __init__(self, session: Session, identity: str) -> None:
        """Args: `session` is the run; `identity` names the training and its checkpoints."""
        self._session = session
        self._identity = identity
        self._last = monotonic()

    def on_step(self, advance: Callable[[int, str], None]) -> Callable[[TrainState], None]:
        """The function to call after each training step."""

        def after(state: TrainState) -> None:
            try:
                forget, retain = state.losses[state.step - 1].tolist()
                advance(1, f"forget {forget:.3g}  retain {retain:.3g}")
                if monotonic() - self._last >= self._session.config.run.checkpoint_seconds:
                    self._write(state)
            except (KeyboardInterrupt, InterruptedRunError):
                self._write(state)
                raise

        return after

    def _write(self, state: TrainState) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors().items()}
        self._session.run.write_checkpoint(self._identity, tensors, {"step": state.step})
        self._last = monotonic()


def resume(session: Session, identity: str) -> TrainState | None:
    """The checkpoint of an earlier run of the same training, if there is one."""
    found = session.run.read_checkpoint(identity)
    if found is None:
        return None
    tensors, state = found
    step = int(str(state["step"]))
    session.talk.note(f"continuing from step {step}")
    return TrainState.from_tensors(step, tensors)
