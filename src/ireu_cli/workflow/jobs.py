"""Pictures to draw, each once: what is there already is left alone, the rest is counted, timed and told beforehand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

from ireu_cli.store.pictures import PictureCache
from ireu_cli.values import RgbImage
from ireu_cli.workflow.session import Session


@dataclass(frozen=True)
class Job:
    """One picture: where it is kept, by a key that no other picture has, how it is made, and whose it is."""

    cache: PictureCache
    key: str
    make: Callable[[], RgbImage]
    generator: str

    def picture(self) -> RgbImage:
        """The picture; it must have been drawn."""
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
    with session.timed("draw"), session.talk.progress(label, len(todo)) as advance:
        # The second picture tells the pace; the first one also warms the libraries up.
        for number, job in enumerate(todo):
            started = monotonic()
            job.cache.put(job.key, job.make())
            advance(1, job.generator)
            if number == min(1, len(todo) - 1):
                minutes = (monotonic() - started) * (len(todo) - number - 1) / 60
                session.talk.note(f"{what}; {len(todo)} to draw, about {minutes:.0f} min")
