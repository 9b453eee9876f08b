"""Which weights an edit may change, which taps that reaches, and who reads those taps.

A CLIP vision transformer computes embeddings -> pre_layrnorm -> blocks 0 … L-1 -> post_layernorm(CLS) -> projection.
`penultimate` is the output of block L-2, so nothing from block L-1 on can change it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ireu_cli.errors import ConfigError
from ireu_cli.params import Tap

TAPS: tuple[Tap, ...] = ("penultimate", "last", "pooled", "image_embeds")

READERS: dict[Tap, tuple[str, ...]] = {
    "image_embeds": (
        "IP-Adapter base (SD1.5, SDXL)",
        "FLUX IP-Adapter",
        "FastComposer",
        "PhotoMaker v1 (through its projections)",
    ),
    "pooled": ("PhotoMaker v1", "FastComposer"),
    "penultimate": (
        "IP-Adapter Plus, Plus-Face, Full-Face",
        "IP-Adapter FaceID-Plus",
        "ConsistentID",
        "HyperLoRA",
        "Kolors IP-Adapter-Plus",
    ),
    "last": ("PhotoMaker v2",),
    "embedding": ("InstantID", "PuLID", "ConsisID", "PhotoMaker v2", "Kolors FaceID"),
    "normed_embedding": ("IP-Adapter FaceID", "IP-Adapter FaceID-Plus", "ConsistentID", "HyperLoRA"),
}
"""Generators by the tap they read from an encoder. Having the tap reached is not yet having the system
covered: some read a second encoder too."""

_BLOCK = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.")
_PARTS = {
    "embeddings": ("vision_model.embeddings.",),
    "pre_layernorm": ("vision_model.pre_layrnorm.",),
    "post_layernorm": ("vision_model.post_layernorm.",),
    "projection": ("visual_projection.",),
}
_FIRST_TAP = {"embeddings": 0, "pre_layernorm": 0, "post_layernorm": 2, "projection": 3}


@dataclass(frozen=True)
class Reach:
    """What an edit of some weights changes."""

    taps: tuple[Tap, ...]
    missed: tuple[Tap, ...]

    def sentence(self) -> str:
        """Say it in words, for the user to read before the work starts."""
        changed = "; ".join(f"{tap} ({', '.join(READERS[tap])})" for tap in self.taps) or "no tap"
        if not self.missed:
            return f"The edit changes every tap. Generators that mount this encoder and read them: {changed}"
        unchanged = "; ".join(f"{tap} ({', '.join(READERS[tap])})" for tap in self.missed)
        return f"The edit changes {changed}. It does NOT reach {unchanged}"


def reach_of(names: Iterable[str], blocks: int, *, class_token_only: bool = False) -> Reach:
    """State which taps change when the named weights change.

    Args:
        names: tensor names of a `CLIPVisionModelWithProjection`.
        blocks: number of transformer blocks L.
        class_token_only: the change of the last block moves its class token alone, so that `last`, which is read with
            all its tokens, does not count as reached.
    """
    first = min((_first_tap(name, blocks) for name in names), default=len(TAPS))
    if class_token_only:
        first = max(first, TAPS.index("pooled"))
    return Reach(TAPS[first:], TAPS[:first])


def select_weights(names: Iterable[str], layers: str, blocks: int, tap: Tap) -> list[str]:
    """List the weights that `layers` names and that can change `tap`.

    Args:
        names: all tensor names of the encoder.
        layers: `all`, or a comma-separated list of embeddings, pre_layernorm, block:N, blocks:A-B, post_layernorm,
            projection. Negative N counts from the last block.
        blocks: number of transformer blocks L.
        tap: the tensor that the generator reads.

    Raises:
        ConfigError: a part that does not exist, or parts none of which reaches the tap.
    """
    names = sorted(names)
    chosen: set[str] = set()
    for part in (piece.strip() for piece in layers.split(",")):
        chosen |= {name for name in names if _belongs(name, part, blocks)}
    reaching = [name for name in sorted(chosen) if _first_tap(name, blocks) <= TAPS.index(tap)]
    if not reaching:
        reach = reach_of(chosen, blocks)
        raise ConfigError(
            f"Training {layers} cannot change {tap}: it reaches {', '.join(reach.taps) or 'no tap'} only",
            f"Choose layers before the tap, such as blocks:0-{blocks - 2}",
        )
    return reaching


def _first_tap(name: str, blocks: int) -> int:
    if match := _BLOCK.match(name):
        return 0 if int(match[1]) < blocks - 1 else 1
    return next((_FIRST_TAP[part] for part, starts in _PARTS.items() if name.startswith(starts)), len(TAPS))


def _belongs(name: str, part: str, blocks: int) -> bool:
    if part == "all":
        return True
    if part in _PARTS:
        return name.startswith(_PARTS[part])
    wanted = _block_range(part, blocks)
    match = _BLOCK.match(name)
    return match is not None and int(match[1]) in wanted


def _block_range(part: str, blocks: int) -> range:
    single, several = re.fullmatch(r"block:(-?\d+)", part), re.fullmatch(r"blocks:(\d+)-(\d+)", part)
    if single:
        first = last = int(single[1]) + (blocks if int(single[1]) < 0 else 0)
    elif several:
        first, last = int(several[1]), int(several[2])
    else:
        raise ConfigError(
            f"unlearn.layers names {part!r}, which is no part of the encoder",
            f"Use all, {', '.join(_PARTS)}, block:N or blocks:A-B",
        )
    if not 0 <= first <= last < blocks:
        raise ConfigError(
            f"unlearn.layers names {part}, but the encoder's blocks are 0 to {blocks - 1}", "Name blocks that exist"
        )
    return range(first, last + 1)
