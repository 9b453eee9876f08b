"""Models of the Hugging Face hub: their files in the hub's own cache."""

from pathlib import Path

from ireu_cli.encoders.files.arrived import weight_files
from ireu_cli.encoders.files.settings import said
from ireu_cli.encoders.files.tensor_file import shard_names
from ireu_cli.encoders.preprocessing import PROCESSOR
from ireu_cli.errors import ModelError


def fetched(hub_id: str, revision: str | None) -> Path:
    """The folder of the hub's cache that holds a model's weights and what lies beside them.

    Raises:
        ModelError: the hub does not offer it, and it is not in the cache.
    """
    from transformers.utils import cached_file

    def fetch(name: str) -> str | None:
        found = cached_file(hub_id, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        return None if found is None else str(found)

    try:
        _reach(hub_id, revision)
        for name in weight_files():
            found = fetch(name)
            if found is not None and name.endswith("index.json"):
                for shard in shard_names(Path(found)):
                    fetch(shard)
            if found is not None:
                place = Path(found).parent
                break
        else:
            raise ModelError(
                f"{hub_id} is no local file or folder, and the hub offers no weights under that name",
                f"Correct --encoder; a model needs one of {', '.join(weight_files())}",
            )
        for name in ("config.json", PROCESSOR, "processor_config.json", "README.md", "LICENSE"):
            fetch(name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"The encoder {hub_id} is no local file or folder, and the hub does not offer it ({said(error)})",
            "Correct --encoder, or download the model first",
        ) from None
    return place


def _reach(hub_id: str, revision: str | None) -> None:
    """Fail at once if the hub cannot be reached or has no such model: asking for every file would take minutes.

    Raises:
        OSError: the hub does not give it, and the cache does not have it.
    """
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
    from transformers.utils import cached_file

    try:
        cached_file(hub_id, "config.json", revision=revision)
    except OSError as error:
        cause = error.__cause__
        if not isinstance(cause, EntryNotFoundError) or isinstance(cause, LocalEntryNotFoundError):
            raise
