"""Pictures before and after: planned, drawn once, kept, and looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import torch
from torch import Tensor

from ireu_cli.errors import ConfigError
from ireu_cli.faces.folder import People
from ireu_cli.faces.read import PhotoReader
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.models.clip import Encoder
from ireu_cli.models.generator import Generator, load_generators, null_features
from ireu_cli.models.portrait import Bundle, find_bundle
from ireu_cli.steps.compare import adherence, likeness
from ireu_cli.steps.pictures import GeneratorEvidence, PersonPictures
from ireu_cli.steps.shots import EDITS, Shot, nearest, plan_shots, prompt_of
from ireu_cli.store.pictures import PictureCache
from ireu_cli.values import Photo, RgbImage
from ireu_cli.workflow.judge import Judge, Sight, open_judge
from ireu_cli.workflow.photos import Lens
from ireu_cli.workflow.session import Session

_NO_SIGHT = Sight(None, torch.empty(0))


@dataclass(frozen=True)
class Show:
    """The generators of an encoder, with the bundle they come from and its judges."""

    bundle: Bundle
    generators: tuple[Generator, ...]
    judge: Judge

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of all that decides pictures and judgements, beside encoders, photos and parameters."""
        return digest_of([self.bundle.prompt, EDITS, *(g.fingerprint for g in self.generators), self.judge.fingerprint])


@dataclass(frozen=True)
class Drawn:
    """What one generator drew: the shots, and where their pictures lie; `state` is 0 before, 1 after."""

    generator: str
    shots: tuple[Shot, ...]
    prompts: tuple[str, ...]
    keys: tuple[tuple[str, ...], tuple[str, ...]]
    caches: tuple[PictureCache, PictureCache]

    def picture(self, number: int, state: int) -> RgbImage:
        """The picture of a shot; it must have been drawn."""
        found = self.caches[state].get(self.keys[state][number])
        if found is None:
            raise RuntimeError("a drawn picture is gone from the run folder")
        return found


def open_show(session: Session) -> Show | None:
    """Load the generators that `pictures.generators` names; None where the encoder has none, or none is wanted.

    Raises:
        ConfigError: a generator or an edit that does not exist.
        ModelError: a part of the bundle cannot be loaded.
    """
    params, device = session.config.pictures, session.config.run.device
    bundle = find_bundle(session.config.encoder.source)
    if bundle is None or not bundle.entries() or params.generators == ("none",):
        return None
    names = [entry.name for entry, _ in bundle.entries()]
    for key, asked, known in (("generators", params.generators, ["all", *names]), ("edits", params.edits, [*EDITS])):
        if unknown := sorted(set(asked) - set(known)):
            raise ConfigError(f"pictures.{key} names {unknown[0]}, which does not exist", f"Use {', '.join(known)}")
    with session.timed("load_generators"):
        every = load_generators(session.config.encoder.source, None, device)
        judge = open_judge(bundle, device, session.run.features)
    wanted = tuple(g for g in every if "all" in params.generators or g.name in params.generators)
    return Show(bundle, wanted, judge)


def draw_all(
    session: Session,
    show: Show,
    delta: Manifest,
    encoders: tuple[Encoder, Encoder],
    people: tuple[People, People],
    reader: PhotoReader,
) -> tuple[tuple[Drawn, ...], tuple[GeneratorEvidence, ...]]:
    """Draw with every generator, before and after, and gather what the judges see.

    Args:
        session: the run.
        show: generators and judges.
        delta: the record of unlearning, which tells seen photos from unseen ones.
        encoders: the original and the edited one.
        people: all photos of the targets, and of the retained people whom unlearning never used.
        reader: reads the photos.

    Raises:
        PhotoError: a photo changed since it was encoded.
    """
    targets, retained = people
    sights = _look_at_photos(session, show.judge, reader, [*targets.flat, *retained.flat])
    vectors = [[_vectors(sights, person) for person in group.photos] for group in people]
    used = {digest for person in delta.targets for digest in person.photos}

    def seen(photo: Photo) -> bool:
        return session.run.keyed_digest(photo.sha256) in used

    alike = nearest(vectors[1], vectors[0], session.config.pictures.look_alikes)
    readable = [group.where(sights.__contains__).photos for group in people]
    shots = plan_shots(readable[0], readable[1], alike, seen, session.config.pictures, session.config.seed)
    drawn = [_prepare(session, show, generator, encoders, reader, shots) for generator in show.generators]
    _draw(session, drawn)
    evidence = [_judge(session, show, plan.drawn, sights, people, vectors) for plan in drawn]
    return tuple(plan.drawn for plan in drawn), tuple(evidence)


@dataclass(frozen=True)
class _Plan:
    """What `_draw` needs to draw a shot in a state."""

    drawn: Drawn
    generator: Generator
    lenses: tuple[Lens, Lens]
    nulls: tuple[Tensor, Tensor]

    def make(self, number: int, state: int) -> None:
        shot = self.drawn.shots[number]
        features = self.lenses[state].features([shot.photo])
        prompt = self.drawn.prompts[number]
        picture = self.generator.draw(features, self.nulls[state], [prompt], [shot.seed])[0]
        self.drawn.caches[state].put(self.drawn.keys[state][number], picture)


def _look_at_photos(session: Session, judge: Judge, reader: PhotoReader, photos: Sequence[Photo]) -> dict[Photo, Sight]:
    keys = {photo: digest_of([reader.name, photo.sha256]) for photo in photos}

    def load(photo: Photo) -> Callable[[], RgbImage]:
        return lambda: reader.image(photo)

    with session.timed("judge"), session.talk.progress("looking at photos", len(keys)) as advance:
        found = judge.look([(key, load(photo)) for photo, key in keys.items()], lambda count: advance(count, ""))
    return {photo: found[key] for photo, key in keys.items() if key in found}


def _vectors(sights: dict[Photo, Sight], person: Sequence[Photo]) -> Tensor:
    """Unit vectors (k, d) of the photos that show a face."""
    rows = [s.vector for photo in person if (s := sights.get(photo, _NO_SIGHT)).landmarks is not None]
    return torch.stack(rows) if rows else torch.empty(0, 0)


def _prepare(
    session: Session,
    show: Show,
    generator: Generator,
    encoders: tuple[Encoder, Encoder],
    reader: PhotoReader,
    shots: tuple[Shot, ...],
) -> _Plan:
    """Encode the photos at the tap that this generator reads, and name every picture."""
    lenses = (
        Lens(session, encoders[0], reader, generator.tap),
        Lens(session, encoders[1], reader, generator.tap),
    )
    items = list({shot.photo: lenses[0].item(shot.photo) for shot in shots}.values())
    for lens, state in zip(lenses, ("original", "edited"), strict=True):
        lens.encode_items(items, "--targets or --retain", f"photos for generator {generator.name}, {state}")
    prompts = tuple(prompt_of(show.bundle.prompt, shot) for shot in shots)
    digests = [session.run.keyed_digest(shot.photo.sha256) for shot in shots]
    names = [digest_of([lens.name, generator.fingerprint])[:32] for lens in lenses]
    keys = [
        tuple(
            PictureCache.key(name, digest, prompt, shot.seed)
            for shot, prompt, digest in zip(shots, prompts, digests, strict=True)
        )
        for name in names
    ]
    caches = (PictureCache(session.run.pictures / names[0]), PictureCache(session.run.pictures / names[1]))
    drawn = Drawn(generator.name, shots, prompts, (keys[0], keys[1]), caches)
    nulls = (null_features(encoders[0], generator.tap), null_features(encoders[1], generator.tap))
    return _Plan(drawn, generator, lenses, nulls)


def _draw(session: Session, plans: Sequence[_Plan]) -> None:
    """Draw what is not there yet, and say beforehand how much that is and about how long it takes."""
    every = [(plan, n, state) for plan in plans for state in (0, 1) for n in range(len(plan.drawn.shots))]
    todo = [(p, n, state) for p, n, state in every if p.drawn.caches[state].get(p.drawn.keys[state][n]) is None]
    names = ", ".join(plan.generator.name for plan in plans)
    each = len(plans[0].drawn.shots) if plans else 0
    text = f"pictures: {each} before and {each} after with each generator ({names})"
    if not todo:
        session.talk.note(f"{text}; all are there from an earlier run")
        return
    with session.timed("draw"), session.talk.progress("drawing", len(todo)) as advance:
        # The second picture tells the pace; the first one also warms the libraries up.
        for number, (plan, shot, state) in enumerate(todo):
            started = monotonic()
            plan.make(shot, state)
            advance(1, plan.generator.name)
            if number == min(1, len(todo) - 1):
                minutes = (monotonic() - started) * (len(todo) - number - 1) / 60
                session.talk.note(f"{text}; {len(todo)} to draw, about {minutes:.0f} min")


def _judge(
    session: Session,
    show: Show,
    drawn: Drawn,
    sights: dict[Photo, Sight],
    people: tuple[People, People],
    vectors: list[list[Tensor]],
) -> GeneratorEvidence:
    judge = show.judge
    looked = []
    with session.timed("judge"), session.talk.progress("looking at pictures", 2 * len(drawn.shots)) as advance:
        for state in (0, 1):
            items = [(drawn.keys[state][n], _loader(drawn, n, state)) for n in range(len(drawn.shots))]
            found = judge.look(items, lambda count: advance(count, ""))
            looked.append([found[key] for key in drawn.keys[state]])
        groups = {
            role: [
                _person(drawn, numbers, (looked[0], looked[1]), sights, people, vectors)
                for numbers in _by_person(drawn.shots, role)
            ]
            for role in dict.fromkeys(shot.role for shot in drawn.shots)
        }
    return GeneratorEvidence(drawn.generator, judge.recogniser.name, groups, vectors[1])


def _loader(drawn: Drawn, number: int, state: int) -> Callable[[], RgbImage]:
    return lambda: drawn.picture(number, state)


def _by_person(shots: Sequence[Shot], role: str) -> list[list[int]]:
    people: dict[int, list[int]] = {}
    for number, shot in enumerate(shots):
        if shot.role == role:
            people.setdefault(shot.photo.person, []).append(number)
    return list(people.values())


def _person(
    drawn: Drawn,
    numbers: list[int],
    looked: tuple[list[Sight], list[Sight]],
    sights: dict[Photo, Sight],
    people: tuple[People, People],
    vectors: list[list[Tensor]],
) -> PersonPictures:
    shots = [drawn.shots[number] for number in numbers]
    group = 0 if shots[0].role.startswith("target") else 1
    # People are numbered by folder; whoever has lost all photos leaves a gap.
    position = [person[0].person for person in people[group].photos].index(shots[0].photo.person)
    pictures = [[drawn.picture(number, state) for number in numbers] for state in (0, 1)]
    ratio, structure = likeness(pictures[0], pictures[1])
    photos = {shot.photo: n for n, shot in enumerate({shot.photo: shot for shot in shots}.values())}
    seen = [[column[number] for number in numbers] for column in looked]
    shows = [adherence(shots, pictures[state], [sight.landmarks for sight in seen[state]]) for state in (0, 1)]
    return PersonPictures(
        position=position if group else None,
        photos=vectors[group][position],
        own=torch.stack([sights[shot.photo].vector for shot in shots]),
        original=torch.stack([sight.vector for sight in seen[0]]),
        edited=torch.stack([sight.vector for sight in seen[1]]),
        photo_numbers=torch.tensor([photos[shot.photo] for shot in shots]),
        psnr=ratio,
        ssim=structure,
        edits=[shot.edit for shot in shots],
        adheres=torch.stack(shows, 1),
    )
