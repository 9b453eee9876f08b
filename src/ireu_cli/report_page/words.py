"""Put numbers, roles and outcomes into words."""

from collections.abc import Sequence

from ireu_cli.report import Figure, Unit, rounded

_NOTHING = 1e-9

ROLES = {
    "target-seen": "targets, used photos",
    "target-unseen": "targets, other photos",
    "look-alike": "look-alikes",
    "retained": "retained people",
    "null": "null images",
}
"""The roles' names on the page."""

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
"""Prefixes of the names of criteria and controls that are shares; the schema gives them no unit."""


def number(value: float, unit: Unit, *limits: float) -> str:
    """A value with its unit; a share as a percentage. A value is never rounded to 0, 1 or one of the limits."""
    ending = {"share": "\u00a0%", "dB": "\u00a0dB"}.get(unit, "")
    return _bare(value, unit, *limits) + ending


def span(figure: Figure) -> str | None:
    """The interval of a figure without its unit; None if there is none."""
    if figure.low is None or figure.high is None:
        return None
    return f"{_bare(figure.low, figure.unit)} to {_bare(figure.high, figure.unit)}"


def unit_of(name: str) -> Unit:
    """The unit of a criterion or control, by its name."""
    if name.startswith(_SHARES):
        return "share"
    return "dB" if "psnr" in name else "ratio"


def judged(value: float | None, unit: Unit, *limits: float) -> str:
    """The value of a criterion or control, or its limit; a value is never rounded to one of the limits."""
    if value is None:
        return "not measured"
    if unit != "ratio":
        return number(value, unit, *limits)
    if value == int(value):
        return f"{value:.0f}"
    return rounded(value, 3, *limits).rstrip("0").rstrip(".").replace("-", "\u2212")


def rate(value: float) -> str:
    """A false-match rate."""
    return f"{100 * value:.4g}\u00a0%"


def counted(count: int, singular: str, plural: str) -> str:
    """A count with its noun."""
    return f"{count} {singular if count == 1 else plural}"


def listing(names: Sequence[str]) -> str:
    """Names as a list in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def sentence(text: str) -> str:
    """Text with a capital at the beginning."""
    return text[:1].upper() + text[1:]


def place(generator: str | None) -> str:
    """The source of a figure: a generator's pictures, or the encoder's features."""
    return "Encoder features" if generator is None else f"Generator {generator}"


def _bare(value: float, unit: Unit, *limits: float) -> str:
    """A value without its unit; distances range from thousandths to hundreds."""
    if unit == "share":
        return _signed(100 * value, 1, 100.0, *(100 * limit for limit in limits))
    if unit == "distance":
        return _signed(value, 1 if abs(value) >= 10 else 4, *limits)
    return _signed(value, 1 if unit == "dB" else 3, *limits)


def _signed(value: float, digits: int, *limits: float) -> str:
    # Rounding errors around zero count as zero.
    text = f"{0:.{digits}f}" if abs(value) < _NOTHING else rounded(value, digits, *limits)
    return text.replace("-", "\u2212")
