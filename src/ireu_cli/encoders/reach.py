"""Which weights an edit may change, and which taps change with them.

A CLIP vision transformer computes embeddings -> pre_layrnorm -> blocks 0 … L-1 -> post_layernorm(CLS) -> projection.
SigLIP's computes embeddings -> blocks 0 … L-1 -> post_layernorm(all tokens) -> pooling head. DINOv2's does the same
without a head; its tensors are given here under the names that CLIP would give them. EVA02-CLIP's has CLIP's order,
with no layer norm before the blocks. `penultimate` is the output of block L-2, so nothing from block L-1 on can change
it. `block-N` is what enters block N: blocks before N change it, and so does what comes before all blocks.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ireu_cli.errors import ConfigError
from ireu_cli.layouts import layout
from ireu_cli.params import Tap, depth_of, has_depths, parts_of


@dataclass(frozen=True)
class Anatomy:
    """The order in which a kind of vision transformer computes.

    `taps` come one after another. For each part that is not a block: the prefix of its tensors' names, and the number
    of the first tap that it changes.
    """

    kind: str
    taps: tuple[Tap, ...]
    parts: Mapping[str, str | tuple[str, ...]]
    first_tap: Mapping[str, int]
    has_class_token: bool
    """Whether the pooled vector is a class token after a layer norm; otherwise a head makes it from all tokens."""
    model_class: str
    processor_class: str
    family: str
    """How `layouts` call this kind of encoder."""
    block: str = "vision_model.encoder.layers."
    """What stands before a block's number in the names of its tensors."""

    @property
    def whole(self) -> Tap:
        """The tap that describes the whole picture in one vector, the one that is compared with text."""
        return self.taps[-1]

    def block_of(self, name: str) -> int | None:
        """The number of the block that a tensor belongs to; None if it belongs to no block."""
        number, _, rest = name.removeprefix(self.block).partition(".")
        return int(number) if name.startswith(self.block) and rest and number.isdecimal() else None


TRANSFORMER = Anatomy(
    "CLIP vision transformer",
    ("penultimate", "last", "pooled", "image_embeds"),
    {
        "embeddings": "vision_model.embeddings.",
        "pre_layernorm": "vision_model.pre_layrnorm.",
        "post_layernorm": "vision_model.post_layernorm.",
        "projection": "visual_projection.",
    },
    {"embeddings": 0, "pre_layernorm": 0, "post_layernorm": 2, "projection": 3},
    True,
    "CLIPVisionModelWithProjection",
    "CLIPImageProcessor",
    layout.CLIP,
)
BARE = Anatomy(
    "CLIP vision transformer without projection",
    TRANSFORMER.taps[:-1],
    {part: start for part, start in TRANSFORMER.parts.items() if part != "projection"},
    {part: tap for part, tap in TRANSFORMER.first_tap.items() if part != "projection"},
    True,
    "CLIPVisionModel",
    "CLIPImageProcessor",
    layout.BARE,
)
SIGLIP = Anatomy(
    "SigLIP vision transformer",
    ("penultimate", "last", "pooled"),
    {
        "embeddings": "vision_model.embeddings.",
        "post_layernorm": "vision_model.post_layernorm.",
        "head": "vision_model.head.",
    },
    {"embeddings": 0, "post_layernorm": 1, "head": 2},
    False,
    "SiglipVisionModel",
    "SiglipImageProcessor",
    layout.SIGLIP,
)
EVA = Anatomy(
    "EVA02-CLIP vision transformer",
    TRANSFORMER.taps,
    {
        "embeddings": ("patch_embed.", "cls_token", "pos_embed"),
        "post_layernorm": "norm.",
        "projection": "head.",
    },
    {"embeddings": 0, "post_layernorm": 2, "projection": 3},
    True,
    "EVAVisionTransformer",
    "CLIPImageProcessor",
    layout.EVA,
    "blocks.",
)

DINOV2 = Anatomy(
    "DINOv2 vision transformer",
    ("penultimate", "last", "pooled"),
    {"embeddings": "vision_model.embeddings.", "post_layernorm": "vision_model.post_layernorm."},
    {"embeddings": 0, "post_layernorm": 1},
    True,
    "Dinov2Model",
    "BitImageProcessor",
    layout.DINOV2,
)


@dataclass(frozen=True)
class Reach:
    """The taps that an edit of some weights changes and those that it does not; `systems` says who reads them.

    `depths` are the N of the taps `block-N` that change; `taps` and `missed` only list taps with a name of their own.
    """

    taps: tuple[Tap, ...]
    missed: tuple[Tap, ...]
    depths: range = range(0)

    def includes(self, tap: Tap) -> bool:
        """Whether the edit changes a tap, and all its parts where it joins several."""
        return not self._left(tap)

    def changes(self, tap: Tap) -> bool:
        """Whether the edit changes a part of the tap at least."""
        return self._left(tap) != parts_of(tap)

    def _left(self, tap: Tap) -> tuple[Tap, ...]:
        parts = ((part, depth_of(part)) for part in parts_of(tap))
        return tuple(part for part, n in parts if part not in self.taps and (n is None or n not in self.depths))

    def parts(self, tap: Tap) -> tuple[str, ...]:
        """A sentence that says which parts of a tap change and which do not; none for taps that `sentence` names."""
        if not has_depths(tap):
            return ()
        left = self._left(tap)
        changed = [part for part in parts_of(tap) if part not in left]
        if not left:
            return (f"The edit changes everything that is read at {tap}",)
        if not changed:
            return (f"The edit does NOT change anything that is read at {tap}",)
        return (
            f"Of what is read at {tap}, the edit changes {', '.join(changed)}. It does NOT change {', '.join(left)}",
        )

    def sentence(self) -> str:
        """Say it in words, for the user before the work starts."""
        changed = ", ".join(self.taps)
        if not self.missed:
            return f"The edit changes every tap: {changed}"
        return f"The edit changes {changed or 'no tap'}. It does NOT reach {', '.join(self.missed)}"


def reach_of(
    names: Iterable[str], blocks: int, anatomy: Anatomy = TRANSFORMER, *, class_token_only: bool = False
) -> Reach:
    """The taps that change when the named weights change.

    Args:
        names: tensor names of the encoder.
        blocks: number of transformer blocks L.
        anatomy: the anatomy of its kind.
        class_token_only: the last block's change moves only the class token. Then `last` does not count as reached,
            because all its tokens are read.
    """
    names = list(names)
    first = min((_first_tap(name, blocks, anatomy) for name in names), default=len(anatomy.taps))
    depth = min((_first_depth(name, blocks, anatomy) for name in names), default=blocks)
    if class_token_only:
        first, depth = max(first, anatomy.taps.index("pooled")), blocks
    return Reach(anatomy.taps[first:], anatomy.taps[:first], range(depth, blocks))


def sites_of(blocks: int, anatomy: Anatomy) -> dict[str, tuple[Tap, ...]]:
    """For each part of an encoder whose weights an edit may change, the taps that change with it."""
    first = {f"blocks 0 to {blocks - 2}": int(blocks == 1), f"block {blocks - 1}": 1}
    # What comes before the blocks changes what they do.
    first |= {part: start for part, start in anatomy.first_tap.items() if start}
    return {part: anatomy.taps[start:] for part, start in first.items()}


def select_weights(
    names: Iterable[str], layers: str, blocks: int, tap: Tap, anatomy: Anatomy = TRANSFORMER
) -> list[str]:
    """List the weights that `layers` names and that can change `tap`.

    Args:
        names: all tensor names of the encoder.
        layers: `all`, or a comma-separated list of block:N, blocks:A-B and parts of the anatomy, such as embeddings or
            post_layernorm. Negative N counts from the last block.
        blocks: number of transformer blocks L.
        tap: the tensor that the generator reads.
        anatomy: the anatomy of the encoder's kind.

    Raises:
        ConfigError: a part does not exist, or none of the parts reaches the tap.
    """
    names = sorted(names)
    chosen: set[str] = set()
    for part in (piece.strip() for piece in layers.split(",")):
        chosen |= {name for name in names if _belongs(name, part, blocks, anatomy)}
    reaching = [name for name in sorted(chosen) if reach_of([name], blocks, anatomy).changes(tap)]
    if not reaching:
        reach = reach_of(chosen, blocks, anatomy)
        raise ConfigError(
            f"Training {layers} cannot change {tap}: it only reaches {', '.join(reach.taps) or 'no tap'}",
            f"Choose layers before the tap, such as {_before(tap, blocks)}",
        )
    return reaching


def _before(tap: Tap, blocks: int) -> str:
    """Layers that change a tap: all blocks before the last part that it reads."""
    depths = [depth for depth in map(depth_of, parts_of(tap)) if depth is not None]
    last = max(depths) if len(depths) == len(parts_of(tap)) else blocks - 1
    return f"blocks:0-{last - 1}" if last else "embeddings"


def _first_tap(name: str, blocks: int, anatomy: Anatomy) -> int:
    if (number := anatomy.block_of(name)) is not None:
        return 0 if number < blocks - 1 else 1
    found = (anatomy.first_tap[part] for part, start in anatomy.parts.items() if name.startswith(start))
    return next(found, len(anatomy.taps))


def _first_depth(name: str, blocks: int, anatomy: Anatomy) -> int:
    """The first N whose `block-N` changes; the number of blocks if none does."""
    if (number := anatomy.block_of(name)) is not None:
        return min(number + 1, blocks)
    # What comes before the blocks changes what enters all of them.
    return 0 if _first_tap(name, blocks, anatomy) == 0 else blocks


def _belongs(name: str, part: str, blocks: int, anatomy: Anatomy) -> bool:
    if part == "all":
        return True
    if part in anatomy.parts:
        return name.startswith(anatomy.parts[part])
    wanted = block_range(part, blocks, anatomy.parts)
    return anatomy.block_of(name) in wanted


def block_range(part: str, blocks: int, others: Iterable[str], whole: str = "encoder", piece: str = "blocks") -> range:
    """The blocks that `block:N` or `blocks:A-B` stands for; a negative N counts from the last one.

    Args:
        part: the text.
        blocks: how many blocks there are.
        others: what else it could be, for the message; so are the words for the whole and for its blocks.
        whole: what has the blocks.
        piece: what they are called there.

    Raises:
        ConfigError: it is no such text, or there are no such blocks.
    """
    single, several = re.fullmatch(r"block:(-?\d+)", part), re.fullmatch(r"blocks:(\d+)-(\d+)", part)
    if single:
        first = last = int(single[1]) + (blocks if int(single[1]) < 0 else 0)
    elif several:
        first, last = int(several[1]), int(several[2])
    else:
        raise ConfigError(
            f"unlearn.layers names {part!r}, which is not a part of the {whole}",
            f"Use all, {', '.join(others)}, block:N or blocks:A-B",
        )
    if not 0 <= first <= last < blocks:
        raise ConfigError(
            f"unlearn.layers names {part}, but the {whole}'s {piece} are 0 to {blocks - 1}",
            f"Name {piece} that exist",
        )
    return range(first, last + 1)
