"""`ireu inspect` for files that ireu wrote: which step wrote them, and whether they agree with the record."""

from pathlib import Path

from ireu_cli.manifest import Manifest
from ireu_cli.store.beside import AS_RECORDED, NOUNS, record_of, state_of
from ireu_cli.support.bounded import printable
from ireu_cli.values import Json

_SHOWN = 20
_PRIVATE = "do not publish it, because it tells who was removed"
_ADVICE = {
    "locate": _PRIVATE,
    "unlearn": _PRIVATE,
    "verify": "it may hold pictures of people, so check who may read it",
    "export": "these are weights to mount in a generator",
    "apply": "these are features of people's faces, so check who may read them",
}


def inspect_own(source: Path) -> dict[str, Json] | None:
    """Describe an artifact as plain values; None if ireu did not write it.

    Raises:
        ArtifactError: its record is damaged, or was changed.
    """
    found = record_of(source)
    if found is None:
        return None
    path, manifest = found
    return {
        "kind": f"{NOUNS[manifest.step]}, written by `ireu {manifest.step}`",
        "step": manifest.step,
        "note": _ADVICE[manifest.step],
        "state": manifest.state,
        "written_by": f"ireu {printable(manifest.tool_version, 40)}",
        "digest": printable(manifest.digest),
        "encoder": f"{printable(manifest.encoder.architecture)}, {printable(manifest.encoder.fingerprint)}",
        "tap": printable(manifest.encoder.tap, 200),
        "people": f"{len(manifest.targets)} to unlearn, {len(manifest.retain)} retained",
        **_places(manifest),
        "files": _files(manifest, path.parent),
    }


def _places(manifest: Manifest) -> dict[str, Json]:
    """Of a delta that holds requests: how many places are taken, and what each costs others."""
    match manifest.metrics:
        case {"places": {"taken": int(taken), "all": int(every)}, "false_alarm_rate_each": float(rate)}:
            share = f"each may change {rate:.2%} of other people's photos"
            return {"places": f"{taken} of {every} taken; {share}"}
    return {}


def _files(manifest: Manifest, folder: Path) -> dict[str, Json]:
    """For each file in the record, whether it agrees with the record; files that differ come first."""
    found = {printable(record.name, 120): state_of(record, folder) for record in manifest.outputs}
    order = sorted(found, key=lambda name: (found[name] == AS_RECORDED, name))
    shown: dict[str, Json] = {name: found[name] for name in order[:_SHOWN]}
    if rest := len(order) - len(shown):
        wrong = sum(found[name] != AS_RECORDED for name in order[_SHOWN:])
        shown[f"and {rest} more"] = f"{wrong} of them not as recorded" if wrong else "as recorded"
    return shown
