"""Vision transformers out of their files: weights, sizes and preprocessing, for transformers 4.57 and 5."""

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ireu_cli.errors import ModelError
from ireu_cli.models import siglip
from ireu_cli.models.checkpoint import PATCHES, Checkpoint, open_checkpoint
from ireu_cli.models.portrait import find_bundle
from ireu_cli.models.tensor_file import WHOLE
from ireu_cli.params import EncoderParams

_BLOCK = re.compile(r"vision_model\.encoder\.layers\.(\d+)\.")
# hidden size -> (heads, activation, published name); ecosystem sizes that tensors alone do not settle.
_KNOWN = {1280: (16, "gelu", "ViT-H/14"), 1664: (16, "gelu", "ViT-bigG/14"), 1024: (16, "quick_gelu", "ViT-L/14")}


def encoder_place(source: str) -> str:
    """Where the encoder itself lies: inside its bundle, or at the source."""
    bundle = find_bundle(source)
    return source if bundle is None else str(bundle.encoder_folder)


def checkpoint_of(params: EncoderParams) -> Checkpoint:
    """Where the weights of an encoder lie; those of a hub model in the hub's own cache.

    Raises:
        ModelError: nowhere.
    """
    place = Path(encoder_place(params.source))
    return open_checkpoint(place if place.exists() else _fetched(params.source, params.revision))


def _fetched(hub_id: str, revision: str | None) -> Path:
    """The folder of the hub's cache that holds a model's weights and what lies beside them.

    Raises:
        ModelError: the hub does not give it out, and it is not in the cache.
    """
    from transformers.utils import cached_file

    def fetch(name: str) -> str | None:
        found = cached_file(hub_id, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        return None if found is None else str(found)

    try:
        for name in WHOLE:
            found = fetch(name)
            if found is not None and name.endswith("index.json"):
                for shard in sorted(set(json.loads(Path(found).read_text())["weight_map"].values())):
                    fetch(shard)
            if found is not None:
                place = Path(found).parent
                break
        else:
            raise ModelError(
                f"{hub_id} is no local file or folder, and the hub gives out no weights of it",
                f"Correct --encoder; a model needs one of {', '.join(WHOLE)}",
            )
        for name in ("config.json", "preprocessor_config.json", "README.md", "LICENSE"):
            fetch(name)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(
            f"The encoder {hub_id} is no local file or folder, nor a model the hub gives out ({type(error).__name__})",
            "Correct --encoder, or fetch the model first",
        ) from None
    return place


def config_of(checkpoint: Checkpoint) -> Any:
    """The `CLIPVisionConfig` or `SiglipVisionConfig` that lies beside a checkpoint, or that its tensors tell.

    Raises:
        ModelError: neither.
    """
    from transformers import CLIPVisionConfig, SiglipVisionConfig

    try:
        if (found := _config_beside(checkpoint)) is not None:
            return found
        if checkpoint.is_siglip:
            return SiglipVisionConfig(**siglip.sizes_in(checkpoint, max(_blocks_in(checkpoint)) + 1))
        return CLIPVisionConfig(**sizes_in(checkpoint))
    except Exception:  # noqa: BLE001 - transformers checks with errors of several kinds
        if checkpoint.source.is_dir() and checkpoint.config.exists():
            raise ModelError(
                f"The config.json of the encoder {checkpoint.source} cannot be read, or is of another kind of model",
                "Put the right config.json in its place",
            ) from None
        raise ModelError(
            f"The sizes of the encoder {checkpoint.source} cannot be told from its tensors",
            "Put its config.json beside it",
        ) from None


def _config_beside(checkpoint: Checkpoint) -> Any:
    """The config of a model of the kind that lies beside the weights; beside a lone file, others' configs may lie."""
    from transformers import CLIPVisionConfig

    try:
        told = json.loads(checkpoint.config.read_text())
    except FileNotFoundError:
        return None
    own = siglip.MODEL_TYPES if checkpoint.is_siglip else {"clip", "clip_vision_model"}
    if checkpoint.source.is_file() and told.get("model_type") not in own:
        return None
    if checkpoint.is_siglip:
        return siglip.config_from(told)
    # Also out of the config of a whole CLIP model, which may keep the projection's width to itself.
    config = CLIPVisionConfig.from_pretrained(str(checkpoint.config.parent), local_files_only=True)
    config.projection_dim = checkpoint["visual_projection.weight"].shape[0]
    return config


def outline_of(checkpoint: Checkpoint) -> Any:
    """The model without its weights, all of which the checkpoint has.

    Raises:
        ModelError: it has not.
    """
    from transformers import CLIPVisionModelWithProjection

    config = config_of(checkpoint)
    kind: Any = siglip.SiglipTower if checkpoint.is_siglip else CLIPVisionModelWithProjection
    try:
        with torch.device("meta"):
            model = kind(config)
    except Exception:  # noqa: BLE001 - whatever sizes that do not go together make of it
        raise ModelError(
            f"The config.json beside {checkpoint.source} describes no encoder that could be built", "Repair it"
        ) from None
    state = model.state_dict()
    if missing := sorted(name for name in state if name not in checkpoint):
        raise ModelError(
            f"The encoder {checkpoint.source} lacks {len(missing)} weights, first {missing[0]}",
            "Name a complete encoder",
        )
    if len(_blocks_in(checkpoint)) != config.num_hidden_layers or any(
        checkpoint[name].shape != tensor.shape for name, tensor in state.items()
    ):
        raise ModelError(
            f"The tensors of {checkpoint.source} do not have the shapes of its config.json",
            "Put the right config.json beside it",
        )
    return model


def from_checkpoint(checkpoint: Checkpoint) -> tuple[Any, Any]:
    """Model and processor out of files; weights in single precision stay mapped.

    Raises:
        ModelError: they cannot be read, or lack weights.
    """
    model = outline_of(checkpoint)
    fill(model, {name: checkpoint[name].to(torch.float32) for name in sorted(model.state_dict())})
    return model, processor_beside(checkpoint, model.config.image_size)


def processor_beside(checkpoint: Checkpoint, side: int) -> Any:
    """What prepares pixels for the encoder in files; see `processor_of`.

    Raises:
        ModelError: the settings cannot be read, or are those of another kind of encoder.
    """
    folder = checkpoint.config.parent
    if not checkpoint.is_siglip:
        return processor_of(str(folder), None, side, local=True)
    kind, path = _processor_class("Siglip"), folder / "preprocessor_config.json"
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return siglip.usual_processor(kind, side)
    except (OSError, ValueError):
        raise _unreadable(path, "no JSON") from None
    if siglip.prepares(settings, side):
        return _read_processor(kind, str(folder), None, local=True)
    if checkpoint.source.is_file():
        # It is of another file in the folder.
        return siglip.usual_processor(kind, side)
    raise _unreadable(path, f"not for whole pictures of {side} px")


def fill(model: Any, state: Mapping[str, Tensor]) -> None:
    """Give tensors to a model without weights."""
    model.load_state_dict(state, assign=True)
    # The one buffer, which no file holds.
    embeddings = model.vision_model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions, device=next(iter(state.values())).device)[None]


def from_pretrained(source: str, revision: str | None, *, local: bool) -> tuple[Any, Any]:
    """Model and processor out of a folder or from the hub, as transformers loads them.

    Raises:
        ModelError: they cannot be loaded, or weights are missing.
    """
    from transformers import CLIPVisionModelWithProjection

    with quiet_transformers():
        try:
            model, info = CLIPVisionModelWithProjection.from_pretrained(
                source, revision=revision, output_loading_info=True, local_files_only=local
            )
        except Exception as error:  # noqa: BLE001 - the hub, the parser and the reader each raise their own kinds
            kind = "folder" if local else "local file or folder, nor a model the hub gives out"
            raise ModelError(
                f"The encoder {source} is not a usable {kind} ({type(error).__name__})",
                "Name a folder with config.json and model.safetensors of a CLIPVisionModelWithProjection",
            ) from None
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"The encoder {source} lacks {len(missing)} weights, first {missing[0]}",
            "Name a complete CLIPVisionModelWithProjection; a bare CLIPVisionModel of transformers 5 has other names",
        )
    return model, processor_of(source, revision, model.config.image_size, local=local)


def is_siglip_model(hub_id: str, revision: str | None) -> bool:
    """Whether a model of the hub is SigLIP, as its settings say; where there are none, whoever loads it says so."""
    from transformers import PretrainedConfig

    try:
        settings, _ = PretrainedConfig.get_config_dict(hub_id, revision=revision)
    except Exception:  # noqa: BLE001 - the hub and the parser each raise their own kinds
        return False
    return settings.get("model_type") in siglip.MODEL_TYPES


def processor_of(source: str, revision: str | None, side: int, *, local: bool) -> Any:
    """What prepares pixels: the encoder's own settings, or those that diffusers takes where there are none.

    Raises:
        ModelError: the settings cannot be read.
    """
    kind = _processor_class("CLIP")
    if local and not (Path(source) / "preprocessor_config.json").exists():
        return _usual(kind, side)
    try:
        return _read_processor(kind, source, revision, local=local)
    except FileNotFoundError:
        # The hub has none.
        return _usual(kind, side)


def _read_processor(kind: Any, source: str, revision: str | None, *, local: bool) -> Any:
    with quiet_transformers():
        try:
            return kind.from_pretrained(source, revision=revision, local_files_only=local)
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            if isinstance(error, OSError) and not local:
                raise FileNotFoundError from None
            raise _unreadable(Path(source) / "preprocessor_config.json", type(error).__name__) from None


def _unreadable(path: Path, why: str) -> ModelError:
    return ModelError(f"The preprocessor_config.json of {path.parent} cannot be used ({why})", "Repair or remove it")


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the user's terminal, and restore its settings."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def sizes_in(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The settings of a `CLIPVisionConfig` that tensors tell, and the heads and the activation of published encoders.

    Raises:
        KeyError: tensors are missing, or no published encoder is so wide.
    """
    hidden, _, patch, _ = state[PATCHES].shape
    tokens = state["vision_model.embeddings.position_embedding.weight"].shape[0]
    heads, activation, _ = _KNOWN[hidden]
    return {
        "hidden_size": hidden,
        "patch_size": patch,
        "image_size": round((tokens - 1) ** 0.5) * patch,
        "num_hidden_layers": max(_blocks_in(state)) + 1,
        "intermediate_size": state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "projection_dim": state["visual_projection.weight"].shape[0],
        "num_attention_heads": heads,
        "hidden_act": activation,
    }


def _blocks_in(names: Iterable[str]) -> set[int]:
    """The numbers of the blocks that tensors are of."""
    return {int(match[1]) for name in names if (match := _BLOCK.match(name))}


def _usual(kind: Any, side: int) -> Any:
    """What diffusers' `load_ip_adapter` does when a repository has no settings."""
    return kind(size={"shortest_edge": side}, crop_size={"height": side, "width": side})


def _processor_class(name: str) -> Any:
    """The Pillow processor under either name: its results do not depend on torchvision being installed."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    return getattr(transformers, f"{name}ImageProcessorPil", None) or getattr(transformers, f"{name}ImageProcessor")
