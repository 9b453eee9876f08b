"""The progress of a loop and the time left: one helper for every long loop."""

from collections.abc import Callable
from time import monotonic

SECONDS = 30.0
SHARE = 0.1
"""Without a bar, a line is due after this many seconds and this share of the work, whichever is later."""
_TIMED = 2
"""The fewest items for an estimate."""


class Pace:
    """Counts finished items of `total` and times them.

    The first step is not timed: it is what was already finished, or the item that warms up the libraries.
    """

    def __init__(self, total: int, clock: Callable[[], float] = monotonic) -> None:
        """Start counting; `clock` gives seconds."""
        self.total = total
        self.done = 0
        self._clock = clock
        self._begun: tuple[float, int] | None = None
        self._told = (clock(), 0)

    def advance(self, count: int) -> None:
        """Count more finished items."""
        if count <= 0:
            return
        self.done += count
        if self._begun is None:
            self._begun = (self._clock(), self.done)

    @property
    def left(self) -> float | None:
        """Seconds that the rest takes; None until more than one item has been timed."""
        if self._begun is None:
            return None
        start, before = self._begun
        timed = self.done - before
        if timed < _TIMED:
            return None
        return (self._clock() - start) / timed * max(0, self.total - self.done)

    def is_due(self) -> bool:
        """Whether a line is due; if it is, the time to the next one starts again."""
        when, done = self._told
        now = self._clock()
        if now - when < SECONDS or self.done - done < SHARE * self.total:
            return False
        self._told = (now, self.done)
        return True

    def line(self, label: str, words: str = "") -> str:
        """A line such as `drawing: 40 of 220, about 3 min left`."""
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
