"""Change which requests a delta holds: merge deltas, or withdraw some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ireu_cli.config import Resolved
from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import Manifest, Roster, photos_of
from ireu_cli.opening import StepResult, check_parent, open_session
from ireu_cli.session import Session, Talk
from ireu_cli.store.artifacts import delta_bytes
from ireu_cli.store.manifests import manifest_path
from ireu_cli.unlearning.gated.method import join_ledgers, withdraw_cases
from ireu_cli.unlearning.requests import ledger_in, read_requests, refuse_other_settings, together, union
from ireu_cli.values import WeightDelta


def run_merge(
    resolved: Resolved, talk: Talk, onto: Path, others: Sequence[Path], out: Path, *, force: bool
) -> StepResult:
    """Add the requests of deltas that were made independently to those of `onto`.

    Raises:
        IreuError: configuration, encoder, deltas or output cannot be used, or the deltas do not fit together.
    """
    session, parent = _open(resolved, talk, onto, out, force)
    ledger = ledger_in(onto)
    encoder = session.encoder(dtype="float32")
    added = [read_requests(session, encoder, path, "--merge") for path in others]
    requests, people = dict(parent.metrics["requests"]), parent.targets
    for path, other in zip(others, added, strict=True):
        retain = other.manifest.retain
        if retain != parent.retain and photos_of(retain) != photos_of(parent.retain):
            raise ArtifactError(
                f"{path} and {onto} were made from other retained photos",
                "Make one of the requests again with --onto the other delta",
            )
        requests = together(requests, other.manifest.metrics["requests"])
        people = union(people, other.manifest.targets)
    draft = session.draft(
        encoder, targets=people, retain=parent.retain, extra={"merged": [one.manifest.digest for one in added]}
    )
    with session.lock(out):
        if (done := session.already_done(draft, manifest_path(out), out)) is not None:
            return StepResult(out, done, reused=True)
        session.start(draft, out)
        delta = join_ledgers(encoder, [ledger, *(one.ledger for one in added)])
        kept = {name: value for name, value in parent.metrics.items() if name != "withdrawn"}
        metrics = kept | {"requests": requests}
        return _finish(session, draft, delta, metrics, out)


def run_withdraw(
    resolved: Resolved, talk: Talk, onto: Path, cases: Sequence[str], out: Path, *, force: bool
) -> StepResult:
    """Take requests out of a delta; the weights they changed get their original values back, bit for bit.

    Raises:
        IreuError: configuration, encoder, delta or output cannot be used, or there is no such request.
    """
    session, parent = _open(resolved, talk, onto, out, force)
    ledger = ledger_in(onto)
    known, leaving = set(ledger.cases), set(cases)
    if unknown := [case for case in cases if case not in known]:
        raise ArtifactError(
            f"No request has the name {unknown[0]}", f"Name one of {', '.join(dict.fromkeys(ledger.cases)) or 'none'}"
        )
    encoder = session.encoder(dtype="float32")
    requests = {case: photos for case, photos in parent.metrics["requests"].items() if case not in leaving}
    left = {digest for photos in requests.values() for digest in photos}
    draft = session.draft(
        encoder,
        targets=Roster.of(person for person in parent.targets if left.intersection(person.photos)),
        retain=parent.retain,
        extra={"withdrawn": sorted(cases)},
    )
    with session.lock(out):
        if (done := session.already_done(draft, manifest_path(out), out)) is not None:
            return StepResult(out, done, reused=True)
        session.start(draft, out)
        delta = withdraw_cases(encoder, ledger, cases)
        metrics = parent.metrics | {"requests": requests, "withdrawn": sorted(cases)}
        return _finish(session, draft, delta, metrics, out)


def _open(resolved: Resolved, talk: Talk, onto: Path, out: Path, force: bool) -> tuple[Session, Manifest]:
    """Open a run that changes which requests a delta holds; it does not depend on settings of its own.

    Raises:
        ArtifactError: a flag asks for other settings than the delta's, or the delta cannot be used.
    """
    session = open_session("unlearn", resolved, talk, force=force, parent=onto, out=out)
    parent = check_parent(session, "unlearn")
    refuse_other_settings(session, parent, onto, tuple(parent.parameters["gated"]))
    return session, parent


def _finish(session: Session, draft: Manifest, delta: WeightDelta, metrics: dict[str, Any], out: Path) -> StepResult:
    # The manifests of the requests themselves say how well people were found.
    metrics.pop("people", None)
    # No single request stands for what was joined or is left.
    metrics.pop("case", None)
    if delta.ledger is not None:
        taken, places = len(delta.ledger.slots), delta.ledger.capacity
        metrics["places"] = {"taken": taken, "all": places}
        session.talk.note(
            f"requests in the delta: {', '.join(metrics['requests']) or 'none'}; {taken} of {places} places are taken"
        )
    finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
    manifest = session.put_file(out, delta_bytes(delta), finished)
    return StepResult(out, manifest, reused=False)
