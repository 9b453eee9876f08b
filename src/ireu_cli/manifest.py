"""The record beside each artifact: what was done, with which inputs, by which tool. No tensors, no files.

`digest` covers everything but when and where the run took place, so that the same work has the same digest on any
day; `checksum` covers every field, so that no byte of the record can change unnoticed.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ireu_cli.errors import ArtifactError
from ireu_cli.params import Config

SCHEMA_VERSION = 1
"""Raise it when a field changes meaning, add a reader for the old form, and add `tests/fixtures/schema_v<N>/`."""

Step = Literal["locate", "unlearn", "verify", "export"]

# Time, machine and run folder: the same run elsewhere is still the same run.
_OUTSIDE_DIGEST = frozenset({"environment", "timings", "digest", "checksum", "seal"})


def canonical_json(value: Any) -> str:
    """Serialise with sorted keys, no spaces and no NaN, so that equal values have equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """SHA-256 (hex) over the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileRecord(_Record):
    """One file by its bytes. `name` is relative to the manifest's folder and never a photo's."""

    name: str
    sha256: str
    size: int


class EncoderRecord(_Record):
    """The encoder, by its tensors: `fingerprint` is independent of the file layout."""

    fingerprint: str
    architecture: str
    tap: str
    layers: int


class PersonRecord(_Record):
    """One person as a number and the keyed digests of the photos; nothing that leads to a name or a face."""

    number: int
    photos: tuple[str, ...]


class Manifest(_Record):
    """The record of one step. All digests are hex; `parent` is the digest of the parent's manifest."""

    schema_version: Literal[1] = 1
    step: Step
    state: Literal["running", "complete"]
    tool_version: str
    identity: str = Field(description="digest of everything that decides the result: step, parameters, inputs, parent")
    seed: int
    parameters: dict[str, Any]
    encoder: EncoderRecord
    parent: str | None = None
    key: str | None = Field(None, description="which run folder's key the photo digests are keyed with")
    targets: tuple[PersonRecord, ...] = ()
    retain: tuple[PersonRecord, ...] = ()
    inputs: tuple[FileRecord, ...] = ()
    outputs: tuple[FileRecord, ...] = ()
    metrics: dict[str, Any] = {}
    environment: dict[str, str] = {}
    timings: dict[str, float] = {}
    digest: str = ""
    checksum: str = ""
    seal: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="HMAC of `digest` with the run folder's key, which `key` names"
    )

    @property
    def is_of_several(self) -> bool:
        """Whether a delta was put together of requests: where one person's photos lie says nothing of all of them."""
        requests = self.metrics.get("requests")
        return requests is not None and (len(requests) != 1 or "withdrawn" in self.metrics)

    def sealed(self) -> Self:
        """Return the record with `digest` and `checksum` filled in."""
        return self.model_copy(update=_seals(self.model_dump(mode="json")))

    def text(self) -> str:
        """Return the file's text: sorted keys, two spaces of indent, one newline at the end."""
        return _file_text(self.model_dump(mode="json"))

    def config(self) -> Config:
        """Return the parameters as a configuration, defaults filled in for sections the step did not use."""
        try:
            return Config.model_validate(self.parameters)
        except ValidationError as error:
            raise ArtifactError(
                f"The manifest's parameters are not ones this version knows ({error.error_count()} mistakes)",
                "Use the version of ireu that wrote it",
            ) from None


def photos_of(people: Iterable[PersonRecord]) -> set[str]:
    """Keyed digests of everybody's photos."""
    return {digest for person in people for digest in person.photos}


def completed(
    manifest: Manifest, outputs: tuple[FileRecord, ...], seal: Callable[[str], str] | None = None
) -> Manifest:
    """A finished step's manifest, sealed; `seal` makes the keyed seal out of the digest, None leaves it without one."""
    sealed = manifest.model_copy(update={"state": "complete", "outputs": outputs, "seal": None}).sealed()
    return sealed if seal is None else sealed.model_copy(update={"seal": seal(sealed.digest)}).sealed()


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Read a manifest and check it against itself.

    Args:
        data: the file's bytes.
        name: how messages call the file.

    Raises:
        ArtifactError: not JSON, another schema version, unknown or missing fields, or any byte changed.
    """
    remedy = "Run the step that writes it again, or restore the file from a copy"
    try:
        plain = json.loads(data.decode("utf-8"))
    except ValueError:
        raise ArtifactError(f"The manifest {name} is not readable JSON", remedy) from None
    if not isinstance(plain, dict):
        raise ArtifactError(f"The manifest {name} is not a JSON object", remedy)
    if (version := plain.get("schema_version")) != SCHEMA_VERSION:
        raise ArtifactError(
            f"The manifest {name} has schema version {version!r:.40}; this version of ireu reads {SCHEMA_VERSION}",
            "Install the version of ireu that wrote it, or restore the file if it was damaged",
        )
    try:
        manifest = Manifest.model_validate_json(data)
    except ValidationError as error:
        first = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtifactError(
            f"The manifest {name} has {error.error_count()} wrong fields, first {first:.60}", remedy
        ) from None
    # Over the file's own fields, not the model's: a field that a later version adds must not unseal older files.
    seals = {"digest": manifest.digest, "checksum": manifest.checksum}
    if data.decode("utf-8") != _file_text(plain) or _seals(plain) != seals:
        raise ArtifactError(
            f"The manifest {name} was changed after it was written: its checksum does not match", remedy
        )
    return manifest


def _seals(plain: dict[str, Any]) -> dict[str, str]:
    digest = digest_of({key: value for key, value in plain.items() if key not in _OUTSIDE_DIGEST})
    checksum = digest_of({key: value for key, value in plain.items() if key != "checksum"} | {"digest": digest})
    return {"digest": digest, "checksum": checksum}


def _file_text(plain: dict[str, Any]) -> str:
    return json.dumps(plain, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def difference(existing: Manifest, wanted: Manifest) -> str:
    """Say in words how the record of what is there differs from what is wanted."""
    parts = []
    for section, values in wanted.parameters.items():
        old = existing.parameters.get(section)
        if isinstance(values, dict) and isinstance(old, dict):
            parts += [f"{section}.{key} = {old.get(key)}" for key, value in values.items() if old.get(key) != value]
        elif old != values:
            parts.append(f"{section} = {old}")
    if existing.encoder != wanted.encoder:
        parts.append("another encoder or tap")
    if existing.parent != wanted.parent:
        parts.append("another input artifact")
    if (existing.targets, existing.retain) != (wanted.targets, wanted.retain):
        parts.append("other photos")
    return ", ".join(parts) or f"another step ({existing.step})"
