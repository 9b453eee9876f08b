"""An attack: its name, its meaning, and how it is tried on features and on pictures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.attacks.plan import AttackPlan, Lenses, Victim
from ireu_cli.attacks.success import FeatureMatcher, Tried
from ireu_cli.drawing.show import Show
from ireu_cli.encodings.lens import Lens
from ireu_cli.faces.disguise import Disguise
from ireu_cli.generators.generator import Generator


@dataclass(frozen=True)
class Drive:
    """How a generator draws one picture under attack, before the edit and after it.

    Attributes:
        attack: the name in figures. Pictures with the same name and victim are pooled, and one match is enough.
        victim: the photo's owner.
        generator: the generator with its settings for drawing.
        edit: the edit in the prompt, if any.
        seed: seed of the noise.
        given: the features (1, …, d) that the generator gets instead of the photo's.
        content: everything besides the photo that decides these features, for the key of kept pictures.
    """

    attack: str
    victim: Victim
    generator: Generator
    edit: str | None
    seed: int
    given: Callable[[Lens], Tensor]
    content: Sequence[object] = ()


def seed_of(plan: AttackPlan, victim: Victim, number: int) -> int:
    """The seed of a victim's noise; attacks that do not change the noise use the first one."""
    rng = plan.session.random("attacks", "noise", victim.person, victim.photo.index)
    return int(torch.randint(2**31, (number + 1,), generator=rng)[-1])


@dataclass(frozen=True)
class Attack:
    """Something that somebody could try who wants a removed person back. To add one, write a row in `suite`.

    Attributes:
        name: its name in `attacks.suite`.
        meaning: what it does, as one sentence of the report.
        shown: the beginning of its figures' names if it is not `name`; a number or an edit may follow.
        white_box: whether the attacker needs the files of the original or the edited encoder, or features of the
            person. Such an attack is reported but not judged.
        needs_gradients: whether it works only on encoders that give gradients.
        photo: a disguise of the photo, or `AVERAGE`; then only the encoder's input changes.
        features: tries it on features, before the edit and after it.
        pictures: tries it on a generator's pictures.
    """

    name: str
    meaning: str
    shown: str | None = None
    white_box: bool = False
    needs_gradients: bool = False
    photo: Disguise | str | None = None
    features: Callable[[AttackPlan, Lenses, FeatureMatcher], Iterable[Tried]] | None = None
    pictures: Callable[[AttackPlan, Show, Generator, Lenses], Iterable[Drive]] | None = None

    @property
    def shown_as(self) -> str:
        """The beginning of its figures' names."""
        return self.shown or self.name
