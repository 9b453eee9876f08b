"""Models of the Hugging Face hub: how they are named, and their files in the hub's own cache.

A name is `owner/model`, with `@revision` behind it if you like, and `:path` for a folder or a file in the repository,
such as `h94/IP-Adapter:models/image_encoder`. The hub's own form, `hf://owner/model@revision/path`, says the same.
"""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ireu_cli.encoders.files.arrived import weight_files
from ireu_cli.encoders.files.settings import said
from ireu_cli.encoders.files.tensor_file import ARCHIVES, shard_names
from ireu_cli.encoders.preprocessing import PROCESSOR
from ireu_cli.errors import ModelError

_REPOSITORY = r"(?P<repository>(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*)"
_REVISION = r"(?:@(?P<revision>[\w.-]+(?:/[\w.-]+)*))?"
_SHORT = re.compile(rf"{_REPOSITORY}{_REVISION}(?::(?P<path>[^:\\]+))?")
_LONG = re.compile(
    r"hf://(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w.-]+))?(?:/(?P<path>[^:\\]+))?"
)
_FILES = ARCHIVES | {".safetensors"}
_BESIDE = ("config.json", PROCESSOR, "processor_config.json", "README.md", "LICENSE")


@dataclass(frozen=True)
class HubAddress:
    """A model in a repository of the hub: `path` is a folder or a file in it, empty for its root."""

    repository: str
    revision: str | None = None
    path: str = ""

    @property
    def is_file(self) -> bool:
        """Whether the path names a file of weights."""
        return PurePosixPath(self.path).suffix.lower() in _FILES

    @property
    def download(self) -> str:
        """The command that brings it into the hub's cache."""
        inside = self.path if self.is_file else f"{self.path}/*"
        wanted = f" --include {shlex.quote(inside)}" if self.path else ""
        return f"hf download {self.repository}{wanted}{f' --revision {self.revision}' if self.revision else ''}"


def address_of(source: str, revision: str | None = None) -> HubAddress | None:
    """The address that a source names; None if it cannot be one.

    Args:
        source: `encoder.source`.
        revision: `encoder.revision`, which counts if the source names none.

    Raises:
        ModelError: the two name different revisions.
    """
    found = (_LONG if source.startswith("hf://") else _SHORT).fullmatch(source)
    if found is None:
        return None
    path = (found["path"] or "").strip("/")
    if any(part in {"", ".", ".."} for part in path.split("/")) and path:
        return None
    if revision is not None and found["revision"] not in {None, revision}:
        raise ModelError(
            f"{source} names the revision {found['revision']}, and encoder.revision names {revision}",
            "Leave one of them out",
        )
    return HubAddress(found["repository"], found["revision"] or revision, path)


def fetched(source: str, revision: str | None) -> Path:
    """The folder or the file of the hub's cache that holds a model's weights, with what lies beside them.

    Raises:
        ModelError: the hub does not offer it, and it is not in the cache.
    """
    address = address_of(source, revision)
    if address is None:
        raise ModelError(
            f"The encoder {source} is no local file or folder, and no name of a model of the hub",
            "Correct --encoder; a model of the hub is named owner/model, or owner/model:folder/in/it",
        )
    try:
        return _file(address) if address.is_file else _folder(address, source)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"The encoder {source} is no local file or folder, and the hub does not offer it ({said(error)})",
            f"Correct --encoder, or run `{address.download}` first, where there is a network",
        ) from None


def _file(address: HubAddress) -> Path:
    from transformers.utils import cached_file

    found = cached_file(address.repository, address.path, revision=address.revision)
    return Path(str(found))


def _folder(address: HubAddress, source: str) -> Path:
    _reach(address)
    for name in weight_files():
        found = _fetch(address, name)
        if found is None:
            continue
        if name.endswith("index.json"):
            for shard in shard_names(found):
                _fetch(address, shard)
        for beside in _BESIDE:
            _fetch(address, beside)
        return found.parent
    raise ModelError(
        f"{source} is no local file or folder, and the hub offers no weights under that name",
        f"Correct --encoder; a model needs one of {', '.join(weight_files())}, and a folder of a repository is named "
        "owner/model:folder",
    )


def _fetch(address: HubAddress, name: str) -> Path | None:
    from transformers.utils import cached_file

    found = cached_file(
        address.repository,
        name,
        subfolder=address.path,
        revision=address.revision,
        _raise_exceptions_for_missing_entries=False,
    )
    return None if found is None else Path(str(found))


def _reach(address: HubAddress) -> None:
    """Fail at once if the hub cannot be reached or has no such model: asking for every file would take minutes.

    Raises:
        OSError: the hub does not give it, and the cache does not have it.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from transformers.utils import cached_file

    try:
        cached_file(address.repository, "config.json", subfolder=address.path, revision=address.revision)
    except OSError as error:
        cause = error.__cause__
        if not isinstance(cause, EntryNotFoundError) or isinstance(cause, LocalEntryNotFoundError):
            raise
