"""What a finished step adds to the register."""

from ireu_cli.manifest import Manifest
from ireu_cli.params import RecordParams
from ireu_cli.store.register import Event


def event_of(manifest: Manifest, parent: Manifest | None, record: RecordParams) -> Event | None:
    """The event that a finished manifest stands for; None of a step that concerns no case.

    Args:
        manifest: the finished step's.
        parent: that of its input.
        record: what the operator states.
    """
    metrics = manifest.metrics
    if manifest.step == "unlearn":
        gone = metrics.get("withdrawn")
        return Event(
            what="withdrawal" if gone else "request",
            cases=tuple(gone) if gone else _asked(manifest),
            artifact=manifest.digest,
            parent=manifest.parent,
            encoder=manifest.encoder.fingerprint,
            request_date=None if gone else record.request_date,
            photos_deleted_by=None if gone else record.photos_deleted_by,
        )
    if manifest.step == "verify":
        words = str(metrics.get("standing") or metrics.get("outcome"))
        return _of(manifest, "verification", () if parent is None else cases_of(parent), outcome=words)
    if manifest.step == "export" and isinstance(metrics.get("edited_encoder"), str):
        verification = metrics.get("verification") or {}
        return _of(
            manifest,
            "export",
            tuple(metrics.get("cases", ())),
            outcome=verification.get("standing"),
            edited=metrics["edited_encoder"],
        )
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
    return tuple(requests) if requests is not None else (_named(delta),)


def _asked(manifest: Manifest) -> tuple[str, ...]:
    """The case of a request, or all cases of deltas that were merged."""
    case, every = _named(manifest), cases_of(manifest)
    return (case,) if case in every else every


def _named(delta: Manifest) -> str:
    """The case of the last request; one without a name is called by the first digits of its identity."""
    return str(delta.metrics.get("case") or delta.identity[:12])
