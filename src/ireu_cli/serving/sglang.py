"""SGLang-Diffusion: a server that loads weights from a folder in place, and says the digest of what it holds.

Its routes, and what the digest is over: sglang, `multimodal_gen/runtime/entrypoints/post_training/weights_api.py` and
`runtime/loader/weights_updater.py`. The server itself reads the folder of weights, or the folder in it that has the
module's name. So it has to lie where the server sees it.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from ireu_cli.errors import ServiceError, UserError
from ireu_cli.serving.exported import Exported, Weights
from ireu_cli.serving.service import Service
from ireu_cli.serving.stack import Back, Holding

_DIGEST = re.compile(r"[0-9a-f]{64}")
_ABSENT = frozenset({404, 405})


@dataclass(frozen=True)
class Sglang:
    """A module of a server's pipeline; `path` is where the server finds the export, if not where it lies here."""

    service: Service
    module: str = "image_encoder"
    path: str | None = None

    @property
    def kind(self) -> str:
        """The name of the kind of service."""
        return "SGLang-Diffusion"

    @property
    def place(self) -> str:
        """The URL and the module."""
        return f"{self.module} at {self.service.url}"

    @property
    def key(self) -> str:
        """The same."""
        return self.place

    def holding(self) -> Holding:
        """The digest that the server computes now, over the weights in its memory.

        Raises:
            ServiceError: it has no such route or no such module.
        """
        answer = self.service.post("get_weights_checksum", {"module_names": [self.module]})
        if answer.status in _ABSENT:
            raise ServiceError(
                f"{self.service.url} has no get_weights_checksum",
                "Use an SGLang-Diffusion that has it, and name another kind of service with --to",
            )
        found = answer.body.get(self.module) if answer.is_good and isinstance(answer.body, dict) else None
        if found == "not_found":
            raise ServiceError(f"The server has no module {self.module}", "Name another one with --module")
        if not isinstance(found, str) or not _DIGEST.fullmatch(found):
            raise ServiceError(f"The server says no digest of {self.place} ({answer.words})", "Look at its log")
        return Holding(found)

    def path_of(self, export: Exported) -> str:
        """Where the server finds an export.

        Raises:
            UserError: the folder's name cannot be sent as text.
        """
        return sendable(self.path or str(export.folder.absolute()), "--path-on-server")

    def can_return(self, back: Back) -> bool:
        """Whether somebody knows where it lay."""
        return back.path is not None

    def held_as(self, export: Exported, held: Holding) -> str | None:
        """The dtype in which it holds an export, in words."""
        dtype = export.dtype_of(held.digest)
        return None if dtype is None else f"in memory, {dtype}"

    def put(self, export: Exported) -> Back:
        """Load an export.

        Raises:
            ServiceError: it did not, or it holds something else afterwards.
        """
        path = self.path_of(export)
        now = self._swapped(path, self.holding())
        if self.held_as(export, now) is None:
            raise ServiceError(
                f"After loading {path} the server holds other weights than the export",
                "Name the folder as the server sees it with --path-on-server",
            )
        return Back(now, path)

    def put_back(self, back: Back) -> Back:
        """Load what it held earlier from where it lay, and see that it is that.

        Raises:
            ServiceError: nobody knows where it lay, or it is not there any more.
        """
        if back.path is None:
            raise ServiceError(
                "Nobody noted where the server's earlier weights lie",
                "Name their folder, as the server sees it, with --before",
            )
        self._refuse_other(back.path, back.holding)
        now = self._swapped(back.path, self.holding())
        if now.digest != back.holding.digest:
            raise ServiceError(
                f"After loading {back.path} the server holds other weights than it held earlier",
                "Look at what lies there, and deploy an export anew",
            )
        return Back(now, back.path)

    def _refuse_other(self, path: str, wanted: Holding) -> None:
        """Look at the weights before the server loads them, if they are to be seen from here."""
        folder = Path(path) / self.module if (Path(path) / self.module).is_dir() else Path(path)
        try:
            files = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
        except OSError:
            files = []
        if files and all(digest != wanted.digest for _, digest in Weights(files).digests()):
            raise ServiceError(
                f"In {path} lie other weights than the server held earlier",
                "Name their folder with --before, or deploy an export anew",
            )

    def _swapped(self, path: str, before: Holding) -> Holding:
        """Ask for weights, and what is held afterwards."""
        answer = self.service.post(
            "update_weights_from_disk", {"model_path": path, "target_modules": [self.module], "flush_cache": True}
        )
        now = self.holding()
        done = answer.is_good and isinstance(answer.body, dict) and answer.body.get("success") is True
        if done:
            return now
        if now == before:
            raise ServiceError(
                f"The server did not load {path} ({answer.words}); it still holds what it held before",
                "Name the folder as the server sees it with --path-on-server",
            )
        raise ServiceError(
            f"The server did not load {path} ({answer.words}), AND HOLDS OTHER WEIGHTS THAN BEFORE",
            "Put the old ones back with --rollback and --before, or start the server anew",
        )


def sendable(path: str, flag: str) -> str:
    """A path that can be sent and kept as text.

    Raises:
        UserError: it is none.
    """
    if not path.isprintable():
        raise UserError("The path on the server is no text, or does not print", f"Name another one with {flag}")
    return path
