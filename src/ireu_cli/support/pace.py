"""How far a loop is, and how long the rest takes: one helper for every loop that takes long."""

from collections.abc import Callable
from time import monotonic

SECONDS = 30.0
SHARE = 0.1
"""Where nobody sees a bar, a line is due after so many seconds and so much of the work, whichever is later."""
_TIMED = 2
"""Items that an estimate rests on, at least."""


class Pace:
    """Counts what is done of `total` and times it.

    The first step is not timed: it is what was there already, or the item that warms the libraries up.
    """

    def __init__(self, total: int, clock: Callable[[], float] = monotonic) -> None:
        """Begin to count; `clock` gives seconds."""
        self.total = total
        self.done = 0
        self._clock = clock
        self._begun: tuple[float, int] | None = None
        self._told = (clock(), 0)

    def advance(self, count: int) -> None:
        """So many more are done."""
        if count <= 0:
            return
        self.done += count
        if self._begun is None:
            self._begun = (self._clock(), self.done)

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes; None until more than one item was timed."""
        if self._begun is None:
            return None
        start, before = self._begun
        timed = self.done - before
        if timed < _TIMED:
            return None
        return (self._clock() - start) / timed * max(0, self.total - self.done)

    def is_due(self) -> bool:
        """Whether a line is due; asking for it begins the time to the next one anew."""
        when, done = self._told
        now = self._clock()
        if now - when < SECONDS or self.done - done < SHARE * self.total:
            return False
        self._told = (now, self.done)
        return True

    def line(self, label: str, words: str = "") -> str:
        """Such as `drawing: 40 of 220, about 3 min left`."""
        parts = [f"{label}: {self.done} of {self.total}"]
        if self.left is not None and self.done < self.total:
            parts.append(f"about {span(self.left)} left")
        return ", ".join([*parts, *([words] if words else [])])


def span(seconds: float) -> str:
    """A duration in words, such as `40 s`, `12 min` or `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
