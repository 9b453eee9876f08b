"""Pictures before and after: planned, drawn once, kept, and looked at."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.drawing.compare import adherence, likeness
from ireu_cli.drawing.embedded_judge import Judge, open_judge
from ireu_cli.drawing.jobs import Job, run_jobs
from ireu_cli.drawing.open_panel import open_panel
from ireu_cli.drawing.panel import Panel, Sight
from ireu_cli.drawing.shots import EDITS, Shot, nearest, plan_shots, prompt_of
from ireu_cli.encoders.families import family_of
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encoders.files.portrait import Bundle, find_bundle
from ireu_cli.errors import ConfigError
from ireu_cli.faces.folder import People
from ireu_cli.faces.read import PhotoReader
from ireu_cli.generators.generator import Generator, load_generators
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.measuring.drawn_evidence import STATES, GeneratorEvidence, PersonPictures
from ireu_cli.photos import Lens, among, photo_key
from ireu_cli.session import Session
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.values import Photo, RgbImage

_NO_SIGHT = Sight(None, ())


@dataclass(frozen=True)
class Show:
    """The generators of an encoder, with the bundle they come from, its own judges, and the panel that judges."""

    bundle: Bundle
    generators: tuple[Generator, ...]
    judge: Judge
    panel: Panel

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of all that decides pictures and judgements, beside encoders, photos and parameters."""
        return digest_of([self.bundle.prompt, EDITS, *(g.fingerprint for g in self.generators), self.panel.fingerprint])


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
        return self.caches[state].need(self.keys[state][number])


def open_show(session: Session, delta: Manifest) -> Show | None:
    """Load the generators that `pictures.generators` names; None where the encoder has none, or none is wanted.

    Raises:
        ConfigError: a generator or an edit that does not exist, or too few recognisers may judge the delta.
        ModelError: a part of the bundle cannot be loaded.
    """
    params, device = session.config.pictures, session.config.run.device
    source = session.config.encoder.source
    bundle = find_bundle(source)
    entries = () if bundle is None else bundle.entries(family_of(source, session.config.encoder.tap).taps)
    if bundle is None or not entries or params.generators == ("none",):
        return None
    names = [entry.name for entry in entries]
    for key, asked, known in (("generators", params.generators, ["all", *names]), ("edits", params.edits, [*EDITS])):
        if unknown := sorted(set(asked) - set(known)):
            raise ConfigError(f"pictures.{key} names {unknown[0]}, which does not exist", f"Use {', '.join(known)}")
    with session.timed("load_generators"):
        chosen = None if "all" in params.generators else params.generators
        wanted = load_generators(source, {entry.tap for entry in entries}, device, names=chosen)
        judge = open_judge(bundle, device)
        panel = open_panel(session, bundle, judge, delta)
    return Show(bundle, wanted, judge, panel)


@dataclass(frozen=True)
class Photos:
    """Photos of targets and retained people as the panel sees them.

    `sights` by photo; `vectors`: for each recogniser, for targets and retained people, unit vectors (k, d) a person of
    the photos that show a face.
    """

    people: tuple[People, People]
    sights: dict[Photo, Sight]
    vectors: tuple[tuple[list[Tensor], list[Tensor]], ...]

    def seen(self, photos: Sequence[Photo], recogniser: int, width: int) -> Tensor:
        """Unit vectors (n, width) of photos, NaN rows without a face."""
        rows = [s.vectors[recogniser] for photo in photos if (s := self.sights.get(photo)) is not None]
        return torch.stack(rows) if rows else torch.empty(0, width)


def look_at_photos(session: Session, panel: Panel, reader: PhotoReader, people: tuple[People, People]) -> Photos:
    """Let the panel look at every photo of targets and of retained people whom unlearning never used."""
    targets, retained = people
    sights = _look(session, panel, reader, [*targets.flat, *retained.flat])
    vectors = []
    for number in range(len(panel.recognisers)):
        first, second = ([_vectors(sights, person, number) for person in group.photos] for group in people)
        vectors.append((first, second))
    return Photos(people, sights, tuple(vectors))


def draw_all(
    session: Session,
    show: Show,
    delta: Manifest,
    encoders: tuple[ImageEncoder, ImageEncoder],
    photos: Photos,
    reader: PhotoReader,
) -> tuple[tuple[Drawn, ...], tuple[GeneratorEvidence, ...]]:
    """Draw with every generator, before and after, and gather what the panel sees.

    Args:
        session: the run.
        show: generators and panel.
        delta: the record of unlearning, which tells seen photos from unseen ones.
        encoders: the original and the edited one.
        photos: all photos of the targets, and of the retained people whom unlearning never used.
        reader: reads the photos.

    Raises:
        PhotoError: a photo changed since it was encoded.
    """
    seen, params = among(session, delta.targets), session.config.pictures
    # The first recogniser chooses who is alike: one choice, so that all judge the same pictures.
    readable = [group.where(photos.sights.__contains__).photos for group in photos.people]
    vectors = [[_vectors(photos.sights, person, 0) for person in group] for group in readable]
    alike = nearest(vectors[1], vectors[0], params.look_alikes)
    shots = plan_shots(readable[0], readable[1], alike, seen, params, session.config.seed)
    drawn = [_prepare(session, show, generator, encoders, reader, shots) for generator in show.generators]
    _draw(session, drawn)
    evidence = [one for plan in drawn for one in _judge(session, show, plan.drawn, photos)]
    return tuple(plan.drawn for plan in drawn), tuple(evidence)


@dataclass(frozen=True)
class _Plan:
    """What `_draw` needs to draw a shot in a state."""

    drawn: Drawn
    generator: Generator
    lenses: tuple[Lens, Lens]
    nulls: tuple[Tensor, Tensor]

    def jobs(self) -> list[Job]:
        """Every picture, before the edit and after."""
        return [self._job(n, state) for state in (0, 1) for n in range(len(self.drawn.shots))]

    def _job(self, number: int, state: int) -> Job:
        shot, prompt = self.drawn.shots[number], self.drawn.prompts[number]

        def make() -> RgbImage:
            features = self.lenses[state].features([shot.photo])
            return self.generator.draw(features, self.nulls[state], [prompt], [shot.seed])[0]

        return Job(self.drawn.caches[state], self.drawn.keys[state][number], make, self.generator.name)


def _look(session: Session, panel: Panel, reader: PhotoReader, photos: Sequence[Photo]) -> dict[Photo, Sight]:
    keys = {photo: photo_key(reader, photo) for photo in photos}

    def load(photo: Photo) -> Callable[[], RgbImage]:
        return lambda: reader.image(photo)

    with session.timed("judge"), session.talk.progress("looking at photos", len(keys)) as advance:
        found = panel.look([(key, load(photo)) for photo, key in keys.items()], lambda count: advance(count, ""))
    return {photo: found[key] for photo, key in keys.items() if key in found}


def _vectors(sights: dict[Photo, Sight], person: Sequence[Photo], recogniser: int) -> Tensor:
    """Unit vectors (k, d) of the photos that show a face, and of which the recogniser says something."""
    seen = [s.vectors[recogniser] for photo in person if (s := sights.get(photo, _NO_SIGHT)).landmarks is not None]
    rows = [row for row in seen if bool(torch.isfinite(row).all())]
    return torch.stack(rows) if rows else torch.empty(0, 0)


def _prepare(
    session: Session,
    show: Show,
    generator: Generator,
    encoders: tuple[ImageEncoder, ImageEncoder],
    reader: PhotoReader,
    shots: tuple[Shot, ...],
) -> _Plan:
    """Encode the photos at the tap that this generator reads, and name every picture."""
    lenses = (
        Lens(session, encoders[0], reader, generator.tap),
        Lens(session, encoders[1], reader, generator.tap),
    )
    items = list({shot.photo: lenses[0].item(shot.photo) for shot in shots}.values())
    for lens, state in zip(lenses, STATES, strict=True):
        lens.encode_items(items, "--targets or --retain", f"photos for generator {generator.name}, {state}")
    prompts = tuple(prompt_of(show.bundle.prompt, shot.edit) for shot in shots)
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
    nulls = (generator.null_of(encoders[0]), generator.null_of(encoders[1]))
    return _Plan(drawn, generator, lenses, nulls)


def _draw(session: Session, plans: Sequence[_Plan]) -> None:
    """Draw what is not there yet, and say beforehand how much that is and about how long it takes."""
    names = ", ".join(plan.generator.name for plan in plans)
    each = len(plans[0].drawn.shots) if plans else 0
    text = f"pictures: {each} before and {each} after with each generator ({names})"
    run_jobs(session, [job for plan in plans for job in plan.jobs()], text, "drawing")


def _judge(session: Session, show: Show, drawn: Drawn, photos: Photos) -> list[GeneratorEvidence]:
    """What each recogniser sees in the pictures of one generator."""
    looked = []
    with session.timed("judge"), session.talk.progress("looking at pictures", 2 * len(drawn.shots)) as advance:
        for state in (0, 1):
            items = [(drawn.keys[state][n], _loader(drawn, n, state)) for n in range(len(drawn.shots))]
            found = show.panel.look(items, lambda count: advance(count, ""))
            looked.append([found[key] for key in drawn.keys[state]])
        seen = (looked[0], looked[1])
        people = {role: _by_person(drawn.shots, role) for role in dict.fromkeys(shot.role for shot in drawn.shots)}
        compared = {role: [_compare(drawn, numbers, seen) for numbers in groups] for role, groups in people.items()}
    return [
        GeneratorEvidence(
            generator=drawn.generator,
            recogniser=name,
            groups={
                role: [
                    _person(drawn, numbers, seen, photos, compared[role][place], recogniser)
                    for place, numbers in enumerate(groups)
                ]
                for role, groups in people.items()
            },
            retained_photos=photos.vectors[recogniser][1],
            target_photos=photos.vectors[recogniser][0],
            first=recogniser == 0,
        )
        for recogniser, name in enumerate(show.panel.names)
    ]


def _loader(drawn: Drawn, number: int, state: int) -> Callable[[], RgbImage]:
    return lambda: drawn.picture(number, state)


def _by_person(shots: Sequence[Shot], role: str) -> list[list[int]]:
    people: dict[int, list[int]] = {}
    for number, shot in enumerate(shots):
        if shot.role == role:
            people.setdefault(shot.photo.person, []).append(number)
    return list(people.values())


@dataclass(frozen=True)
class _Compared:
    """What needs no recogniser: PSNR and SSIM (n,), adherence (n, 2), and whether there is a face (n, 2)."""

    psnr: Tensor
    ssim: Tensor
    adheres: Tensor
    found: Tensor


def _compare(drawn: Drawn, numbers: list[int], looked: tuple[list[Sight], list[Sight]]) -> _Compared:
    shots = [drawn.shots[number] for number in numbers]
    pictures = [[drawn.picture(number, state) for number in numbers] for state in (0, 1)]
    ratio, structure = likeness(pictures[0], pictures[1])
    shows = [
        adherence(shots, pictures[state], [looked[state][number].landmarks for number in numbers]) for state in (0, 1)
    ]
    found = torch.tensor([[column[number].landmarks is not None for column in looked] for number in numbers])
    return _Compared(ratio, structure, torch.stack(shows, 1), found)


def _person(
    drawn: Drawn,
    numbers: list[int],
    looked: tuple[list[Sight], list[Sight]],
    photos: Photos,
    compared: _Compared,
    recogniser: int,
) -> PersonPictures:
    shots = [drawn.shots[number] for number in numbers]
    group = 0 if shots[0].role.startswith("target") else 1
    # People are numbered by folder; whoever has lost all photos leaves a gap.
    position = [person[0].person for person in photos.people[group].photos].index(shots[0].photo.person)
    order = {shot.photo: n for n, shot in enumerate({shot.photo: shot for shot in shots}.values())}
    before, after = (torch.stack([column[number].vectors[recogniser] for number in numbers]) for column in looked)
    return PersonPictures(
        position=position if group else None,
        photos=photos.vectors[recogniser][group][position],
        own=torch.stack([photos.sights[shot.photo].vectors[recogniser] for shot in shots]),
        original=before,
        edited=after,
        photo_numbers=torch.tensor([order[shot.photo] for shot in shots]),
        psnr=compared.psnr,
        ssim=compared.ssim,
        edits=[shot.edit for shot in shots],
        adheres=compared.adheres,
        found=compared.found,
    )
