"""What figures mean, in words."""

from collections.abc import Sequence

from ireu_cli.attacks.success import ATTACK_DEFINITIONS
from ireu_cli.attacks.suite import meaning_of
from ireu_cli.report import (
    Definition,
    Figure,
)
from ireu_cli.verifying.figures import DEFINITIONS
from ireu_cli.verifying.pictures.distance_figures import QUALITY_DEFINITIONS
from ireu_cli.verifying.pictures.picture_figures import PICTURE_DEFINITIONS
from ireu_cli.verifying.rival.rival_figures import GATE_DEFINITIONS

ALL_DEFINITIONS = PICTURE_DEFINITIONS | DEFINITIONS | ATTACK_DEFINITIONS | GATE_DEFINITIONS | QUALITY_DEFINITIONS
"""By the name of a figure."""


def attacks_told(figures: Sequence[Figure]) -> dict[str, Definition]:
    """What each attack does, by its name in figures."""
    return {
        attack: Definition(text=text, unit="share", reference="photos of attacked targets")
        for attack in attacks_tried(figures)
        if (text := meaning_of(attack)) is not None
    }


def attacks_tried(figures: Sequence[Figure]) -> list[str]:
    """The attacks that have figures."""
    return sorted({figure.attack for figure in figures if figure.attack is not None})
