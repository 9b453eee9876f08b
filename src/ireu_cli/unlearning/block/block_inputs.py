"""The inputs of a block: every token of a sample of photos, in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks
from ireu_cli.encodings.lens import Lens
from ireu_cli.encodings.loop import Batch, Fold, Item
from ireu_cli.errors import CapacityError, PhotoError
from ireu_cli.session import Session
from ireu_cli.unlearning.block.one_block import Entering, States
from ireu_cli.unlearning.gated.changed_copies import views_of
from ireu_cli.unlearning.gated.checks import FEWEST
from ireu_cli.values import People, Photo

SAMPLED_AT_LEAST = 100
"""The fewest photos of retained people in a sample."""
_VALUES = 2**27
"""The most token values in memory at once, half a gigabyte; processing them takes several times as much."""


def room_for(encoder: HasBlocks) -> int:
    """The number of photos whose tokens may be in memory at once."""
    return max(SAMPLED_AT_LEAST, _VALUES // (encoder.tokens * encoder.width))


def sample_people(used: People, most: int, rng: torch.Generator) -> list[Photo]:
    """A limited number of photos of people in random order: up to eight a person, of people with two or more.

    Raises:
        CapacityError: there are too few of them.
    """
    several = [person[:8] for person in used.photos if len(person) > 1]
    order = torch.randperm(len(several), generator=rng)
    photos = [photo for i in order.tolist() for photo in several[i]][:most]
    if len(photos) < SAMPLED_AT_LEAST:
        raise CapacityError(
            f"{len(photos)} photos of retained people with two photos or more are too few to learn what tells people "
            "apart",
            "Add people with several photos each to the --retain folder",
        )
    return sorted(photos, key=lambda photo: (photo.person, photo.index))


def states_entering(lens: Lens, encoder: HasBlocks, items: Sequence[Item], block: int, label: str) -> Tensor:
    """The inputs of a block: float32 (n, tokens, d), on the CPU, for at least one item.

    Raises:
        PhotoError: a photo or a copy of it cannot be used.
    """
    found: list[Tensor] = []
    fold = Fold[Tensor](
        [lens.block_folder(block).name, "entering"],
        lambda _first: _Entering(encoder, block, []),
        lambda tensors: found.append(tensors["states"]),
    )
    lens.encodings.gather(lens.look, items, fold, label)
    return torch.cat(found)


@dataclass(frozen=True)
class _Entering:
    """The inputs of a block for the photos of a shard."""

    encoder: HasBlocks
    block: int
    found: list[Tensor]

    def add(self, batch: Batch[Tensor]) -> None:
        """See `Gathering`.

        Raises:
            PhotoError: a photo or a copy of it cannot be used.
        """
        if batch.unusable:
            raise PhotoError(
                f"A photo or a changed copy of it cannot be used ({next(iter(batch.unusable.values()))})",
                "Replace the photo, and run the step again",
            )
        self.found.append(self.encoder.entering(torch.cat(batch.prepared), self.block).float().cpu())

    def tensors(self) -> dict[str, Tensor]:
        """See `Gathering`: float32 (n, tokens, d)."""
        return {"states": torch.cat(self.found)}


def gather_states(
    session: Session, lens: Lens, encoder: HasBlocks, targets: People, retained: People, block: int
) -> Entering:
    """Pass all photos through the blocks before one. For a person with three or more photos, the last one is held out.

    Raises:
        PhotoError: a photo cannot be used and `data.bad_photos` is `error`.
        CapacityError: there are too few retained photos, or more target photos than fit into memory.
    """
    params = session.config.gated
    targets = lens.encode(targets, "--targets", "target photos")
    used = retained.flat
    order = torch.randperm(len(used), generator=session.random("block", "sample")).tolist()
    most = min(params.erase_photos, room_for(encoder))
    photos = lens.readable([used[i] for i in order], most, "--retain", "retained photos")
    if len(photos) < FEWEST:
        raise CapacityError(
            f"{len(photos)} photos of other people are too few to tell what people look like on average",
            "Add people to the --retain folder, or lower data.retain_holdout",
        )
    held = [person[-1] for person in targets.photos if len(person) > 2]
    kept_back = set(held)
    given = [photo for photo in targets.flat if photo not in kept_back]
    views = [(item, photo.person) for photo in given for item in views_of(lens, photo, params.copies)]
    if len(views) > room_for(encoder):
        raise CapacityError(
            f"{len(views)} target photos and copies are more than the {room_for(encoder)} that fit into memory",
            "Use fewer photos with --max-photos, or fewer copies with gated.copies",
        )

    def states(items: Sequence[Item], label: str) -> Tensor:
        return states_entering(lens, encoder, items, block, label)

    first = states([item for item, _ in views], "target photos and copies")
    last = states([lens.item(p) for p in held], "held-out photos") if held else first[:0]
    return Entering(
        States(first, tuple(person for _, person in views)),
        States(last, tuple(photo.person for photo in held)),
        states([lens.item(photo) for photo in photos], "retained photos, block"),
        encoder.entering(encoder.null_pixels(), block).float().cpu(),
    )
