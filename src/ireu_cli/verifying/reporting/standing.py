"""The words for an outcome: a pass on features alone is not a full pass."""

from collections.abc import Sequence

from ireu_cli.report import Departure, Outcome

_WORDS = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}


def standing(
    outcome: Outcome,
    drawn: Sequence[str],
    covered: Sequence[str],
    attacked: Sequence[str | None],
    departures: Sequence[Departure],
) -> tuple[str, tuple[str, ...]]:
    """Name an outcome, and what it does not rest on.

    Args:
        outcome: outcome of the run.
        drawn: generators whose pictures were judged.
        covered: generators of the encoder that the edit reaches.
        attacked: generators whose pictures were attacked, None for features.
        departures: settings that are not the default.

    Returns:
        Words such as "passed on features alone, without attacks", and the gaps behind them: `pictures`, `attacks`,
        `generator NAME`, `attacks on generator NAME`, `default limits`.
    """
    gaps, words = [], []
    missing = [name for name in covered if name not in drawn]
    if not drawn:
        gaps.append("pictures")
        words.append("on features alone")
    if drawn and missing:
        gaps += [f"generator {name}" for name in missing]
        words.append(f"without pictures of generator {' and '.join(missing)}, which the edit reaches")
    calm = [name for name in drawn if name not in attacked]
    if not attacked:
        gaps.append("attacks")
        words.append("without attacks")
    elif calm:
        gaps += [f"attacks on generator {name}" for name in calm]
        words.append(f"with no attack on pictures of generator {' and '.join(calm)}")
    if any(one.effect == "weaker" for one in departures):
        gaps.append("default limits")
        words.append("with settings weaker than the defaults")
    return f"{_WORDS[outcome]} {', '.join(words)}".strip(), tuple(gaps)
