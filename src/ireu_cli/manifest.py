"""The record beside each artifact: what was done, with which inputs, by which tool. It holds no tensors and no files.

`digest` covers everything except when and where the run took place, so that the same work has the same digest on any
day. `checksum` covers every field, so that no byte of the record can change unnoticed.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    model_serializer,
)

from ireu_cli.errors import ArtifactError
from ireu_cli.params import LONGEST_TAP, TAP_PATTERN, Config
from ireu_cli.support.bounded import ContentError, read_json
from ireu_cli.support.record_text import is_text_of, text_of
from ireu_cli.support.roster import NOBODY as NOBODY
from ireu_cli.support.roster import Hash, cut_retained
from ireu_cli.support.roster import PersonRecord as PersonRecord
from ireu_cli.support.roster import Roster as Roster

SCHEMA_VERSION = 1
"""Raise it when a field changes meaning, add a reader for the old form, and add `tests/fixtures/schema_v<N>/`."""

Step = Literal["locate", "unlearn", "verify", "export", "apply"]

# Time, machine and run folder are left out, because the same run elsewhere is still the same run.
_OUTSIDE_DIGEST = frozenset({"environment", "timings", "digest", "checksum", "seal"})


MOST_BYTES = 1 << 28
"""The most bytes of a manifest: one with a million photos has some 100 MB."""
UNDEFINED = "undefined"
"""The metric that names the metrics that are not numbers, such as a share of nothing; they are null."""
_DIGITS = 12
"""Digits of a metric: further digits differ from run to run, because libraries add in varying order."""
_LONGEST, _LARGEST = 20_000, 1e300
"""The largest length of a text, and the largest number, in parameters and metrics."""


def _downwards(name: str) -> str:
    """A file below the manifest's folder."""
    if "\0" in name or name.startswith("/") or ".." in name.split("/"):
        raise ValueError("leads out of the folder")
    return name


def _bounded(values: dict[str, Any]) -> dict[str, Any]:
    for value in _leaves(values):
        if isinstance(value, str) and len(value) > _LONGEST:
            raise ValueError("holds a text that is too long")
        if isinstance(value, int | float) and not abs(value) <= _LARGEST:
            raise ValueError("holds a number that is too large")
    return values


def _requests(metrics: dict[str, Any]) -> dict[str, Any]:
    """The requests in a delta: photos by case."""
    if "requests" in metrics:
        _REQUESTS.validate_python(metrics["requests"])
    return metrics


def _leaves(value: Any) -> Iterator[Any]:
    """Every key, and every value that is not a list or object."""
    todo = [value]
    while todo:
        one = todo.pop()
        if isinstance(one, dict):
            todo += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            todo += one
        else:
            yield one


Seal = Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
"""Empty before the record is sealed."""
Words = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
"""A short text of one line."""
Values = Annotated[dict[str, Any], AfterValidator(_bounded)]
_REQUESTS = TypeAdapter(dict[str, list[Hash]])
_WRITER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """Serialise with sorted keys, no spaces and no NaN, so that equal values have equal text."""
    return _WRITER.encode(value)


def digest_of(value: Any) -> str:
    """SHA-256 (hex) over the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileRecord(_Record):
    """One file by its bytes. `name` is relative to the manifest's folder and never a photo's."""

    name: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_downwards)]
    sha256: Hash
    size: int = Field(ge=0, lt=2**63)


class EncoderRecord(_Record):
    """The encoder, by its tensors: `fingerprint` is independent of the file layout.

    `settings` is a digest of the settings of its computation that no tensor tells; records of earlier versions have
    none.
    """

    fingerprint: Hash
    architecture: Words
    tap: str = Field(pattern=TAP_PATTERN, max_length=LONGEST_TAP)
    layers: int = Field(ge=0, le=1_000_000)
    settings: Hash | None = None

    @model_serializer(mode="wrap")
    def _as_before(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out missing settings, so that an older record keeps its digest."""
        found: dict[str, Any] = plain(self)
        if self.settings is None:
            found.pop("settings", None)
        return found

    def fits(self, settings: str | None) -> bool:
        """Whether an encoder with the same weights computes like this one, as far as the records tell."""
        return self.settings in {None, settings}


class Manifest(_Record):
    """The record of one step. All digests are hex; `parent` is the digest of the parent's manifest."""

    schema_version: Literal[1] = 1
    step: Step
    state: Literal["running", "complete"]
    tool_version: str = Field(pattern=r"^[0-9A-Za-z.+!_-]{1,64}$")
    identity: Hash = Field(description="digest of everything that decides the result: step, parameters, inputs, parent")
    seed: int = Field(ge=0, lt=2**31)
    parameters: Values
    encoder: EncoderRecord
    parent: Hash | None = None
    key: str | None = Field(
        None, pattern=r"^[0-9a-f]{16}$", description="which run folder's key the photo digests are keyed with"
    )
    targets: Roster = NOBODY
    retain: Roster = NOBODY
    inputs: tuple[FileRecord, ...] = ()
    outputs: tuple[FileRecord, ...] = ()
    metrics: Annotated[Values, AfterValidator(_requests)] = {}
    environment: dict[Words, Words] = Field({}, max_length=100)
    timings: dict[Words, Annotated[float, Field(ge=0, lt=1e12)]] = Field({}, max_length=1000)
    digest: Seal = ""
    checksum: Seal = ""
    seal: Hash | None = Field(None, description="HMAC of `digest` with the run folder's key, which `key` names")

    @property
    def is_of_several(self) -> bool:
        """Whether a delta combines several requests, so that one photo folder need not hold the photos of all."""
        requests = self.metrics.get("requests")
        return requests is not None and (len(requests) != 1 or "withdrawn" in self.metrics)

    def sealed(self, seal: Callable[[str], str] | None = None) -> Self:
        """Return the record with `digest` and `checksum` filled in; metrics that are not numbers become null.

        `seal` makes the keyed seal from the digest; with None the record keeps its seal.
        """
        known = self.model_copy(update={"metrics": _numbers(self.metrics)})
        return known.model_copy(update=_seals(known.plain(), seal))

    def plain(self) -> dict[str, Any]:
        """The fields as in JSON; people stay rosters, because there may be very many."""
        fields = self.model_dump(mode="json", exclude={"targets", "retain"})
        return fields | {"targets": self.targets, "retain": self.retain}

    def text(self) -> str:
        """Return the file's text: sorted keys, two spaces of indent, one newline at the end."""
        return text_of(self.plain())

    def config(self) -> Config:
        """Return the parameters as a configuration, with defaults for sections that the step did not use."""
        try:
            return Config.model_validate(self.parameters)
        except ValidationError as error:
            raise ArtifactError(
                f"This version of ireu cannot use the manifest's parameters ({error.error_count()} mistakes)",
                "Use the version of ireu that wrote it",
            ) from None


def photos_of(people: Iterable[PersonRecord]) -> set[str]:
    """Keyed digests of everybody's photos."""
    return people.photos() if isinstance(people, Roster) else {digest for one in people for digest in one.photos}


def completed(
    manifest: Manifest, outputs: tuple[FileRecord, ...], seal: Callable[[str], str] | None = None
) -> Manifest:
    """The sealed manifest of a finished step; `seal` makes the keyed seal from the digest, None leaves it unsealed."""
    return manifest.model_copy(update={"state": "complete", "outputs": outputs, "seal": None}).sealed(seal)


def parse_manifest(data: bytes, name: str) -> Manifest:
    """Read a manifest and check that it is consistent.

    Args:
        data: the file's bytes.
        name: the file's name in messages.

    Raises:
        ArtifactError: it is not JSON, has another schema version or unknown or missing fields, or a byte has changed.
    """
    remedy = "Run the step that writes it again, or restore the file from a copy"
    rest, retain = cut_retained(data) if len(data) <= MOST_BYTES else (data, None)
    try:
        plain = read_json(rest, MOST_BYTES, name=name)
    except ContentError as error:
        raise ArtifactError(f"The manifest {name} {error.why}", remedy) from None
    if not isinstance(plain, dict):
        raise ArtifactError(f"The manifest {name} is not a JSON object", remedy)
    if (version := plain.get("schema_version")) != SCHEMA_VERSION:
        raise ArtifactError(
            f"The manifest {name} has schema version {version!r:.40}; this version of ireu reads {SCHEMA_VERSION}",
            "Install the version of ireu that wrote it, or restore the file if it was damaged",
        )
    # It covers the file's own fields, not the model's: a field that a later version adds must not unseal older files.
    people = {} if retain is None else {"retain": retain}
    sealed = _seals(plain | people) if is_text_of(plain, rest.decode("utf-8")) else None
    # With very many photos, keep only one form of them in memory at a time.
    del plain
    try:
        manifest = Manifest.model_validate_json(rest).model_copy(update=people)
    except ValidationError as error:
        first = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise ArtifactError(
            f"The manifest {name} has {error.error_count()} wrong fields, first {first:.60}", remedy
        ) from None
    if sealed != {"digest": manifest.digest, "checksum": manifest.checksum}:
        raise ArtifactError(
            f"The manifest {name} was changed after it was written: its checksum does not match", remedy
        )
    return manifest


def _numbers(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics with null for values that are not numbers, and with their names; numbers have only repeatable digits."""
    gone: list[str] = []

    def clean(value: Any, name: str) -> Any:
        if isinstance(value, dict):
            return {key: clean(part, f"{name}.{key}" if name else str(key)) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [clean(part, name) for part in value]
        if isinstance(value, float) and not math.isfinite(value):
            gone.append(name)
            return None
        return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value

    found: dict[str, Any] = clean(metrics, "")
    return found | ({UNDEFINED: sorted(set(gone))} if gone else {})


def _seals(plain: dict[str, Any], seal: Callable[[str], str] | None = None) -> dict[str, str]:
    """The digest and the checksum of a record, and the keyed seal that is made from the digest."""
    # Each field is written as text only once, because there may be very many photos.
    fields = {key: text_in(value) for key, value in plain.items() if key not in {"digest", "checksum"}}
    found = {"digest": _digest_of_texts({key: text for key, text in fields.items() if key not in _OUTSIDE_DIGEST})}
    if seal is not None:
        found["seal"] = seal(found["digest"])
    found["checksum"] = _digest_of_texts(fields | {key: canonical_json(value) for key, value in found.items()})
    return found


def text_in(value: Any) -> str:
    """Canonical JSON of a value, which may be a roster."""
    return value.canonical if isinstance(value, Roster) else canonical_json(value)


def digest_of_fields(plain: dict[str, Any]) -> str:
    """As `digest_of`, of an object that may have rosters as values."""
    return _digest_of_texts({key: text_in(value) for key, value in plain.items()})


def _digest_of_texts(fields: dict[str, str]) -> str:
    """As `digest_of`, of an object whose values are canonical JSON already."""
    digest, mark = hashlib.sha256(), "{"
    for key, value in sorted(fields.items()):
        digest.update(f"{mark}{canonical_json(key)}:".encode())
        digest.update(value.encode())
        mark = ","
    digest.update(b"}" if fields else b"{}")
    return digest.hexdigest()


def difference(existing: Manifest, wanted: Manifest, case: str | None = None) -> str:
    """Say in words how an existing record differs from the wanted one.

    `case` is the wanted `record.case_id`, which a manifest does not state before it is complete.
    """
    parts = []
    for section, values in wanted.parameters.items():
        old = existing.parameters.get(section)
        if isinstance(values, dict) and isinstance(old, dict):
            parts += [f"{section}.{key} = {old.get(key)}" for key, value in values.items() if old.get(key) != value]
        elif old != values:
            parts.append(f"{section} = {old}")
    if existing.step != wanted.step:
        parts.append(f"another step ({existing.step})")
    if existing.encoder != wanted.encoder:
        parts.append("another encoder or tap")
    if existing.parent != wanted.parent:
        parts.append("another input artifact")
    if (existing.targets, existing.retain) != (wanted.targets, wanted.retain):
        parts.append("other photos")
    return ", ".join(parts or _unrecorded(existing, wanted, case))


def _unrecorded(existing: Manifest, wanted: Manifest, case: str | None) -> list[str]:
    """Differences that no parameter shows: cases of requests, and how libraries prepare photos."""
    cases = existing.metrics.get("requests") or {}
    unnamed = existing.identity[:12]
    parts = []
    if cases and case not in cases and not (case is None and unnamed in cases):
        named = ", ".join(name for name in cases if name != unnamed)
        parts.append(f"record.case_id = {named}" if named else "no record.case_id")
    changed = [
        f"{name} {old}"
        for name in ("transformers", "torch", "pillow", "onnxruntime")
        if (old := existing.environment.get(name)) and old != wanted.environment.get(name)
    ]
    if changed:
        parts.append(f"other versions of libraries ({', '.join(changed)})")
    if existing.tool_version != wanted.tool_version:
        parts.append(f"ireu {existing.tool_version}")
    return parts or ["something that no parameter names, such as another --onto delta or other swapped faces"]
