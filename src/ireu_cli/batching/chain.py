"""The deltas of a batch's folder in their order, and what the register says of them."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ireu_cli.batching.plan import Plan
from ireu_cli.cases.events import event_of
from ireu_cli.config import Resolved
from ireu_cli.manifest import Manifest
from ireu_cli.opening import StepResult
from ireu_cli.store.manifests import manifest_path, read_manifest
from ireu_cli.store.register import Register, read_register
from ireu_cli.store.rundir import RunDir

Resolve = Callable[[Mapping[str, Any]], Resolved]
"""Makes the configuration of a step from the settings that are its own."""
_NAME = re.compile(r"([0-9]{4,})\.safetensors")


class Chain:
    """The deltas of a folder; a new one is made onto the last one."""

    def __init__(self, folder: Path, onto: Path | None) -> None:
        """Args: the folder, and the delta that the first one is made onto."""
        self._folder, self.last = folder, onto
        self.manifest: Manifest | None = None
        self.refresh()

    def refresh(self) -> None:
        """Look at the folder again; a delta without its manifest is none."""
        names = ((int(found[1]), path) for path in self._folder.iterdir() if (found := _NAME.fullmatch(path.name)))
        done = [(number, path) for number, path in names if manifest_path(path).is_file()]
        self._number, self.last = max(done) if done else (0, self.last)
        self.manifest = None if self.last is None else read_manifest(manifest_path(self.last))

    @property
    def next(self) -> Path:
        """Where the next one goes."""
        return self._folder / f"{self._number + 1:04d}.safetensors"

    @property
    def cases(self) -> frozenset[str]:
        """The cases that the last one removes."""
        return frozenset() if self.manifest is None else frozenset(self.manifest.metrics.get("requests", ()))

    def add(self, made: StepResult) -> None:
        """The delta that was just made is the last one."""
        self._number, self.last, self.manifest = self._number + 1, made.artifact, made.manifest

    def is_of(self, record: Path) -> bool:
        """Whether an output is there that was made of the last delta."""
        return record.is_file() and self.manifest is not None and read_manifest(record).parent == self.manifest.digest


def note_last(plan: Plan, chain: Chain, resolve: Resolve) -> None:
    """Add the last delta to the register, if a run that was killed had no time for that."""
    if chain.manifest is None or chain.manifest.step != "unlearn":
        return
    dates = {one.case: one.record for one in plan.requests}
    config = resolve({}).config
    wanted = dates.get(str(chain.manifest.metrics.get("case")), {})
    event = event_of(chain.manifest, None, config.record.model_copy(update=dict(wanted)))
    if event is not None:
        _register(resolve).add(event)


def withdrawn_cases(resolve: Resolve) -> frozenset[str]:
    """The cases of which the register knows that they were withdrawn once."""
    path = _register(resolve).path
    entries = read_register(path).entries if path.is_file() else ()
    return frozenset(case for entry in entries if entry.what == "withdrawal" for case in entry.cases)


def _register(resolve: Resolve) -> Register:
    run = resolve({}).config.run
    return RunDir(run.run_dir).register(run.register_file)
