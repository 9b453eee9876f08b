"""Triton's model repository extension in explicit mode, after its `docs/protocol/extension_model_repository.md`."""

import re
from pathlib import Path
from typing import Any

import onnx

from tests.services.http import KilledError, Reply

LATEST = {"latest": {"num_versions": 1}}


class Triton:
    """A repository, and the versions that are in memory; a server that starts anew loads the newest ones."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.file_name = ""
        self.policy: dict[str, Any] = LATEST
        self.kill_before = self.kill_after = self.polls = self.loses_patience = self.hides_config = False
        self.gpu_files: dict[str, str] = {}
        self.loaded: dict[str, dict[int, bytes]] = {}
        self.is_dead = False
        self.start()

    def start(self) -> None:
        """Load every model, as after a crash."""
        self.loaded, self.is_dead = {}, False
        for folder in sorted(self.root.iterdir()):
            self._load(folder.name)

    def _killed(self) -> KilledError:
        self.is_dead = True
        return KilledError()

    def __call__(self, method: str, path: str, _body: Any) -> Reply:
        if self.is_dead:
            raise KilledError
        if (method, path) == ("GET", "v2"):
            return 200, {"name": "triton", "version": "2.60.0", "extensions": ["model_repository"]}
        if (method, path) == ("POST", "v2/repository/index"):
            return 200, self._index()
        if method == "POST" and (found := re.fullmatch("v2/repository/models/([^/]+)/load", path)):
            return self._asked_to_load(found[1])
        if method == "GET" and (found := re.fullmatch("v2/models/([^/]+)/config", path)):
            if found[1] not in self.loaded:
                return 400, {"error": "Request for unknown model: is not found"}
            if self.hides_config:
                return 503, {"error": "busy"}
            return 200, {
                "name": found[1], "default_model_filename": self.file_name, "version_policy": self.policy,
                "cc_model_filenames": self.gpu_files,
            }  # fmt: skip
        return 404, {"error": "Not Found"}

    def _index(self) -> list[dict[str, str]]:
        found = []
        for folder in sorted(self.root.iterdir()):
            versions = self.loaded.get(folder.name, {})
            found += [
                {"name": folder.name, "version": str(n), "state": "READY", "reason": ""} for n in sorted(versions)
            ]
            if not versions:
                found.append({"name": folder.name, "state": "UNAVAILABLE", "reason": "unloaded"})
        return found

    def _asked_to_load(self, name: str) -> Reply:
        if self.kill_before:
            raise self._killed()
        if self.polls:
            return 503, {"error": "explicit model load / unload is not allowed if polling is enabled"}
        if not self._load(name):
            return 400, {"error": f"failed to load '{name}', failed to poll from model repository"}
        if self.kill_after:
            raise self._killed()
        return (504, {"error": "gateway timeout"}) if self.loses_patience else (200, b"")

    def _load(self, name: str) -> bool:
        """The newest version; where it cannot be loaded, what is loaded stays."""
        versions = sorted(int(each.name) for each in (self.root / name).iterdir() if each.name.isdecimal())
        if not versions:
            return False
        place = self.root / name / str(versions[-1]) / (self.file_name or "model.onnx")
        try:
            onnx.load(place)
        except Exception:  # noqa: BLE001 - a server outlives every file
            return False
        kept = {} if self.policy == LATEST else self.loaded.get(name, {})
        self.loaded[name] = {**kept, versions[-1]: place.read_bytes()}
        return True
