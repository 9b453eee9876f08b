"""What processes that share a stage tell each other: files in a folder that all of them reach.

`plan.safetensors` says what is left to do, as the first of them saw it. `000017-PLAN.json` says that a shard of this
plan is done and what could not be used; `000017-PLAN.tensors` beside it holds its tensors, if it has any. Every file is
written under another name and then renamed.
"""

import hashlib
import json
import os
from pathlib import Path

import safetensors.torch
import torch

from ireu_cli.errors import ArtifactError
from ireu_cli.sharding.executor import Outcome, Positions, Shard, Stage, cut
from ireu_cli.store.files import disk_errors, make_private_folder, staged, write_bytes
from ireu_cli.store.system import place_new
from ireu_cli.store.tensors import read_tensors, write_tensors
from ireu_cli.support.bounded import ContentError, read_json

_DONE, _CLAIM = ".json", ".claim"
_LONGEST = 1 << 28
"""The most bytes of the list of what cannot be used in a shard."""


class Board:
    """The folder of one stage."""

    def __init__(self, folder: Path, stage: Stage) -> None:
        """Agree on what is left to do: the first one's view counts."""
        self._folder = folder
        path = folder / "plan.safetensors"
        with disk_errors(path, "--run-dir"):
            make_private_folder(folder.parent)
            make_private_folder(folder)
            if not path.exists():
                sizes = torch.tensor([stage.size, stage.head])
                data = safetensors.torch.save({"todo": torch.from_numpy(stage.todo), "sizes": sizes})
                with staged(path, data) as fresh:
                    place_new(fresh, path)
        try:
            data = path.read_bytes()
            plan = safetensors.torch.load(data)
            self.todo: Positions = plan["todo"].numpy()
            self.shards = cut(len(self.todo), *plan["sizes"].tolist())
            # A process that was not told that all is over may still finish a shard of an earlier plan.
            self._plan = hashlib.sha256(data).hexdigest()[:12]
        except (OSError, KeyError, ValueError, safetensors.SafetensorError):
            raise ArtifactError(f"The plan {path} is damaged", "Delete its folder, and run the step again") from None

    def claim(self, shard: Shard) -> Path:
        """The file that says that somebody is at work on a shard."""
        return self._path(shard, _CLAIM)

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard is done."""
        return self._path(shard, _DONE).exists()

    def done(self) -> set[int]:
        """The numbers of the shards that are done."""
        with os.scandir(self._folder) as entries:
            found = [entry.name.partition("-") for entry in entries]
        return {int(number) for number, _, rest in found if rest == self._plan + _DONE and number.isdecimal()}

    def finish(self, shard: Shard, outcome: Outcome) -> None:
        """Say that a shard is done, and what it gave."""
        if outcome.tensors:
            write_tensors(self._tensors(shard), outcome.tensors)
        told = {"tensors": bool(outcome.tensors), "unusable": outcome.unusable}
        write_bytes(self._path(shard, _DONE), json.dumps(told).encode(), durable=False)

    def outcome(self, shard: Shard) -> Outcome:
        """What a shard gave.

        Raises:
            ArtifactError: the files are damaged; they are removed.
        """
        path = self._path(shard, _DONE)
        try:
            told = read_json(path.read_bytes(), _LONGEST)
            unusable = {str(key): str(why) for key, why in told["unusable"].items()}
            tensors = read_tensors(self._tensors(shard)) if told["tensors"] else {}
        except (OSError, ContentError, AttributeError, KeyError, TypeError):
            tensors, unusable = None, {}
        if tensors is None:
            path.unlink(missing_ok=True)
            raise ArtifactError("The result of a shard is damaged", "Run the step again: only that shard is done again")
        return Outcome(unusable, tensors)

    def _tensors(self, shard: Shard) -> Path:
        return self._path(shard, ".tensors")

    def _path(self, shard: Shard, ending: str) -> Path:
        return self._folder / f"{shard.number:06d}-{self._plan}{ending}"
