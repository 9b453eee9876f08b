"""Change the requests in a delta: add one, merge deltas, or withdraw some."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ireu_cli.config import Resolved, inherit
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.manifest import Manifest, PersonRecord, photos_of
from ireu_cli.opening import StepResult, check_parent, open_session
from ireu_cli.origin import refuse_strange
from ireu_cli.session import Session, Talk
from ireu_cli.store.artifacts import delta_bytes, manifest_path, read_delta, read_manifest
from ireu_cli.unlearning.gated.method import join_ledgers, refuse_other_ledger, withdraw_cases
from ireu_cli.unlearning.methods import method_of
from ireu_cli.values import GateLedger, Json, Ledger, Photo, WeightDelta

_SHARED = ("false_alarms", "max_false_alarm", "rise", "sharpness", "confine", "copies", "shrinkage")
_OF_TOKENS, _OF_VECTORS = ("rank", "erase_gain", "erase_photos"), ("gain",)
"""Settings of `gated` that all requests of a delta share, besides places and those that only some taps read.

The first request made what they decide, and one record says how all were found and changed."""


@dataclass(frozen=True)
class Earlier:
    """A delta made of requests: its manifest and its ledger."""

    manifest: Manifest
    ledger: Ledger | GateLedger


def with_shared(resolved: Resolved, onto: Path) -> Resolved:
    """Take the shared settings from the delta that a request is added to; flags stay, so that they can be compared.

    Raises:
        ArtifactError: the delta's manifest cannot be used.
    """
    if not onto.is_file():
        return resolved  # `read_earlier` refuses it
    settings = read_manifest(manifest_path(onto)).parameters.get("gated", {})
    names = ("people", *_SHARED, *_OF_TOKENS, *_OF_VECTORS)
    return inherit(resolved, {"gated": {name: settings[name] for name in names if name in settings}})


def read_earlier(session: Session, encoder: ImageEncoder, path: Path) -> Earlier:
    """Read the delta that a request is added to.

    Raises:
        ConfigError: the method does not keep requests apart.
        ArtifactError: the delta cannot be used, holds no requests, is for another tap, or was made with other settings.
        ModelError: it is for another encoder.
    """
    config = session.config
    if not method_of(config.unlearn.method).keeps_requests:
        raise ConfigError(
            f"The method {config.unlearn.method} cannot add to an earlier delta",
            "Use --method gated, or leave out --onto",
        )
    earlier = _read(session, encoder, path, "--onto")
    _refuse_other_settings(session, earlier.manifest, path, ("people",))
    return earlier


def _read(session: Session, encoder: ImageEncoder, path: Path, flag: str) -> Earlier:
    tap = session.config.encoder.tap
    if not path.is_file():
        what = "is a folder" if path.exists() else "does not exist"
        raise ArtifactError(f"{path} {what}", f"Name a delta with {flag}")
    manifest = read_manifest(manifest_path(path))
    if manifest.encoder.fingerprint != encoder.fingerprint:
        raise ModelError(
            f"The encoder has fingerprint {encoder.fingerprint}, but {path} is for {manifest.encoder.fingerprint}",
            f"Name a delta of the same encoder with {flag}",
        )
    if not manifest.encoder.fits(encoder.settings):
        raise ModelError(
            f"{path} is for an encoder with the same weights but other settings in its config.json",
            f"Name a delta of the same encoder with {flag}",
        )
    if manifest.encoder.tap != tap:
        raise ArtifactError(
            f"{path} is for the tap {manifest.encoder.tap}, and this run edits {tap}", "Use deltas and masks of one tap"
        )
    ledger = _ledger(path)
    refuse_other_ledger(encoder, ledger, str(path))
    if manifest.key != session.run.key_name:
        raise ArtifactError(
            f"{path} was made in another run folder, whose photos cannot be compared with those of this one",
            "Make this delta in the same run folder as the others, with --run-dir",
        )
    refuse_strange(session.run, manifest, str(path))
    _refuse_other_settings(session, manifest, path, (*_SHARED, *(_OF_TOKENS if ledger.by_tokens else _OF_VECTORS)))
    return Earlier(manifest, ledger)


def _refuse_other_settings(session: Session, manifest: Manifest, path: Path, names: Sequence[str]) -> None:
    own, theirs = session.config.gated.model_dump(mode="json"), manifest.parameters["gated"]
    if other := [f"gated.{name} = {theirs.get(name)}" for name in names if own[name] != theirs.get(name)]:
        raise ArtifactError(
            f"{path} was made with {', '.join(other)}", "Use the same settings: all requests of one delta share them"
        )


def _open(resolved: Resolved, talk: Talk, onto: Path, out: Path, force: bool) -> tuple[Session, Manifest]:
    """Open a run that changes which requests a delta holds; it does not depend on settings of its own.

    Raises:
        ArtifactError: a flag asks for other settings than the delta's, or the delta cannot be used.
    """
    session = open_session("unlearn", resolved, talk, force=force, parent=onto, out=out)
    parent = check_parent(session, "unlearn")
    _refuse_other_settings(session, parent, onto, tuple(parent.parameters["gated"]))
    return session, parent


def requests_with(earlier: Earlier | None, case: str, people: Sequence[PersonRecord]) -> Json:
    """The requests of a delta as its manifest lists them: for each case, the keyed digests of its photos.

    Raises:
        ConfigError: an earlier request has the same name, or is about one of the same people.
    """
    known: dict[str, list[str]] = dict(earlier.manifest.metrics["requests"]) if earlier else {}
    return _together(known, {case: [digest for person in people for digest in person.photos]})


def _together(requests: dict[str, list[str]], more: dict[str, list[str]]) -> dict[str, list[str]]:
    if twice := sorted(requests.keys() & more.keys()):
        raise ConfigError(f"A request with the name {twice[0]} exists already", "Give this one another record.case_id")
    known = {digest: case for case, photos in requests.items() for digest in photos}
    for case, photos in more.items():
        if same := [known[digest] for digest in photos if digest in known]:
            raise ConfigError(
                f"The requests {case} and {same[0]} share photos",
                "Leave out these photos, or withdraw the other request first: one person needs only one request",
            )
    return requests | more


def run_merge(
    resolved: Resolved, talk: Talk, onto: Path, others: Sequence[Path], out: Path, *, force: bool
) -> StepResult:
    """Add the requests of deltas that were made independently to those of `onto`.

    Raises:
        IreuError: configuration, encoder, deltas or output cannot be used, or the deltas do not fit together.
    """
    session, parent = _open(resolved, talk, onto, out, force)
    ledger = _ledger(onto)
    encoder = session.encoder(dtype="float32")
    added = [_read(session, encoder, path, "--merge") for path in others]
    requests, people = dict(parent.metrics["requests"]), parent.targets
    for path, other in zip(others, added, strict=True):
        if photos_of(other.manifest.retain) != photos_of(parent.retain):
            raise ArtifactError(
                f"{path} and {onto} were made from other retained photos",
                "Make one of the requests again with --onto the other delta",
            )
        requests = _together(requests, other.manifest.metrics["requests"])
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


def run_withdraw(
    resolved: Resolved, talk: Talk, onto: Path, cases: Sequence[str], out: Path, *, force: bool
) -> StepResult:
    """Take requests out of a delta; the weights they changed get their original values back, bit for bit.

    Raises:
        IreuError: configuration, encoder, delta or output cannot be used, or there is no such request.
    """
    session, parent = _open(resolved, talk, onto, out, force)
    ledger = _ledger(onto)
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
    # The manifests of the requests themselves say how well people were found.
    metrics.pop("people", None)
    if delta.ledger is not None:
        taken, places = len(delta.ledger.slots), delta.ledger.capacity
        metrics["places"] = {"taken": taken, "all": places}
        session.talk.note(
            f"requests in the delta: {', '.join(metrics['requests']) or 'none'}; {taken} of {places} places are taken"
        )
    finished = draft.model_copy(update={"metrics": metrics, "timings": session.timings})
    manifest = session.put_file(out, delta_bytes(delta), finished)
    return StepResult(out, manifest, reused=False)


def _ledger(path: Path) -> Ledger | GateLedger:
    ledger = read_delta(path).ledger
    if ledger is None:
        raise ArtifactError(f"{path} does not hold requests", "Name a delta of the method gated")
    return ledger


def union(first: tuple[PersonRecord, ...], second: tuple[PersonRecord, ...]) -> tuple[PersonRecord, ...]:
    """Everybody whom locating or unlearning used, so that verification counts none of their photos as unused."""
    known = photos_of(first)
    return first + tuple(person for person in second if not known.issuperset(person.photos))


def at_hand(session: Session, delta: Manifest, people: tuple[tuple[Photo, ...], ...]) -> tuple[list[str], int]:
    """Compare the requests of a delta with some people.

    Returns:
        Requests without any photo among these people's, and the number of people without a photo in any request. Both
        are empty for a delta that does not hold requests.
    """
    requests: dict[str, list[str]] | None = delta.metrics.get("requests")
    if requests is None:
        return [], 0
    records = session.records(people)
    here, asked = photos_of(records), {digest for photos in requests.values() for digest in photos}
    missing = [case for case, photos in requests.items() if here.isdisjoint(photos)]
    return missing, sum(asked.isdisjoint(person.photos) for person in records)
