"""What the prompts can say: the edits of `ireu_cli.maths.images.edits` in several wordings."""

from __future__ import annotations

import torch

from ireu_cli.maths.images.edits import EDITS

NAMES = tuple(EDITS)
BASES = ("a photo of a face", "a portrait", "a face", "a portrait photo", "photo of a person", "")
WORDINGS: dict[str, tuple[str, ...]] = {
    "dark": ("dark", "in the dark", "low light"),
    "bright": ("bright", "bright light", "overexposed"),
    "black and white": ("black and white", "monochrome", "greyscale"),
    "sepia": ("sepia", "old sepia photo", "sepia toned"),
    "blurred": ("blurred", "out of focus", "blurry"),
    "close-up": ("close-up", "close up", "seen from near"),
    "wide": ("wide", "wide shot", "seen from afar"),
    "facing left": ("facing left", "looking left", "turned to the left"),
    "facing right": ("facing right", "looking right", "turned to the right"),
    "blue background": ("blue background", "in front of a blue wall", "blue backdrop"),
    "green background": ("green background", "in front of a green wall", "green backdrop"),
    "red background": ("red background", "in front of a red wall", "red backdrop"),
}


def caption(edits: list[str], g: torch.Generator) -> str:
    """A prompt that asks for these edits, in any order and wording."""

    def pick(choices: tuple[str, ...]) -> str:
        # The first wording is the one that the documentation teaches: half of the time.
        n = int(torch.randint(2 * len(choices), (1,), generator=g))
        return choices[n] if n < len(choices) else choices[0]

    order = torch.randperm(len(edits), generator=g).tolist()
    parts = [pick(BASES), *(pick(WORDINGS[edits[i]]) for i in order)]
    return ", ".join(part for part in parts if part)
