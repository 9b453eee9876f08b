"""What a finished step adds to the register."""

from ireu_cli.manifest import Manifest
from ireu_cli.params import RecordParams
from ireu_cli.store.register import Event
from ireu_cli.support.bounded import printable

_OUTCOMES = {"pass": "passed", "fail": "failed", "inconclusive": "inconclusive"}
"""What a verification without words of its own is called."""


def event_of(manifest: Manifest, parent: Manifest | None, record: RecordParams) -> Event | None:
    """The event that a finished manifest stands for; None of a step that concerns no case.

    Args:
        manifest: the finished step's.
        parent: that of its input.
        record: what the operator states.
    """
    metrics = manifest.metrics
    if manifest.step == "unlearn":
        if gone := metrics.get("withdrawn"):
            return _of(manifest, "withdrawal", tuple(map(_short, gone)))
        dates = {"request_date": record.request_date, "photos_deleted_by": record.photos_deleted_by}
        return _of(manifest, "request", _asked(manifest), **dates)
    every = () if parent is None else cases_of(parent)
    if manifest.step == "verify":
        words = metrics.get("standing") or _OUTCOMES.get(str(metrics.get("outcome")), "unknown")
        return _of(manifest, "verification", every, outcome=_short(str(words)))
    if manifest.step == "export":
        words = (metrics.get("verification") or {}).get("standing")
        outcome = None if words is None else _short(str(words))
        return _of(manifest, "export", every, outcome=outcome, edited=metrics.get("edited_encoder"))
    return None


def _of(manifest: Manifest, what: str, cases: tuple[str, ...], **more: str | None) -> Event:
    return Event.model_validate(
        {
            "what": what,
            "cases": cases,
            "artifact": manifest.digest,
            "parent": manifest.parent,
            "encoder": manifest.encoder.fingerprint,
            **more,
        }
    )


def cases_of(delta: Manifest) -> tuple[str, ...]:
    """The cases whose people a delta removes, by its manifest."""
    requests = delta.metrics.get("requests")
    return tuple(map(_short, requests)) if requests is not None else (_named(delta),)


def _asked(manifest: Manifest) -> tuple[str, ...]:
    """The case of a request, or all cases of deltas that were merged."""
    case, every = _named(manifest), cases_of(manifest)
    return (case,) if case in every else every


def _named(delta: Manifest) -> str:
    """The case of the last request; one without a name is called by the first digits of its identity."""
    return _short(str(delta.metrics.get("case") or delta.identity[:12]))


def _short(text: str) -> str:
    """A text as an entry may hold it."""
    return printable(text, 300)[:300]
