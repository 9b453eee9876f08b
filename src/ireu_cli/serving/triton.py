"""Triton: a repository of numbered versions of a network, and a server that loads the newest one when it is told to.

The protocol: triton-inference-server, `docs/protocol/extension_model_repository.md`; the server has to run with
`--model-control-mode=explicit`. It says which versions are ready and not what is in them, so the versions' files are
read from the repository. No number is ever given twice, and no version is removed once the server may have loaded it.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in
from ireu_cli.errors import ArtifactError, ServiceError, UserError
from ireu_cli.manifest import digest_of
from ireu_cli.serving.exported import Exported
from ireu_cli.serving.repository import Repository, is_version, refuse_unusual
from ireu_cli.serving.service import Answer, Service
from ireu_cli.serving.stack import Back, Holding
from ireu_cli.store.files import native_name
from ireu_cli.support.bounded import inside, printable, safe_name
from ireu_cli.values import Json

_NETWORK = "model.onnx"
_READY, _LOADING, _UNAVAILABLE = "READY", "LOADING", "UNAVAILABLE"
_LATEST = {"latest": {"num_versions": 1}}
_MODE = "See its log; it has to run with --model-control-mode=explicit"


@dataclass(frozen=True)
class Triton:
    """A model of a server, whose repository lies in a folder that is seen from here."""

    service: Service
    root: Path
    model: str

    def __post_init__(self) -> None:
        """Check the name, which becomes a part of paths and of URLs."""
        safe_name(self.model, 200, "The model")
        if not self.root.is_dir():
            raise UserError(f"The repository {self.root} is no folder", "Name the server's model repository")
        inside(self.root, self.model, "The model")

    @property
    def kind(self) -> str:
        """The name of the kind of service."""
        return "Triton"

    @property
    def place(self) -> str:
        """The URL and the model."""
        return f"{self.model} at {self.service.url}"

    @property
    def key(self) -> str:
        """The model's folder, whatever the server is called."""
        return os.fsencode(self.repository.folder.resolve()).hex()

    @property
    def repository(self) -> Repository:
        """Where the versions lie."""
        return Repository(self.root / self.model)

    def holding(self) -> Holding | None:
        """The network of the version that is ready. Several versions count as one only if they are the same.

        Raises:
            ServiceError: the server does not say, or names its files in a way that ireu cannot follow.
        """
        ready = self._ready()
        if not ready:
            return None
        name = self._file_name(self._config())
        found = {version: self.repository.digest(version, name) for version in ready}
        if gone := [version for version, digest in found.items() if digest is None]:
            note = f"version {gone[0]} is loaded, and {self.repository.folder} has no {name} of it"
            return Holding(digest_of([self.key, *ready]), max(ready), note)
        every = sorted({str(digest) for digest in found.values()})
        if len(every) > 1:
            return Holding(
                digest_of(every), max(ready), f"versions {', '.join(map(str, ready))} hold different networks"
            )
        newest = self.repository.newest
        if newest not in ready and self.repository.digest(newest, name) != every[0]:
            note = f"version {newest} lies in the repository with another network; the next start loads that one"
            return Holding(every[0], max(ready), note)
        return Holding(every[0], max(ready))

    def path_of(self, _export: Exported) -> None:
        """Exports become versions of the repository."""

    def can_return(self, back: Back) -> bool:
        """Whether a version has that network."""
        return self.repository.with_digest(back.holding.digest, self._file_name(self._config())) is not None

    def held_as(self, export: Exported, held: Holding) -> str | None:
        """The version under which it holds an export, in words."""
        return f"as version {held.version}" if held.digest == network_of(export)[1] else None

    def put(self, export: Exported) -> Back:
        """Write the export as a new version and load it.

        Raises:
            ServiceError: the server did not load it; the message says what it holds.
        """
        return self._published(*network_of(export))

    def put_back(self, back: Back) -> Back:
        """Write the network of an earlier version as a new version and load it.

        Raises:
            ServiceError: no version has it any more, or the server did not load it.
        """
        name = self._file_name(self._config())
        version = self.repository.with_digest(back.holding.digest, name)
        if version is None:
            raise ServiceError(
                f"No version in {self.repository.folder} is what the server held earlier", "Deploy an export instead"
            )
        return self._published(self.repository.folder / str(version) / name, back.holding.digest)

    def _published(self, network: Path, digest: str) -> Back:
        with self.repository.alone():
            config = self._config()
            if config.get("version_policy", _LATEST) != _LATEST:
                raise ServiceError(
                    "The model's version_policy keeps other versions than the newest one loaded",
                    "Set it to latest with num_versions 1, so that nobody can ask for an older one",
                )
            name, before = self._file_name(config), self._states()
            # What an interrupted command has written is loaded and not written again.
            version = self.repository.ensure(network, digest, name, max(before, default=0))
            answer = self.service.post(f"v2/repository/models/{quote(self.model, safe='')}/load", {})
            if self._settled(version, 0.0 if answer.is_refusal else self.service.patience) == [version]:
                return Back(Holding(digest, version))
            raise self._refused(version, answer, before)

    def _refused(self, version: int, answer: Answer, before: dict[int, str]) -> ServiceError:
        """What went wrong; a version that the server will certainly not load any more is taken back."""
        states = self._states()
        ready = [one for one, state in states.items() if state == _READY]
        held = f"version {', '.join(map(str, ready))}" if ready else "NOTHING"
        same = "still" if ready and ready == [one for one, state in before.items() if state == _READY] else "now"
        said = f"The server did not load version {version} ({answer.words}); it {same} holds {held}"
        # A gateway that lost patience says nothing of what the server goes on to do.
        is_sure = answer.is_refusal and states.get(version) in {None, _UNAVAILABLE}
        if is_sure and self.repository.remove(version):
            return ServiceError(said, _MODE)
        return ServiceError(
            f"{said}. Version {version} stays in the repository, and the next start loads it",
            f"{_MODE}. Then repeat the command, or remove that version",
        )

    def _settled(self, version: int, patience: float) -> list[int]:
        """The versions that are ready when the server has made up its mind about this one."""
        deadline, pause = time.monotonic() + patience, 0.1
        while True:
            states = self._states()
            if states.get(version) not in {_LOADING, None} or time.monotonic() > deadline:
                break
            if states.get(version) is None and pause > 2:
                break
            time.sleep(pause)
            pause = min(2 * pause, 8.0)
        return [one for one, state in states.items() if state == _READY]

    def _ready(self) -> list[int]:
        return [version for version, state in self._states().items() if state == _READY]

    def _states(self) -> dict[int, str]:
        """The state of every version that the server names, in the order of the numbers."""
        answer = self.service.post("v2/repository/index", {})
        if not answer.is_good or not isinstance(answer.body, list):
            raise ServiceError(
                f"{self.service.url} does not list its models ({answer.words})",
                "Use a server with the extension model_repository, and name another kind of service with --to",
            )
        found: dict[int, str] = {}
        for one in answer.body:
            if not isinstance(one, dict) or one.get("name") != self.model:
                continue
            version, state = str(one.get("version", "")), str(one.get("state"))
            if is_version(version):
                found[int(version)] = state
            elif version or state == _READY:
                raise ServiceError(
                    f"The server names a version {printable(version)!r} of {self.model}", "Use versions with numbers"
                )
        return dict(sorted(found.items()))

    def _file_name(self, config: dict[str, Json]) -> str:
        """What the network is called in a version's folder."""
        if config.get("cc_model_filenames"):
            raise ServiceError(
                "The model has another file for some GPUs (cc_model_filenames), and ireu cannot tell which is loaded",
                "Leave that out of its configuration",
            )
        return safe_name(config.get("default_model_filename") or _NETWORK, 200, "The model's default_model_filename")

    def _config(self) -> dict[str, Json]:
        """The configuration of the loaded model; that of a model that is not loaded has to be the usual one.

        Raises:
            ServiceError: the server does not say.
        """
        answer: Answer = self.service.get(f"v2/models/{quote(self.model, safe='')}/config")
        if answer.is_good and isinstance(answer.body, dict):
            return answer.body
        if self._ready():
            raise ServiceError(
                f"The server does not say how {self.model} is configured ({answer.words})", "Repeat the command"
            )
        refuse_unusual(self.repository)
        return {}


def network_of(export: Exported) -> tuple[Path, str]:
    """The edited network of an export, and its recorded SHA-256 (hex).

    Raises:
        ArtifactError: the export is no network, or insightface would use a file that its record does not list.
    """
    recorded = {export.folder / native_name(one.name): one.sha256 for one in export.networks}
    wanted = next(iter(recorded)) if len(recorded) == 1 else None
    if len(recorded) > 1 and is_pack(export.folder):
        wanted = recogniser_in(export.folder)
    if wanted is None or wanted not in recorded:
        raise ArtifactError(
            f"The export {export.folder} has no single network in ONNX, which is what ireu puts into Triton",
            "Export a face-embedding network, or load the folder by a Python backend of your own",
        )
    return wanted, recorded[wanted]


def add_version(export: Exported, root: Path, model: str) -> Path:
    """Write an export as the newest version of a model, without any server; one that is there already stays.

    Raises:
        ArtifactError: the export is no network, or the folder cannot be written.
    """
    safe_name(model, 200, "The model")
    repository = Repository(inside(root, model, "The model"))
    refuse_unusual(repository)
    network, digest = network_of(export)
    with repository.alone():
        return repository.folder / str(repository.ensure(network, digest, _NETWORK))
