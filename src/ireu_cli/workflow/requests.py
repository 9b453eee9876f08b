"""Requests one after another: a delta that others are added to, deltas that are merged, requests that are withdrawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ireu_cli.config import Resolved
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.manifest import Manifest, PersonRecord
from ireu_cli.models.encoders import ImageEncoder
from ireu_cli.store.artifacts import manifest_path, read_delta, read_manifest, write_delta, write_manifest
from ireu_cli.values import GateLedger, Json, Ledger, WeightDelta
from ireu_cli.workflow.gated import join_ledgers, withdraw_cases
from ireu_cli.workflow.session import Session, StepResult, Talk, check_parent, open_session

_BUDGET = ("false_alarms", "max_false_alarm", "rise", "sharpness")
"""Settings that all requests of a delta share."""


@dataclass(frozen=True)
class Earlier:
    """A delta made of requests: its manifest and its ledger."""

    manifest: Manifest
    ledger: Ledger | GateLedger


def read_earlier(session: Session, encoder: ImageEncoder, path: Path) -> Earlier:
    """Read the delta that a request is added to.

    Raises:
        ConfigError: the method keeps no requests apart.
        ArtifactError: it cannot be used, holds no requests, is for another tap, or was made with other settings.
        ModelError: it is for another encoder.
    """
    config = session.config
    if config.unlearn.method != "gated":
        raise ConfigError(
            f"The method {config.unlearn.method} cannot add to an earlier delta", "Use --method gated, or drop --onto"
        )
    return _read(session, encoder, path, "--onto")


def _read(session: Session, encoder: ImageEncoder, path: Path, flag: str) -> Earlier:
    tap = session.config.encoder.tap
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", f"Name a delta with {flag}")
    manifest = read_manifest(manifest_path(path))
    if manifest.encoder.fingerprint != encoder.fingerprint:
        raise ModelError(
            f"The encoder has fingerprint {encoder.fingerprint}, but {path} is for {manifest.encoder.fingerprint}",
            f"Name a delta of the same encoder with {flag}",
        )
    if manifest.encoder.tap != tap:
        raise ArtifactError(
            f"{path} is for the tap {manifest.encoder.tap}, and {tap} is edited", "Use deltas and masks of one tap"
        )
    ledger = _ledger(path)
    if manifest.key != session.run.key_name:
        raise ArtifactError(
            f"{path} was made in another run folder, whose photos cannot be told from those of this one",
            "Name the run folder of that delta with --run-dir",
        )
    own, theirs = session.config.gated.model_dump(mode="json"), manifest.parameters["gated"]
    if other := [f"gated.{name} = {theirs[name]}" for name in _BUDGET if own[name] != theirs[name]]:
        raise ArtifactError(f"{path} was made with {', '.join(other)}", f"Use the same settings, or drop {flag}")
    return Earlier(manifest, ledger)


def requests_with(earlier: Earlier | None, case: str, people: Sequence[PersonRecord]) -> Json:
    """The requests of a delta as its manifest lists them: of each case, the keyed digests of its photos.

    Raises:
        ConfigError: an earlier request has the same name.
    """
    known: dict[str, list[str]] = dict(earlier.manifest.metrics["requests"]) if earlier else {}
    if case in known:
        raise ConfigError(
            f"The earlier delta has a request called {case} already", "Give this one another record.case_id"
        )
    return known | {case: [digest for person in people for digest in person.photos]}


def run_merge(
    resolved: Resolved, talk: Talk, onto: Path, others: Sequence[Path], out: Path, *, force: bool
) -> StepResult:
    """Add the requests of deltas that were made independently to those of `onto`.

    Raises:
        IreuError: whatever is wrong with configuration, encoder, deltas or output, or they do not fit each other.
    """
    session = open_session("unlearn", resolved, talk, force=force, parent=onto)
    parent = check_parent(session, "unlearn")
    ledger = _ledger(onto)
    encoder = session.encoder(dtype="float32")
    added = [_read(session, encoder, path, "--merge") for path in others]
    requests, people = dict(parent.metrics["requests"]), parent.targets
    for path, other in zip(others, added, strict=True):
        if _photos(other.manifest.retain) != _photos(parent.retain):
            raise ArtifactError(
                f"{path} and {onto} were made from other retained photos",
                "Make one of the requests again with --onto the other delta",
            )
        if twice := sorted(requests.keys() & other.manifest.metrics["requests"].keys()):
            raise ConfigError(f"Two deltas have a request called {twice[0]}", "Give each another record.case_id")
        requests |= other.manifest.metrics["requests"]
        people = union(people, other.manifest.targets)
    draft = session.draft(
        encoder, targets=people, retain=parent.retain, extra={"merged": [one.manifest.digest for one in added]}
    )
    with session.run.lock(out):
        if (done := session.already_done(draft, manifest_path(out), out)) is not None:
            return StepResult(out, done, reused=True)
        session.run.start(draft, out)
        delta = join_ledgers(encoder, [ledger, *(one.ledger for one in added)])
        kept = {name: value for name, value in parent.metrics.items() if name != "withdrawn"}
        metrics = kept | {"requests": requests}
        return _finish(session, draft, delta, metrics, out)


def _photos(people: Sequence[PersonRecord]) -> set[str]:
    return {digest for person in people for digest in person.photos}


def run_withdraw(
    resolved: Resolved, talk: Talk, onto: Path, cases: Sequence[str], out: Path, *, force: bool
) -> StepResult:
    """Take requests out of a delta; the weights they changed get their original values back, bit for bit.

    Raises:
        IreuError: whatever is wrong with configuration, encoder, delta or output, or there is no such request.
    """
    session = open_session("unlearn", resolved, talk, force=force, parent=onto)
    parent = check_parent(session, "unlearn")
    ledger = _ledger(onto)
    if unknown := [case for case in cases if case not in ledger.cases]:
        raise ArtifactError(
            f"No request is called {unknown[0]}", f"Name one of {', '.join(dict.fromkeys(ledger.cases)) or 'none'}"
        )
    encoder = session.encoder(dtype="float32")
    requests = {case: photos for case, photos in parent.metrics["requests"].items() if case not in cases}
    left = {digest for photos in requests.values() for digest in photos}
    draft = session.draft(
        encoder,
        targets=tuple(person for person in parent.targets if left.intersection(person.photos)),
        retain=parent.retain,
        extra={"withdrawn": sorted(cases)},
    )
    with session.run.lock(out):
        if (done := session.already_done(draft, manifest_path(out), out)) is not None:
            return StepResult(out, done, reused=True)
        session.run.start(draft, out)
        delta = withdraw_cases(encoder, ledger, cases)
        metrics = parent.metrics | {"requests": requests, "withdrawn": sorted(cases)}
        return _finish(session, draft, delta, metrics, out)


def _finish(session: Session, draft: Manifest, delta: WeightDelta, metrics: dict[str, Any], out: Path) -> StepResult:
    write_delta(out, delta)
    # What unlearning found of people is told by the manifests of their own requests.
    metrics.pop("people", None)
    if delta.ledger is not None:
        metrics["places"] = {"taken": len(delta.ledger.slots), "all": delta.ledger.capacity}
    finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
    manifest = session.close(write_manifest(manifest_path(out), finished, [out]))
    return StepResult(out, manifest, reused=False)


def _ledger(path: Path) -> Ledger | GateLedger:
    ledger = read_delta(path).ledger
    if ledger is None:
        raise ArtifactError(f"{path} is not made of requests", "Name a delta of the method gated")
    return ledger


def union(first: tuple[PersonRecord, ...], second: tuple[PersonRecord, ...]) -> tuple[PersonRecord, ...]:
    """Everybody whom locating or unlearning used, so that verification takes none of their photos for unused."""
    known = {digest for person in first for digest in person.photos}
    return first + tuple(person for person in second if not known.issuperset(person.photos))
