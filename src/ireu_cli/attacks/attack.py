"""What an attack is: a name, what it does, and how it is tried in features and in pictures."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ireu_cli.attacks.siege import Lenses, Siege, Victim
from ireu_cli.attacks.success import FeatureMatcher, Tried
from ireu_cli.drawing.show import Show
from ireu_cli.encodings.lens import Lens
from ireu_cli.faces.disguise import Disguise
from ireu_cli.generators.generator import Generator


@dataclass(frozen=True)
class Drive:
    """How a generator is driven for one picture under attack, before the edit and after it.

    Attributes:
        attack: the name that figures have; pictures of one name and victim are pooled, and one that matches suffices.
        victim: whose photo it is.
        generator: with the settings that it draws with.
        edit: that the prompt asks for, if any.
        seed: of the noise.
        given: the features (1, …, d) that the generator is given instead of the photo's.
        content: what decides them beside the photo itself, for whoever keeps pictures.
    """

    attack: str
    victim: Victim
    generator: Generator
    edit: str | None
    seed: int
    given: Callable[[Lens], Tensor]
    content: Sequence[object] = ()


@dataclass(frozen=True)
class Attack:
    """Something that somebody would try who wants a removed person back. To add one, write a row in `suite`.

    Attributes:
        name: what `attacks.suite` calls it.
        meaning: what is done, as one sentence of the report.
        shown: how the names of its figures begin, where not as `name`; a number or an edit may follow.
        white_box: whether one has to hold the original encoder, or what it said of the person, so that it is reported
            and not judged.
        needs_gradients: whether it can be tried only on encoders that give gradients.
        photo: a disguise of the photo, or `AVERAGE`: what the encoder is given is then all that changes.
        features: tries it on features, before the edit and after it.
        pictures: tries it on what a generator draws.
    """

    name: str
    meaning: str
    shown: str | None = None
    white_box: bool = False
    needs_gradients: bool = False
    photo: Disguise | str | None = None
    features: Callable[[Siege, Lenses, FeatureMatcher], Iterable[Tried]] | None = None
    pictures: Callable[[Siege, Show, Generator, Lenses], Iterable[Drive]] | None = None

    @property
    def shown_as(self) -> str:
        """How the names of its figures begin."""
        return self.shown or self.name
