"""Image encoders that generators read and `ireu` does not edit, recognised by their tensors: EVA-CLIP."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import Tensor

_BLOCK = re.compile(r"blocks\.(\d+)\.")


@dataclass(frozen=True)
class Foreign:
    """A kind of encoder: its name, the tensors that only it has, its patch embedding, and its groups by size.

    Sizes are hidden width, blocks and patch; names are without any prefix.
    """

    kind: str
    marks: tuple[str, ...]
    patches: str
    groups: Mapping[tuple[int, int, int], str]


KINDS = (
    # baaivision/EVA, EVA-CLIP/rei/eva_clip/eva_vit_model.py: gated MLPs with a layer norm inside.
    Foreign(
        "EVA-CLIP vision transformer",
        ("blocks.0.mlp.w1.weight", "blocks.0.mlp.ffn_ln.weight"),
        "patch_embed.proj.weight",
        {(1024, 24, 14): "E"},
    ),
)


@dataclass(frozen=True)
class ForeignSizes:
    """One of those encoders in files: its kind, sizes and groups; `names` are its tensors without `prefix`."""

    kind: str
    hidden: int
    blocks: int
    patch: int
    groups: tuple[str, ...]
    prefix: str
    names: tuple[str, ...]


def foreign_kind(names: Collection[str]) -> tuple[Foreign, str] | None:
    """The kind of encoder that has tensors of these names, and the prefix of the names; None for other kinds.

    The encoder may lie in a whole model beside a text encoder, under a prefix such as `visual.`.
    """
    for foreign in KINDS:
        first = foreign.marks[0]
        for name in names:
            if name.endswith(first) and all(f"{name.removesuffix(first)}{mark}" in names for mark in foreign.marks):
                return foreign, name.removesuffix(first)
    return None


def foreign_sizes(tensors: Mapping[str, Tensor]) -> ForeignSizes | None:
    """Facts about such an encoder; None if the tensors are of another kind."""
    found = foreign_kind(tensors.keys())
    if found is None:
        return None
    foreign, prefix = found
    own = tuple(name.removeprefix(prefix) for name in tensors if name.startswith(prefix))
    hidden, _, patch, _ = tensors[f"{prefix}{foreign.patches}"].shape
    blocks = len({match[1] for name in own if (match := _BLOCK.match(name))})
    groups = foreign.groups.get((hidden, blocks, patch))
    return ForeignSizes(foreign.kind, hidden, blocks, patch, () if groups is None else (groups,), prefix, own)
