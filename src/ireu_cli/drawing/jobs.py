"""Draw each picture once: existing pictures are kept, the rest is counted and announced, and time is estimated.

Where a generator draws several pictures in one call, the same pictures go together in every run. If one of them is
missing, all are drawn, because last bits depend on the others.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ireu_cli.encodings.loop import Item
from ireu_cli.faces.read import PhotoReader
from ireu_cli.generators.generator import Generator, ToDraw
from ireu_cli.generators.side_by_side import draw_calls, groups
from ireu_cli.manifest import digest_of
from ireu_cli.session import Session
from ireu_cli.sharding.executor import Alone, Outcome, Positions, Shard, Stage
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.support.pace import Pace, span
from ireu_cli.values import RgbImage

_SHARD = 4
"""The number of pictures that one of several processes draws at a time."""
_FORETOLD = 5
"""The number of pictures after which the total time is estimated; the first one warms up and is not timed.
"""


@dataclass(frozen=True)
class Job:
    """One picture: its file, named by a key of its own, what it is drawn from, and the generator that draws it.

    `asked` may compute; it is called shortly before the picture is drawn, by one thread only.
    """

    cache: PictureCache
    key: str
    asked: Callable[[], ToDraw]
    generator: Generator


@dataclass(frozen=True, slots=True)
class DrawnPicture(Item):
    """A picture that was drawn, by its key in a cache."""

    cache: PictureCache

    def load(self, _reader: PhotoReader, /) -> RgbImage:
        """See `Item`; it must have been drawn."""
        return self.cache.need(self.key)


def run_jobs(session: Session, jobs: Sequence[Job], what: str, label: str) -> None:
    """Draw the missing pictures.

    Args:
        session: the run.
        jobs: the wanted pictures.
        what: the sentence that announces them.
        label: label of the progress bar.
    """
    calls = [call for _, call in groups([(job.generator, job) for job in {job.key: job for job in jobs}.values()])]
    todo = [place for place, call in enumerate(calls) if _lacks(call)]
    if not todo:
        session.talk.note(f"{what}; all exist from an earlier run")
        return
    total = sum(len(calls[place]) for place in todo)
    session.talk.note(f"{what}; {total} to draw")
    stage = _stage(calls, todo)
    with session.timed("draw"), session.talk.progress(label, total) as advance:
        drawing = _Drawing(session, calls, Pace(total), label, advance)

        def others(count: int) -> None:
            advance(count * total // len(todo), "")

        session.executor.go_through(stage, drawing.draw, lambda _outcome: None, others)
        if not session.executor.is_alone:
            # Somebody may have removed or damaged what others had drawn.
            left = _stage(calls, [place for place in todo if _lacks(calls[place])])
            Alone().go_through(left, drawing.draw, lambda _outcome: None, lambda _count: None)


def _lacks(call: Sequence[Job]) -> bool:
    return any(job.cache.get(job.key) is None for job in call)


def _stage(calls: Sequence[Sequence[Job]], todo: Sequence[int]) -> Stage:
    """Calls that are left, by their positions."""
    keys, most = [[job.key for job in call] for call in calls], max(map(len, calls))
    positions, size = np.asarray(todo, np.int64), max(1, _SHARD // most)
    return Stage(lambda: digest_of(["pictures", keys]), positions, size, is_loose=True)


@dataclass
class _Drawing:
    """Pictures that are being drawn, by the calls that draw them."""

    session: Session
    calls: Sequence[Sequence[Job]]
    pace: Pace
    label: str
    advance: Callable[[int, str], None]
    drawn: int = 0

    def draw(self, positions: Positions, shards: Iterator[Shard]) -> Iterator[tuple[Shard, Outcome]]:
        """Draw the pictures of shards."""
        for shard in shards:
            calls = [self.calls[place] for place in positions[shard.first : shard.end].tolist()]
            todo = [job for call in calls for job in call]
            asked = [(call[0].generator, [job.asked for job in call]) for call in calls]
            with contextlib.closing(draw_calls(asked)) as pictures:
                for job, picture in zip(todo, pictures, strict=True):
                    job.cache.put(job.key, picture)
                    self._tell(job)
            yield shard, Outcome()

    def _tell(self, job: Job) -> None:
        self.advance(1, job.generator.name)
        self.pace.advance(1)
        self.drawn += 1
        if self.drawn == _FORETOLD and self.pace.left:
            span_left = span(self.pace.left)
            self.session.talk.note(f"{self.label}: about {span_left} left, estimated from the first {self.drawn}")
