"""Triton: a repository of numbered versions of a network, and a server that loads the newest one when it is told to.

The protocol: triton-inference-server, `docs/protocol/extension_model_repository.md`; the server has to run with
`--model-control-mode=explicit`. It says which versions are ready and not what is in them, so the versions' files are
read from the repository. No version is ever written twice or removed once the server may have loaded it.
"""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from ireu_cli.encoders.files.face_pack import is_pack, recogniser_in
from ireu_cli.errors import ArtifactError, ServiceError, UserError
from ireu_cli.manifest import digest_of
from ireu_cli.serving.exported import Exported
from ireu_cli.serving.service import Answer, Service
from ireu_cli.serving.stack import Back, Holding
from ireu_cli.store.files import file_sha256, write_folder
from ireu_cli.support.bounded import inside, safe_name
from ireu_cli.values import Json

_NETWORK = "model.onnx"
_READY = "READY"


@dataclass(frozen=True)
class Repository:
    """The folder of one model in a repository, as it lies here."""

    folder: Path

    def versions(self) -> dict[int, Path]:
        """The versions' folders by their numbers; Triton overlooks other names."""
        if not self.folder.is_dir():
            return {}
        names = (entry.name for entry in self.folder.iterdir() if entry.is_dir())
        return {int(name): self.folder / name for name in sorted(names) if name.isascii() and _is_version(name)}

    def digest(self, version: int, name: str) -> str | None:
        """SHA-256 (hex) of a version's network; None if it has none."""
        file = self.folder / str(version) / name
        try:
            return file_sha256(file) if file.is_file() else None
        except OSError as error:
            raise ArtifactError(f"{file} cannot be read ({error.strerror})", "Check its permissions") from None

    def add(self, network: Path, digest: str, name: str) -> int:
        """Write a new version, which appears as a whole.

        Raises:
            ArtifactError: the folder cannot be written, or the copy is not what was read.
        """
        version = max(self.versions(), default=0) + 1

        def fill(folder: Path) -> None:
            shutil.copyfile(network, folder / name)
            if file_sha256(folder / name) != digest:
                raise ArtifactError(f"{network} changed while it was copied", "Repeat the command")

        write_folder(self.folder / str(version), fill, shared=True)
        return version

    def remove(self, version: int) -> None:
        """Take back a version that the server did not load."""
        shutil.rmtree(self.folder / str(version), ignore_errors=True)


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
    def repository(self) -> Repository:
        """Where the versions lie."""
        return Repository(self.root / self.model)

    def holding(self) -> Holding | None:
        """The network of the version that is ready. Several versions count as one only if they are the same.

        Raises:
            ServiceError: the file of a version that is ready is not in the repository.
        """
        ready = self._ready()
        if not ready:
            return None
        name = self._file_name()
        found = {version: self.repository.digest(version, name) for version in ready}
        for version, digest in found.items():
            if digest is None:
                raise ServiceError(
                    f"The server holds version {version}, and {self.repository.folder} has no {name} of it",
                    "Name the repository that the server reads with --repository",
                )
        every = sorted({str(digest) for digest in found.values()})
        return Holding(every[0] if len(every) == 1 else digest_of(every), max(ready))

    def path_of(self, _export: Exported) -> None:
        """Exports become versions of the repository."""

    def held_as(self, export: Exported, held: Holding) -> str | None:
        """The version under which it holds an export, in words."""
        return f"as version {held.version}" if held.digest == network_of(export)[1] else None

    def put(self, export: Exported) -> Back:
        """Write the export as a new version and load it.

        Raises:
            ServiceError: the server did not load it, and holds what it held before.
        """
        return self._published(*network_of(export))

    def put_back(self, back: Back) -> Back:
        """Write the network of an earlier version as a new version and load it.

        Raises:
            ServiceError: no version has it any more, or the server did not load it.
        """
        name = self._file_name()
        for version in sorted(self.repository.versions(), reverse=True):
            if self.repository.digest(version, name) == back.holding.digest:
                return self._published(self.repository.folder / str(version) / name, back.holding.digest)
        raise ServiceError(
            f"No version in {self.repository.folder} is what the server held earlier", "Deploy an export instead"
        )

    def _published(self, network: Path, digest: str) -> Back:
        config = self._config()
        policy = config.get("version_policy", {"latest": {"num_versions": 1}})
        if policy != {"latest": {"num_versions": 1}}:
            raise ServiceError(
                "The model's version_policy keeps other versions than the newest one loaded",
                "Set it to latest with num_versions 1, so that nobody can ask for an older one",
            )
        name = self._file_name()
        newest = max(self.repository.versions(), default=0)
        # What an interrupted command has written is loaded and not written again.
        known = newest > 0 and self.repository.digest(newest, name) == digest
        version = newest if known else self.repository.add(network, digest, name)
        before = self._ready()
        answer = self.service.post(f"v2/repository/models/{quote(self.model, safe='')}/load", {})
        ready = self._ready_after(version) if answer.is_good else self._ready()
        if ready == [version]:
            return Back(Holding(digest, version))
        if version not in ready and not known:
            self.repository.remove(version)
        held = f"version {', '.join(map(str, ready))}" if ready else "NOTHING"
        same = "still" if ready and ready == before else "now"
        raise ServiceError(
            f"The server did not load version {version} ({answer.words}); it {same} holds {held}",
            "See its log; it has to run with --model-control-mode=explicit",
        )

    def _ready_after(self, version: int) -> list[int]:
        """The versions that are ready, as soon as this one is; a server answers some loads before they are done."""
        for pause in (0.0, 0.5, 1.0, 2.0, 4.0, 8.0):
            time.sleep(pause)
            if version in (ready := self._ready()):
                return ready
        return ready

    def _ready(self) -> list[int]:
        answer = self.service.post("v2/repository/index", {})
        if not answer.is_good or not isinstance(answer.body, list):
            raise ServiceError(
                f"{self.service.url} does not list its models ({answer.words})",
                "Use a server with the extension model_repository, and name another kind of service with --to",
            )
        return sorted({int(one["version"]) for one in answer.body if self._is_ready(one)})

    def _is_ready(self, one: Json) -> bool:
        return (
            isinstance(one, dict)
            and one.get("name") == self.model
            and one.get("state") == _READY
            and _is_version(str(one.get("version")))
        )

    def _file_name(self) -> str:
        """What the network is called in a version's folder."""
        name = self._config().get("default_model_filename") or _NETWORK
        return safe_name(name, 200, "The model's default_model_filename")

    def _config(self) -> dict[str, Json]:
        """The configuration of the loaded model; empty if none is loaded."""
        answer: Answer = self.service.get(f"v2/models/{quote(self.model, safe='')}/config")
        return answer.body if answer.is_good and isinstance(answer.body, dict) else {}


def network_of(export: Exported) -> tuple[Path, str]:
    """The edited network of an export, and its SHA-256 (hex).

    Raises:
        ArtifactError: the export is no network.
    """
    places = [export.folder / one.name for one in export.networks]
    if len(places) > 1 and is_pack(export.folder):
        places = [recogniser_in(export.folder)]
    if len(places) != 1:
        raise ArtifactError(
            f"The export {export.folder} has no single network in ONNX, which is what ireu puts into Triton",
            "Export a face-embedding network, or load the folder by a Python backend of your own",
        )
    return places[0], file_sha256(places[0])


def add_version(export: Exported, root: Path, model: str) -> Path:
    """Write an export as the newest version of a model, without any server; one that is there already stays.

    Raises:
        ArtifactError: the export is no network, or the folder cannot be written.
    """
    safe_name(model, 200, "The model")
    repository = Repository(inside(root, model, "The model"))
    network, digest = network_of(export)
    newest = max(repository.versions(), default=0)
    if newest and repository.digest(newest, _NETWORK) == digest:
        return repository.folder / str(newest)
    return repository.folder / str(repository.add(network, digest, _NETWORK))


def _is_version(name: str) -> bool:
    """Whether Triton takes a name for a version: a positive number without a zero in front."""
    return name.isdecimal() and not name.startswith("0") and len(name) < 19
