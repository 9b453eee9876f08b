"""The requests in a delta: those that another is added to, and what requests of one delta share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.config import Resolved, inherit
from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.manifest import Manifest, PersonRecord, Roster, photos_of
from ireu_cli.origin import refuse_strange
from ireu_cli.session import Session
from ireu_cli.store.artifacts import read_delta
from ireu_cli.store.manifests import manifest_path, read_manifest
from ireu_cli.unlearning.gated.method import refuse_other_ledger
from ireu_cli.unlearning.methods import method_of
from ireu_cli.values import AnyLedger, Json, PhotoTable

_SHARED = ("false_alarms", "max_false_alarm", "rise", "sharpness", "confine", "copies", "shrinkage")
_OF_TOKENS, _OF_VECTORS = ("rank", "erase_gain", "erase_photos"), ("gain",)
"""Settings of `gated` that all requests of a delta share, besides places and those that only some taps read.

The first request made what they decide, and one record says how all were found and changed."""


@dataclass(frozen=True)
class Earlier:
    """A delta made of requests: its manifest and its ledger."""

    manifest: Manifest
    ledger: AnyLedger


def with_shared(resolved: Resolved, onto: Path) -> Resolved:
    """Take the shared settings from the delta that a request is added to; flags stay, so that they can be compared.

    Raises:
        ArtifactError: the delta's manifest cannot be used.
    """
    if not onto.is_file():
        return resolved  # `read_earlier` refuses it
    settings = read_manifest(manifest_path(onto)).parameters.get("gated", {})
    names = ("people", "found_in", *_SHARED, *_OF_TOKENS, *_OF_VECTORS)
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
    earlier = read_requests(session, encoder, path, "--onto")
    refuse_other_settings(session, earlier.manifest, path, ("people",))
    return earlier


def read_requests(session: Session, encoder: ImageEncoder, path: Path, flag: str) -> Earlier:
    """Read a delta that a flag names as one whose requests are joined with others.

    Raises:
        ArtifactError: it cannot be used, holds no requests, is for another tap, or was made with other settings.
        ModelError: it is for another encoder.
    """
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
    ledger = ledger_in(path)
    refuse_other_ledger(encoder, ledger, str(path))
    if manifest.key != session.run.key_name:
        raise ArtifactError(
            f"{path} was made in another run folder, whose photos cannot be compared with those of this one",
            "Make this delta in the same run folder as the others, with --run-dir",
        )
    refuse_strange(session.run, manifest, str(path))
    refuse_other_settings(session, manifest, path, (*_SHARED, *(_OF_TOKENS if ledger.by_tokens else _OF_VECTORS)))
    return Earlier(manifest, ledger)


def refuse_other_settings(session: Session, manifest: Manifest, path: Path, names: Sequence[str]) -> None:
    """Refuse a delta whose settings of `gated` with some names differ from those of this run.

    Raises:
        ArtifactError: they differ.
    """
    own, theirs = session.config.gated.model_dump(mode="json"), manifest.parameters["gated"]
    if other := [f"gated.{name} = {theirs.get(name)}" for name in names if own[name] != theirs.get(name)]:
        raise ArtifactError(
            f"{path} was made with {', '.join(other)}", "Use the same settings: all requests of one delta share them"
        )


def requests_with(earlier: Earlier | None, case: str, people: Sequence[PersonRecord]) -> Json:
    """The requests of a delta as its manifest lists them: for each case, the keyed digests of its photos.

    Raises:
        ConfigError: an earlier request has the same name, or is about one of the same people.
    """
    known: dict[str, list[str]] = dict(earlier.manifest.metrics["requests"]) if earlier else {}
    return together(known, {case: [digest for person in people for digest in person.photos]})


def together(requests: dict[str, list[str]], more: dict[str, list[str]]) -> dict[str, list[str]]:
    """Join requests by their names, each with the keyed digests of its photos.

    Raises:
        ConfigError: two have the same name, or share photos.
    """
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


def ledger_in(path: Path) -> AnyLedger:
    """The ledger of a delta in a file.

    Raises:
        ArtifactError: it cannot be read, or holds no requests.
    """
    ledger = read_delta(path).ledger
    if ledger is None:
        raise ArtifactError(f"{path} does not hold requests", "Name a delta of the method gated")
    return ledger


def union(first: Roster, second: Roster) -> Roster:
    """Everybody whom locating or unlearning used, so that verification counts none of their photos as unused."""
    if first == second:
        return first
    known = photos_of(first)
    return Roster.of([*first, *(person for person in second if not known.issuperset(person.photos))])


def at_hand(session: Session, delta: Manifest, people: PhotoTable) -> tuple[list[str], int]:
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
