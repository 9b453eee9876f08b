"""What was put into which place of which service, so that it can be put back. It lies in the run folder."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ireu_cli.errors import ArtifactError
from ireu_cli.manifest import canonical_json
from ireu_cli.store.files import make_private_folder, read_bytes, write_bytes
from ireu_cli.store.locks import Note, waited
from ireu_cli.store.register import Case, Hash
from ireu_cli.support.bounded import MOST_JSON, ContentError, read_json

_KEPT = 100
"""How many deployments of one place are remembered."""


class Served(BaseModel):
    """What a service held: by the digest that it was known by, where it lay, and which export it was.

    `artifact`, `encoder`, `edited` and `cases` are empty of what was there before the first deployment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Hash
    version: int | None = None
    path: str | None = None
    artifact: Hash | None = None
    encoder: Hash | None = None
    edited: Hash | None = None
    cases: tuple[Case, ...] = ()


class _Kept(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    served: tuple[Served, ...] = Field(max_length=_KEPT)


class Deployments:
    """What one place of a service held, the last one last."""

    def __init__(self, folder: Path, place: str, note: Note = lambda _text: None) -> None:
        """Args: the run folder, the place by its name in the register, and what takes messages."""
        self._path, self._note = folder / "deployments" / f"{place}.json", note

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes of this run folder from deploying to the same place meanwhile."""
        make_private_folder(self._path.parent)
        with waited(self._path.with_suffix(".lock"), self._path, self._note):
            yield

    def read(self) -> tuple[Served, ...]:
        """Everything that is known.

        Raises:
            ArtifactError: the file is damaged.
        """
        if not self._path.exists():
            return ()
        remedy = "Remove it; then ireu does not know any more what was served before"
        data = read_bytes(self._path, "The list of deployments", remedy, MOST_JSON)
        try:
            return _Kept.model_validate(read_json(data)).served
        except (ValidationError, ContentError):
            raise ArtifactError(f"The list of deployments {self._path} is damaged", remedy) from None

    def write(self, served: tuple[Served, ...]) -> None:
        """Replace what is known; of a long list the end."""
        kept = _Kept(served=served[-_KEPT:])
        write_bytes(self._path, canonical_json(kept.model_dump(mode="json")).encode())
