"""The settings behind a verdict: every setting that is not the default, and whether it makes the verdict weaker."""

from collections.abc import Mapping
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Literal

from ireu_cli.errors import ConfigError
from ireu_cli.params import Config
from ireu_cli.report import Departure, Effect
from ireu_cli.session import Session

_Order = Literal["less is weaker", "more is weaker", "all", "no order", "shown only"]
_MIN: _Order = "less is weaker"
_MAX: _Order = "more is weaker"

SECTIONS = ("verify", "pictures", "judges", "attacks")
"""Sections that say what is asked of an edit, and how it is measured."""

ORDERS: Mapping[str, _Order] = MappingProxyType(
    {
        # Somebody could try seeds until one passes.
        "seed": "no order",
        # Rarer matches are easier to avoid.
        "verify.false_match_rate": _MIN,
        "verify.further_rates": "no order",
        "verify.max_match_seen": _MAX,
        "verify.max_match_unseen": _MAX,
        "verify.min_retained_similarity": _MIN,
        "verify.min_lookalike_similarity": _MIN,
        "verify.max_retained_change": _MAX,
        "verify.max_lookalike_change": _MAX,
        "verify.max_null_change": _MAX,
        "verify.min_original_match": _MIN,
        "verify.min_gallery_people": _MIN,
        "verify.min_impostors_per_error": _MIN,
        "verify.max_reidentified_seen": _MAX,
        "verify.max_reidentified_unseen": _MAX,
        "verify.min_delta_id": _MIN,
        "verify.min_retained_id": _MIN,
        "verify.min_lookalike_id": _MIN,
        "verify.min_retained_psnr": _MIN,
        "verify.min_retained_ssim": _MIN,
        "verify.min_faces": _MIN,
        "verify.max_adherence_drop": _MAX,
        "verify.min_original_reidentified": _MIN,
        "verify.max_attack_success": _MAX,
        "verify.max_others_removed": _MAX,
        "verify.pictures": "shown only",
        "verify.keep_images": "shown only",
        "verify.require_unseen": _MIN,
        "verify.min_unseen_photos": _MIN,
        "verify.lookalike_share": "no order",
        "verify.bootstrap": "no order",
        "pictures.generators": "all",
        "pictures.target_photos": _MIN,
        "pictures.people": _MIN,
        "pictures.look_alikes": _MIN,
        "pictures.photos": _MIN,
        "pictures.seeds": _MIN,
        "pictures.edits": _MIN,
        "pictures.edits_per_photo": _MIN,
        "judges.embedded": _MIN,
        "judges.recognisers": _MIN,
        "judges.min_recognisers": _MIN,
        "judges.min_accept_rate": _MIN,
        "judges.image_model": "no order",
        "attacks.suite": "all",
        "attacks.people": _MIN,
        "attacks.photos": _MIN,
        "attacks.drawn": _MIN,
        "attacks.seeds": _MIN,
        "attacks.pgd_steps": _MIN,
        "attacks.generator_steps": _MIN,
        "attacks.relearn_steps": _MIN,
        "attacks.relearn_photos": _MIN,
        "attacks.relearn_rate": "no order",
        # A photo that is skipped is not measured.
        "data.bad_photos": "no order",
    }
)
"""The effect of changing a setting; `all` marks lists of names in which `all` asks the most."""


def departures_of(session: Session) -> tuple[Departure, ...]:
    """Every setting of `ORDERS` that is not the default and affects the verdict, in the order of the schema."""
    default, config = Config(), session.config
    found = []
    for key, order in ORDERS.items():
        usual, value = (attrgetter(key)(one) for one in (default, config))
        if value != usual and order != "shown only":
            found.append(
                Departure(
                    key=key,
                    value=_plain(value),
                    default=_plain(usual),
                    source=session.sources.get(key, "default"),
                    effect=_effect(key, order, value, usual),
                )
            )
    return tuple(found)


def refuse_weaker(departures: tuple[Departure, ...]) -> None:
    """Check `verify --strict` before anything is measured.

    Raises:
        ConfigError: settings are weaker than the defaults; every one is named.
    """
    if weaker := [one for one in departures if one.effect == "weaker"]:
        parts = [f"{one.key} = {one.words} ({one.source}; default {one.usual})" for one in weaker]
        raise ConfigError(
            f"With --strict, no setting may be weaker than the default, but these are: {', '.join(parts)}",
            "Remove these settings, or leave out --strict",
        )


def _effect(key: str, order: _Order, value: Any, usual: Any) -> Effect:
    if key == "data.bad_photos":
        return "weaker"
    if order == "all":
        return "no order" if "all" in value else "weaker"
    if order not in {_MIN, _MAX}:
        return "no order"
    if isinstance(value, tuple):
        less, more = set(map(repr, value)) < set(map(repr, usual)), set(map(repr, value)) > set(map(repr, usual))
    else:
        less, more = value < usual, value > usual
    if not less and not more:
        return "no order"
    return "weaker" if less == (order == _MIN) else "stronger"


def _plain(value: Any) -> Any:
    """The value as in JSON; for recognisers only the names, because their paths belong to this machine."""
    if isinstance(value, tuple):
        return [getattr(part, "name", part) for part in value]
    return value if isinstance(value, bool | int | float | str | None) else "set"
