"""Which settings belong to which step: those that decide its result, and those that later steps take over.

Limits, judges, attacks, pictures and the record are always set by whoever verifies; a delta brings none of them.
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
"""Paths of inputs: they are known to this machine and are not part of a manifest."""

VERIFIERS_PATHS = frozenset({("data", "labels"), ("judges", "image_model")})
"""Settings that only `verify` uses; earlier steps do not pass them on."""

_MADE = ("encoder", "data", "locate", "unlearn", "gated")
RECORDED: Mapping[Step, tuple[str, ...]] = MappingProxyType(
    {
        "locate": ("encoder", "data", "locate"),
        "unlearn": _MADE,
        "verify": (*_MADE, "verify", "pictures", "judges", "attacks", "record"),
        "export": (*_MADE, "verify", "record", "export"),
        "apply": (),
    }
)
"""Sections that decide a step's result; its manifest holds them beside `seed`."""

HANDED_ON: Mapping[Step, tuple[str, ...]] = MappingProxyType(
    {"locate": RECORDED["locate"], "unlearn": RECORDED["unlearn"], "verify": (), "export": (), "apply": ()}
)
"""Sections that later steps take over, besides `seed`; they never take over paths."""


def handed_on(manifest: Manifest) -> dict[str, Any]:
    """The settings of a manifest that a later step has to agree with; other settings are ignored."""
    told: dict[str, Any] = {}
    for name in HANDED_ON[manifest.step]:
        values = manifest.parameters.get(name)
        if isinstance(values, Mapping):
            told[name] = {key: value for key, value in values.items() if (name, key) not in PATHS}
    if HANDED_ON[manifest.step] and "seed" in manifest.parameters:
        told["seed"] = manifest.parameters["seed"]
    return told
