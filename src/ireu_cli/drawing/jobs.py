"""Pictures to draw, each once: what is there already is left alone, the rest is counted, timed and told beforehand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ireu_cli.encodings.loop import Item
from ireu_cli.faces.read import PhotoReader
from ireu_cli.session import Session
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.support.pace import Pace, span
from ireu_cli.values import RgbImage

_FORETOLD = 5
"""Pictures after which the time of all of them is told; the first one, which warms the libraries up, is not timed."""


@dataclass(frozen=True)
class Job:
    """One picture: where it is kept, by a key that no other picture has, how it is made, and whose it is."""

    cache: PictureCache
    key: str
    make: Callable[[], RgbImage]
    generator: str


@dataclass(frozen=True, slots=True)
class DrawnPicture(Item):
    """A picture that was drawn, by its key in a cache."""

    cache: PictureCache

    def load(self, _reader: PhotoReader, /) -> RgbImage:
        """See `Item`; it must have been drawn."""
        return self.cache.need(self.key)


def run_jobs(session: Session, jobs: Sequence[Job], what: str, label: str) -> None:
    """Draw what is not there yet.

    Args:
        session: the run.
        jobs: pictures wanted.
        what: the sentence that says so.
        label: of the progress bar.
    """
    todo = [job for job in {job.key: job for job in jobs}.values() if job.cache.get(job.key) is None]
    if not todo:
        session.talk.note(f"{what}; all are there from an earlier run")
        return
    session.talk.note(f"{what}; {len(todo)} to draw")
    pace = Pace(len(todo))
    with session.timed("draw"), session.talk.progress(label, len(todo)) as advance:
        for number, job in enumerate(todo, 1):
            job.cache.put(job.key, job.make())
            advance(1, job.generator)
            pace.advance(1)
            if number == _FORETOLD and pace.left:
                session.talk.note(f"{label}: about {span(pace.left)} left, going by the first {number}")
