"""What attacks need: the run, both encoders, the attacked photos, and the means to disguise and encode photos."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.encodings.lens import Lens, steady
from ireu_cli.encodings.loop import Encodings, Item
from ireu_cli.faces.disguise import DISGUISE_VERSION, Disguise
from ireu_cli.faces.read import PhotoReader
from ireu_cli.faces.swap import Face
from ireu_cli.manifest import digest_of
from ireu_cli.params import Tap
from ireu_cli.session import Session
from ireu_cli.values import AnyLedger, Pair, Photo, RgbImage

AVERAGED = 5
"""The most photos of a person whose features the attack `average` averages."""
AVERAGE = "average"
Lenses = Pair[Lens]
"""The original and the edited encoder at one tap."""


@dataclass(frozen=True)
class Victim:
    """A photo to attack: `person` is the target's position, `same` another photo of them, `other` somebody else's."""

    person: int
    photo: Photo
    same: Photo
    other: Photo


Passed = dict[tuple[str, str, Victim], float]
"""For each recogniser, attack and victim: whether a gate lets the photo through, 1 or 0."""


@dataclass(frozen=True)
class AttackPlan:
    """Everything that attacks need: the run, both encoders, the reader, the victims, and all people."""

    session: Session
    encoders: Pair[ImageEncoder]
    reader: PhotoReader
    victims: tuple[Victim, ...]
    drawn: tuple[Victim, ...]
    everyone: tuple[tuple[Photo, ...], ...]
    others: tuple[Photo, ...]
    names: frozenset[str]
    ledger: AnyLedger | None = None
    noise: dict[tuple[str, int, tuple[Victim, ...]], Tensor] = field(default_factory=dict)
    """Cached noisy photos, by tap, strength and victims."""

    def lenses(self, tap: Tap | None = None) -> Lenses:
        """The two encoders at a tap; None: the configured one."""
        return Pair(*(Lens(self.session, encoder, self.reader, tap) for encoder in self.encoders))

    @property
    def encodings(self) -> Encodings:
        """The loop through which attacked photos and pictures pass."""
        return Encodings(self.session, self.reader)


def face_of(plan: AttackPlan, photo: Photo) -> Face:
    """Read a photo that was read before, with its landmarks; see `steady`."""
    return steady(photo, plan.reader.face, plan.session.name_of(photo))


@dataclass(frozen=True, slots=True)
class DisguisedPhoto(Item):
    """A victim's photo under a disguise; all three photos were read before. `names` is what messages call them."""

    victim: Victim
    change: Disguise
    names: tuple[str, str, str]

    def load(self, reader: PhotoReader, /) -> RgbImage:
        """See `Item` and `steady`."""
        trio = zip((self.victim.photo, self.victim.same, self.victim.other), self.names, strict=True)
        own, same, other = (steady(photo, reader.face, name) for photo, name in trio)
        return self.change.apply(own.image, own.points, same.image, other.image)


def disguised_item(plan: AttackPlan, victim: Victim, change: Disguise) -> DisguisedPhoto:
    """A victim's photo under a disguise, as something to look at."""
    trio = (victim.photo, victim.same, victim.other)
    key = digest_of(
        [
            DISGUISE_VERSION,
            change.name,
            plan.reader.name,
            plan.session.config.data.landmarks,
            *(photo.sha256 for photo in trio),
        ]
    )
    names = (plan.session.name_of(trio[0]), plan.session.name_of(trio[1]), plan.session.name_of(trio[2]))
    return DisguisedPhoto(key, f"{names[0]}, {change.name}", victim, change, names)


def encode_disguised(
    plan: AttackPlan, lens: Lens, victims: Sequence[Victim], disguises: Sequence[Disguise], label: str
) -> None:
    """Encode the unchanged photos, and the same photos under some disguises."""
    items = [disguised_item(plan, victim, change) for change in disguises for victim in victims]
    needed = {photo: None for v in victims for photo in plan.everyone[v.person][:AVERAGED]}
    plain = [lens.item(photo) for photo in dict.fromkeys([*(v.photo for v in victims), *needed])]
    lens.encode_items([*plain, *items], "--targets", label)


def attacked_features(plan: AttackPlan, lens: Lens, *, victim: Victim, attack: Disguise | str) -> Tensor:
    """Features (1, …, d) of a photo, unchanged, disguised, or averaged with others of the person; all are cached."""
    if attack == AVERAGE:
        return lens.features(plan.everyone[victim.person][:AVERAGED]).mean(0, keepdim=True)
    if isinstance(attack, str):
        return lens.features([victim.photo])
    return lens.cache.get([disguised_item(plan, victim, attack).key])


def decided_by(plan: AttackPlan, victim: Victim, attack: Disguise | str) -> list[str]:
    """Everything besides the photo that decides `attacked_features`."""
    if attack == AVERAGE:
        return [photo.sha256 for photo in plan.everyone[victim.person][:AVERAGED]]
    return [] if isinstance(attack, str) else [disguised_item(plan, victim, attack).key]


def by_person(victims: Sequence[Victim], values: Sequence[Tensor]) -> dict[int, Tensor]:
    """Join values of single photos, one tensor (1,) each, to one tensor (n,) a person."""
    people = dict.fromkeys(victim.person for victim in victims)
    return {
        person: torch.cat([value for victim, value in zip(victims, values, strict=True) if victim.person == person])
        for person in people
    }
