"""How numbers, roles and outcomes are put into words."""

from collections.abc import Sequence

from ireu_cli.report import Figure, Unit

ROLES = {
    "target-seen": "targets, used photos",
    "target-unseen": "targets, other photos",
    "look-alike": "look-alikes",
    "retained": "retained people",
    "null": "null images",
}
"""What the page calls the roles."""

STATES = {"original": "before", "edited": "after", "change": "change"}

_SHARES = (
    "match_",
    "reidentified",
    "target_faces",
    "retained_faces",
    "adherence_drop",
    "attacks",
    "attack_success",
    "original_shows_target",
    "original_draws",
    "photos_show_faces",
    "no_op_fails",
    "other_person_fails",
    "tells_people_apart",
)
"""Beginnings of the names of criteria and controls on shares; the schema gives them no unit."""


def number(value: float, unit: Unit) -> str:
    """A value in its unit; a share as a percentage."""
    if unit == "share":
        return f"{_signed(100 * value, 1)}\u00a0%"
    return f"{_signed(value, 1)}\u00a0dB" if unit == "dB" else _signed(value, 3)


def span(figure: Figure) -> str | None:
    """The interval of a figure without its unit; None where there is none."""
    if figure.low is None or figure.high is None:
        return None
    scale, digits = {"share": (100, 1), "dB": (1, 1)}.get(figure.unit, (1, 3))
    return f"{_signed(scale * figure.low, digits)} to {_signed(scale * figure.high, digits)}"


def unit_of(name: str) -> Unit:
    """The unit of a criterion or control, by its name."""
    if name.startswith(_SHARES):
        return "share"
    return "dB" if "psnr" in name else "ratio"


def judged(value: float | None, unit: Unit) -> str:
    """What a criterion or control found or needs."""
    if value is None:
        return "not measured"
    if unit != "ratio":
        return number(value, unit)
    return f"{value:.0f}" if value == int(value) else f"{value:.3f}".rstrip("0").rstrip(".").replace("-", "\u2212")


def rate(value: float) -> str:
    """A false-match rate."""
    return f"{100 * value:.4g}\u00a0%"


def counted(count: int, singular: str, plural: str) -> str:
    """A count with its noun."""
    return f"{count} {singular if count == 1 else plural}"


def listing(names: Sequence[str]) -> str:
    """Names as they stand in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def sentence(text: str) -> str:
    """Text that begins with a capital."""
    return text[:1].upper() + text[1:]


def place(generator: str | None) -> str:
    """Where a figure was taken: a generator's pictures, or the encoder's features."""
    return "Encoder features" if generator is None else f"Generator {generator}"


def _signed(value: float, digits: int) -> str:
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "\u2212")
