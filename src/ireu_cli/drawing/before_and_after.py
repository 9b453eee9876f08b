"""Pictures before and after an edit: plan them, draw each once, keep them, and judge them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ireu_cli.drawing.jobs import Job, run_jobs
from ireu_cli.drawing.judged_pictures import Drawn, judge_pictures
from ireu_cli.drawing.seen_photos import Photos, vectors_of
from ireu_cli.drawing.shots import Shot, nearest, plan_shots, prompt_of
from ireu_cli.drawing.show import Show
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.lens import Lens
from ireu_cli.generators.generator import Generator, ToDraw
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence
from ireu_cli.photos import among
from ireu_cli.session import Session
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.values import STATES, Groups, Pair


def plan_all(
    session: Session,
    show: Show,
    delta: Manifest,
    encoders: Pair[ImageEncoder],
    photos: Photos,
) -> tuple["Planned", ...]:
    """Choose what each generator draws before and after the edit, and encode the photos.

    Args:
        session: the run.
        show: generators and panel.
        delta: the record of unlearning, which says which photos were used.
        encoders: the original and the edited one.
        photos: all photos of the targets, and of the retained people whom unlearning never used.

    Raises:
        PhotoError: a photo changed since it was encoded.
    """
    seen, params = among(session, delta.targets), session.config.pictures
    # The first recogniser chooses who is alike: one choice, so that all judge the same pictures.
    readable = Groups(*(group.where(photos.sights.__contains__).photos for group in photos.people))
    vectors = Groups(*([vectors_of(photos.sights, person, 0) for person in group] for group in readable))
    alike = nearest(vectors.retained, vectors.targets, params.look_alikes)
    shots = plan_shots(readable.targets, readable.retained, alike, seen, params, session.config.seed)
    return tuple(_prepare(session, show, generator, encoders, photos, shots) for generator in show.generators)


def draw_planned(
    session: Session, show: Show, plans: Sequence["Planned"], photos: Photos
) -> tuple[tuple[Drawn, ...], tuple[GeneratorEvidence, ...]]:
    """Draw what was planned, and collect what the panel sees."""
    _draw(session, plans)
    evidence = [one for plan in plans for one in judge_pictures(show, plan.drawn, photos)]
    return tuple(plan.drawn for plan in plans), tuple(evidence)


@dataclass(frozen=True)
class Planned:
    """The pictures that a generator will draw, and everything that it needs for that."""

    drawn: Drawn
    generator: Generator
    lenses: Pair[Lens]
    nulls: Pair[Tensor]

    def jobs(self, shots: Iterable[int]) -> list[Job]:
        """The pictures of some shots, by their numbers, before the edit and after."""
        chosen = list(shots)
        return [self._job(n, state) for state in (0, 1) for n in chosen]

    def _job(self, number: int, state: int) -> Job:
        shot, prompt = self.drawn.shots[number], self.drawn.prompts[number]

        def asked() -> ToDraw:
            return ToDraw(self.lenses[state].features([shot.photo])[0], self.nulls[state], prompt, shot.seed)

        return Job(self.drawn.caches[state], self.drawn.keys[state][number], asked, self.generator)


def _prepare(
    session: Session,
    show: Show,
    generator: Generator,
    encoders: Pair[ImageEncoder],
    photos: Photos,
    shots: tuple[Shot, ...],
) -> Planned:
    """Encode the photos at the tap that this generator reads, and name every picture."""
    lenses = Pair(*(Lens(session, encoder, photos.encodings.reader, generator.tap) for encoder in encoders))
    items = list({shot.photo: lenses.original.item(shot.photo) for shot in shots}.values())
    for lens, state in zip(lenses, STATES, strict=True):
        lens.encode_items(items, "--targets or --retain", f"photos for generator {generator.name}, {state}")
    prompts = tuple(prompt_of(show.bundle.prompt, shot.edit) for shot in shots)
    digests = [session.run.keyed_digest(shot.photo.sha256) for shot in shots]
    names = [digest_of([lens.name, *generator.bits])[:32] for lens in lenses]
    keys = [
        tuple(
            PictureCache.key(name, digest, prompt, shot.seed)
            for shot, prompt, digest in zip(shots, prompts, digests, strict=True)
        )
        for name in names
    ]
    caches = Pair(*(PictureCache(session.run.pictures / name) for name in names))
    drawn = Drawn(generator.name, shots, prompts, Pair(*keys), caches)
    nulls = Pair(*(generator.null_of(encoder) for encoder in encoders))
    return Planned(drawn, generator, lenses, nulls)


def _draw(session: Session, plans: Sequence[Planned]) -> None:
    """Draw the missing pictures; first say how many they are and about how long they take."""
    names = ", ".join(plan.generator.name for plan in plans)
    each = len(plans[0].drawn.shots) if plans else 0
    text = f"pictures: {each} before and {each} after with each generator ({names})"
    run_jobs(session, [job for plan in plans for job in plan.jobs(range(each))], text, "drawing")
