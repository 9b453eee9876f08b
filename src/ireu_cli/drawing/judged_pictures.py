"""Pictures that were drawn, and what the judges see in them before and after the edit."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.drawing.compare import adherence, likeness
from ireu_cli.drawing.jobs import DrawnPicture
from ireu_cli.drawing.panel import Sight
from ireu_cli.drawing.seen_photos import Photos
from ireu_cli.drawing.shots import Shot
from ireu_cli.drawing.show import Show
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence, PersonPictures
from ireu_cli.store.picture_cache import PictureCache
from ireu_cli.values import Pair, RgbImage


@dataclass(frozen=True)
class Drawn:
    """The pictures of one generator: the shots, and the folder of their pictures; `state` is 0 before, 1 after."""

    generator: str
    shots: tuple[Shot, ...]
    prompts: tuple[str, ...]
    keys: Pair[tuple[str, ...]]
    caches: Pair[PictureCache]

    def picture(self, number: int, state: int) -> RgbImage:
        """The picture of a shot; it must have been drawn."""
        return self.caches[state].need(self.keys[state][number])

    def items(self, state: int, numbers: Sequence[int]) -> list[DrawnPicture]:
        """Pictures of shots as something to look at."""
        cache, keys = self.caches[state], self.keys[state]
        return [DrawnPicture(keys[n], f"picture {n + 1} of generator {self.generator}", cache) for n in numbers]


def judge_pictures(show: Show, drawn: Drawn, photos: Photos) -> list[GeneratorEvidence]:
    """The vectors of each recogniser for the pictures of one generator."""
    every, encodings = range(len(drawn.shots)), photos.encodings
    items = [drawn.items(state, every) for state in (0, 1)]
    found = show.panel.look(encodings, [*items[0], *items[1]], "looking at pictures")
    seen = Pair(*([found[item.key] for item in side] for side in items))
    people = {role: _by_person(drawn.shots, role) for role in dict.fromkeys(shot.role for shot in drawn.shots)}
    with encodings.session.timed("judge"):
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
            retained_photos=photos.vectors[recogniser].retained,
            target_photos=photos.vectors[recogniser].targets,
            first=recogniser == 0,
        )
        for recogniser, name in enumerate(show.panel.names)
    ]


def _by_person(shots: Sequence[Shot], role: str) -> list[list[int]]:
    people: dict[int, list[int]] = {}
    for number, shot in enumerate(shots):
        if shot.role == role:
            people.setdefault(shot.photo.person, []).append(number)
    return list(people.values())


@dataclass(frozen=True)
class _Compared:
    """Measures that need no recogniser: PSNR and SSIM (n,), adherence (n, 2), and whether there is a face (n, 2)."""

    psnr: Tensor
    ssim: Tensor
    adheres: Tensor
    found: Tensor


def _compare(drawn: Drawn, numbers: list[int], looked: Pair[list[Sight]]) -> _Compared:
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
    looked: Pair[list[Sight]],
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
