"""The bypass suite: what somebody would try who wants a removed person back, and how often it works."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings import Item
from ireu_cli.errors import ConfigError
from ireu_cli.faces.disguise import DISGUISE_VERSION, DISGUISES, Disguise
from ireu_cli.faces.read import PhotoReader
from ireu_cli.faces.swap import Face
from ireu_cli.manifest import Manifest, digest_of
from ireu_cli.params import Tap
from ireu_cli.photos import Lens, among, steady
from ireu_cli.report import NO_ATTACK
from ireu_cli.session import Session
from ireu_cli.support.runtime import generator
from ireu_cli.values import GateLedger, Ledger, Photo, RgbImage

AVERAGED = 5
"""Photos of a person whose features the attack `average` averages."""
AVERAGE = "average"
SAMPLING = ("prompts", "seeds", "guidance", "scale")
GRADIENT = ("pgd", "pgd-detector", "pgd-generator", "relearn")
ATTACKS_TOLD = {
    NO_ATTACK: "The photo as it is.",
    AVERAGE: "Features of up to five photos of the person are averaged.",
    "prompt": "The prompt asks for an edit.",
    "seeds": "The generator draws with several noises, and the attacker takes the best picture.",
    "guidance": "The generator's guidance is halved or doubled.",
    "scale": "The adapter's scale is lowered or raised.",
    "pgd": "Noise, too small to see, brings the features near what the original encoder said.",
    "pgd-detector": "Noise, too small to see, hides the photo from the detectors that the edit wrote into the encoder.",
    "pgd-generator": "Noise of 8 / 255, found through the generator, makes it draw the person.",
    "relearn": "The edited encoder is fine-tuned for so many steps on photos of the person.",
}
"""What the attacks do that are no disguises, by their names without what they are tried with."""


@dataclass(frozen=True)
class Victim:
    """A photo to attack: `person` is the target's position, `same` another photo of that person, `other` somebody's."""

    person: int
    photo: Photo
    same: Photo
    other: Photo


Passed = dict[tuple[str, str, Victim], float]
"""By recogniser, attack and victim: whether a gate lets the photo through, 1 or 0."""


@dataclass(frozen=True)
class Siege:
    """All that attacks need: the run, both encoders, the reader, the victims, and who is who."""

    session: Session
    encoders: tuple[ImageEncoder, ImageEncoder]
    reader: PhotoReader
    victims: tuple[Victim, ...]
    drawn: tuple[Victim, ...]
    everyone: tuple[tuple[Photo, ...], ...]
    others: tuple[Photo, ...]
    names: frozenset[str]
    ledger: Ledger | GateLedger | None = None
    noise: dict[tuple[str, int, tuple[Victim, ...]], Tensor] = field(default_factory=dict)
    """Noisy photos that were found before, by tap, strength and victims."""

    def lenses(self, tap: Tap | None = None) -> tuple[Lens, Lens]:
        """The two encoders at a tap; None: the configured one."""
        first, second = self.encoders
        return Lens(self.session, first, self.reader, tap), Lens(self.session, second, self.reader, tap)

    def disguises(self) -> list[Disguise]:
        """The photo itself, then every disguise of the suite."""
        return [disguise for disguise in DISGUISES if disguise.name in self.names]


def known_attacks() -> list[str]:
    """Names that `attacks.suite` may hold, beside all and none."""
    return [*(disguise.name for disguise in DISGUISES), AVERAGE, *SAMPLING, *GRADIENT]


def plan_siege(
    session: Session,
    delta: Manifest,
    encoders: tuple[ImageEncoder, ImageEncoder],
    targets: Sequence[Sequence[Photo]],
    others: Sequence[Photo],
    reader: PhotoReader,
    ledger: Ledger | GateLedger | None = None,
) -> Siege | None:
    """Choose whom to attack with what; None where nothing is to be tried.

    Args:
        session: the run.
        delta: the record of unlearning, which tells seen photos from unseen ones.
        encoders: the original and the edited one.
        targets: usable photos of each target.
        others: usable photos of retained people.
        reader: reads the photos.
        ledger: the detectors that the edit is made of, where it has any.

    Raises:
        ConfigError: `attacks.suite` names an attack that does not exist.
    """
    params, known = session.config.attacks, known_attacks()
    if unknown := sorted(set(params.suite) - {"all", "none", *known}):
        raise ConfigError(f"attacks.suite names {unknown[0]}, which does not exist", f"Use {', '.join(known)}")
    names = frozenset(known if "all" in params.suite else set(params.suite) - {"none"})
    if not encoders[1].gives_gradients and names & set(GRADIENT):
        session.talk.note(
            f"not tried, as an ONNX network gives no gradients: {', '.join(sorted(names & set(GRADIENT)))}"
        )
        names -= set(GRADIENT)
    if not names or not others:
        return None
    used = among(session, delta.targets)
    victims = []
    for person, photos in enumerate(targets[: params.people]):
        ordered = sorted(photos, key=used)
        for place, photo in enumerate(ordered[: params.photos]):
            rng = generator(session.config.seed, "attacks", person, place)
            other = others[int(torch.randint(len(others), (1,), generator=rng))]
            victims.append(Victim(person, photo, ordered[(place + 1) % len(ordered)], other))
    drawn = [v for n, v in enumerate(victims) if sum(w.person == v.person for w in victims[:n]) < params.drawn]
    everyone = tuple(tuple(sorted(photos, key=used)) for photos in targets)
    siege = Siege(session, encoders, reader, tuple(victims), tuple(drawn), everyone, tuple(others), names, ledger)
    if idle := sorted(disguise.name for disguise in siege.disguises() if _is_idle(siege, disguise)):
        session.talk.note(f"not tried, as it leaves these photos as they are: {', '.join(idle)}")
    return replace(siege, names=names - set(idle))


def disguised(siege: Siege, victim: Victim, disguise: Disguise) -> RgbImage:
    """The victim's photo under a disguise."""
    face = face_of(siege, victim.photo)
    same, other = (face_of(siege, photo).image for photo in (victim.same, victim.other))
    return disguise.apply(face.image, face.points, same, other)


def face_of(siege: Siege, photo: Photo) -> Face:
    """A photo that was read before, and its landmarks; see `steady`."""
    return steady(siege.session, photo, siege.reader.face)


def _is_idle(siege: Siege, disguise: Disguise) -> bool:
    """Whether a front-end prepares every victim's photo as the encoder's own does: a square one is not squashed."""
    return disguise.family == "front-end" and all(
        np.array_equal(disguised(siege, victim, disguise), face_of(siege, victim.photo).image)
        for victim in siege.victims
    )


def disguise_key(siege: Siege, victim: Victim, disguise: Disguise) -> str:
    """Names the content of a disguised photo."""
    trio = [photo.sha256 for photo in (victim.photo, victim.same, victim.other)]
    return digest_of([DISGUISE_VERSION, disguise.name, siege.reader.name, siege.session.config.data.landmarks, *trio])


def encode_disguised(siege: Siege, lens: Lens, victims: Sequence[Victim], label: str) -> None:
    """Encode photos as they are, and under every disguise of the suite."""

    def load(victim: Victim, disguise: Disguise) -> Callable[[], RgbImage]:
        return lambda: disguised(siege, victim, disguise)

    items = [
        Item(disguise_key(siege, v, d), f"{siege.session.name_of(v.photo)}, {d.name}", load(v, d))
        for d in siege.disguises()
        for v in victims
    ]
    needed = {photo: None for v in victims for photo in siege.everyone[v.person][:AVERAGED]}
    plain = [lens.item(photo) for photo in dict.fromkeys([*(v.photo for v in victims), *needed])]
    lens.encode_items([*plain, *items], "--targets", label)


def attacked_features(siege: Siege, lens: Lens, *, victim: Victim, attack: Disguise | str) -> Tensor:
    """Features (1, …, d) of a photo as it is, disguised, or averaged with others of the person, all encoded before."""
    if attack == AVERAGE:
        return lens.features(siege.everyone[victim.person][:AVERAGED]).mean(0, keepdim=True)
    if isinstance(attack, str):
        return lens.features([victim.photo])
    return lens.cache.get([disguise_key(siege, victim, attack)])


def photo_attacks(siege: Siege) -> list[tuple[str, Disguise | str]]:
    """Names and ways of the attacks that change what the encoder is given, `none` first."""
    attacks: list[tuple[str, Disguise | str]] = [(NO_ATTACK, NO_ATTACK)]
    attacks += [(disguise.name, disguise) for disguise in siege.disguises()]
    return [*attacks, (AVERAGE, AVERAGE)] if AVERAGE in siege.names else attacks


def by_person(victims: Sequence[Victim], values: Sequence[Tensor]) -> dict[int, Tensor]:
    """Join values of single photos, one tensor (1,) each, to one tensor (n,) a person."""
    people = dict.fromkeys(victim.person for victim in victims)
    return {
        person: torch.cat([value for victim, value in zip(victims, values, strict=True) if victim.person == person])
        for person in people
    }
