"""Draw each picture once: existing pictures are kept, the rest is counted and announced, and time is estimated."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ireu_cli.encodings.loop import Item
from ireu_cli.faces.read import PhotoReader
from ireu_cli.generators.generator import Generator, ToDraw
from ireu_cli.generators.side_by_side import draw_each
from ireu_cli.session import Session
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.support.pace import Pace, span
from ireu_cli.values import RgbImage

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
    todo = [job for job in {job.key: job for job in jobs}.values() if job.cache.get(job.key) is None]
    if not todo:
        session.talk.note(f"{what}; all exist from an earlier run")
        return
    session.talk.note(f"{what}; {len(todo)} to draw")
    pace = Pace(len(todo))
    drawing = contextlib.closing(draw_each([(job.generator, job.asked) for job in todo]))
    with session.timed("draw"), session.talk.progress(label, len(todo)) as advance, drawing as pictures:
        for number, (job, picture) in enumerate(zip(todo, pictures, strict=True), 1):
            job.cache.put(job.key, picture)
            advance(1, job.generator.name)
            pace.advance(1)
            if number == _FORETOLD and pace.left:
                session.talk.note(f"{label}: about {span(pace.left)} left, estimated from the first {number}")
