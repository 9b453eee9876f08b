"""Which settings belong to which step, in one place: what decides its result, and what the steps after it take over.

Whoever verifies sets limits, judges, attacks, pictures and the record: a delta that is handed over brings none of them.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from ireu_cli.manifest import Manifest, Step

PATHS = (
    ("encoder", "source"),
    ("data", "targets"),
    ("data", "retain"),
    ("data", "face_models"),
    ("locate", "swapper_model"),
    ("locate", "pairs"),
    ("data", "labels"),
    ("judges", "image_model"),
)
"""Where inputs lie: known to this machine, and no part of a manifest."""

VERIFIERS_PATHS = frozenset({("data", "labels"), ("judges", "image_model")})
"""What only `verify` uses is not handed on to it by the steps before."""

_MADE = ("encoder", "data", "locate", "unlearn", "gated")
RECORDED: Mapping[Step, tuple[str, ...]] = MappingProxyType(
    {
        "locate": ("encoder", "data", "locate"),
        "unlearn": _MADE,
        "verify": (*_MADE, "verify", "pictures", "judges", "attacks", "record"),
        "export": (*_MADE, "verify", "record", "export"),
    }
)
"""Sections that decide a step's result, and stand in its manifest beside `seed`."""

HANDED_ON: Mapping[Step, tuple[str, ...]] = MappingProxyType(
    {"locate": RECORDED["locate"], "unlearn": RECORDED["unlearn"], "verify": (), "export": ()}
)
"""Sections that the steps after it take over, beside `seed`; paths never."""


def handed_on(manifest: Manifest) -> dict[str, Any]:
    """The settings of a manifest that a step after it has to agree with; whatever else it says is passed over."""
    told: dict[str, Any] = {}
    for name in HANDED_ON[manifest.step]:
        values = manifest.parameters.get(name)
        if isinstance(values, Mapping):
            told[name] = {key: value for key, value in values.items() if (name, key) not in PATHS}
    if HANDED_ON[manifest.step] and "seed" in manifest.parameters:
        told["seed"] = manifest.parameters["seed"]
    return told
