"""Requests one after another: a delta that later requests are added to, and requests that are withdrawn from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.config import Resolved
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.manifest import Manifest, PersonRecord
from ireu_cli.models.encoders import ImageEncoder
from ireu_cli.store.artifacts import manifest_path, read_delta, read_manifest, write_delta, write_manifest
from ireu_cli.values import GateLedger, Json, Ledger
from ireu_cli.workflow.gated import withdraw_cases
from ireu_cli.workflow.session import Session, StepResult, Talk, check_parent, open_session


@dataclass(frozen=True)
class Earlier:
    """A delta made of requests: its manifest and its ledger."""

    manifest: Manifest
    ledger: Ledger | GateLedger


def read_earlier(session: Session, encoder: ImageEncoder, path: Path) -> Earlier:
    """Read the delta that a request is added to.

    Raises:
        ConfigError: the method keeps no requests apart.
        ArtifactError: it cannot be used, holds no requests, or is for another tap.
        ModelError: it is for another encoder.
    """
    config = session.config
    if config.unlearn.method != "gated":
        raise ConfigError(
            f"The method {config.unlearn.method} cannot add to an earlier delta", "Use --method gated, or drop --onto"
        )
    if not path.is_file():
        raise ArtifactError(f"{path} does not exist", "Name a delta with --onto")
    manifest = read_manifest(manifest_path(path))
    if manifest.encoder.fingerprint != encoder.fingerprint:
        raise ModelError(
            f"The encoder has fingerprint {encoder.fingerprint}, but {path} is for {manifest.encoder.fingerprint}",
            "Name a delta of the same encoder with --onto",
        )
    if manifest.encoder.tap != config.encoder.tap:
        raise ArtifactError(
            f"{path} is for the tap {manifest.encoder.tap}, the mask for {config.encoder.tap}",
            "Locate for the tap of the earlier delta",
        )
    return Earlier(manifest, _ledger(path))


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
        write_delta(out, delta)
        places = {"taken": len(delta.ledger.slots) if delta.ledger else 0, "all": ledger.capacity}
        metrics = parent.metrics | {"requests": requests, "withdrawn": sorted(cases), "places": places}
        finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
        manifest = session.close(write_manifest(manifest_path(out), finished, [out]))
    return StepResult(out, manifest, reused=False)


def _ledger(path: Path) -> Ledger | GateLedger:
    ledger = read_delta(path).ledger
    if ledger is None:
        raise ArtifactError(f"{path} is not made of requests", "Name a delta of the method gated")
    return ledger
