"""The adapter of CLIP vision transformers (`CLIPVisionModelWithProjection` of transformers 4.57 and 5)."""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.models.checkpoint import PATCHES, Checkpoint, open_checkpoint
from ireu_cli.models.portrait import find_bundle
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.values import RgbImage, WeightDelta

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}

# hidden size -> (heads, activation, published name); ecosystem sizes that tensors alone do not settle.
_KNOWN = {1280: (16, "gelu", "ViT-H/14"), 1664: (16, "gelu", "ViT-bigG/14"), 1024: (16, "quick_gelu", "ViT-L/14")}


@dataclass(frozen=True)
class Encoder:
    """A loaded encoder: the model in eval mode without gradients, its processor, and what identifies it."""

    model: Any
    processor: Any
    fingerprint: str

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return int(self.model.config.num_hidden_layers)

    @property
    def architecture(self) -> str:
        """Say in short which transformer it is, from its sizes."""
        c = self.model.config
        size = f"{c.hidden_size}x{c.num_hidden_layers} patch {c.patch_size} image {c.image_size}"
        return f"clip-vit {size} proj {c.projection_dim}"

    @property
    def dtype(self) -> str:
        """The dtype it runs in, such as float32."""
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def preprocessing(self) -> str:
        """Digest (16 hex) of the processor's settings; equal digests give equal pixels."""
        settings = {
            key: value for key, value in self.processor.to_dict().items() if not key.startswith("image_processor")
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:16]

    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """Preprocess as the model's own processor does: float32 (n, 3, side, side), normalised."""
        if not images:
            side = self.model.config.image_size
            return torch.empty(0, 3, side, side)
        values: Tensor = self.processor(images=list(images), return_tensors="pt")["pixel_values"]
        return values

    def null_pixels(self) -> Tensor:
        """The two null images that generators send under guidance: float32 (2, 3, side, side).

        First the zero tensor after normalisation (diffusers, official IP-Adapter), then a black picture (ComfyUI,
        FLUX).
        """
        side = int(self.model.config.image_size)
        black = self.pixels([np.zeros((side, side, 3), np.uint8)])
        return torch.cat([torch.zeros_like(black), black])


def load_encoder(params: EncoderParams, device: str) -> Encoder:
    """Load an encoder from a folder, a file in any layout of `models.checkpoint`, a portrait bundle or the hub.

    Raises:
        ModelError: not there, not a CLIP vision transformer, or with weights missing from the file.
    """
    source = encoder_place(params.source)
    if Path(source).is_file():
        model, processor = _from_checkpoint(Path(source))
    else:
        model, processor = _from_pretrained(source, params.revision, local=Path(source).is_dir())
    model = model.to(torch.float32).eval().requires_grad_(False)
    fingerprint = fingerprint_of(model.state_dict())
    if not all(bool(torch.isfinite(tensor).all()) for tensor in model.state_dict().values()):
        raise ModelError(
            f"The encoder {params.source} holds values that are not finite numbers", "Use an undamaged copy"
        )
    return Encoder(_placed(model, device, params.dtype), processor, fingerprint)


def checkpoint_of(params: EncoderParams) -> Checkpoint:
    """Where the weights of an encoder lie; those of a hub model in the hub's own cache.

    Raises:
        ModelError: nowhere.
    """
    place = Path(encoder_place(params.source))
    if not place.exists():
        from transformers.utils import cached_file

        found = cached_file(params.source, "config.json", revision=params.revision)
        place = Path(str(found)).parent
    return open_checkpoint(place)


def encoder_place(source: str) -> str:
    """Where the encoder itself lies: inside its bundle, or at the source."""
    bundle = find_bundle(source)
    return source if bundle is None else str(bundle.encoder_folder)


def fingerprint_of(state: Mapping[str, Tensor]) -> str:
    """SHA-256 (hex) over names, shapes and float32 values, sorted by name.

    Independent of the file layout: the same weights in one file or in many, in half or in single precision, are the
    same encoder; buffers that old files carry are dropped on loading.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        values = state[name].detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(values.shape)}".encode())
        digest.update(values.numpy().data)
    return digest.hexdigest()


def read_tap(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
    """Run the encoder and return the tensor a generator reads.

    Args:
        model: a `CLIPVisionModelWithProjection`.
        pixels: (n, 3, side, side), normalised.
        tap: which tensor.

    Returns:
        (n, hidden) for pooled, (n, projection) for image_embeds, (n, tokens, hidden) for penultimate and last.
    """
    output = model.vision_model(pixels, output_hidden_states=tap == "penultimate")
    if tap == "penultimate":
        return _tensor(output.hidden_states[-2])
    if tap == "last":
        return _tensor(output.last_hidden_state)
    return _tensor(output.pooler_output if tap == "pooled" else model.visual_projection(output.pooler_output))


def readout_inverse(model: Any, tap: Tap) -> Tensor:
    """Undo what follows the last layer norm's normalisation: float64 (d, k), for `pooled` and `image_embeds`.

    A change of the tap, times this and the deviation of the class token's channels, is a change of that token.
    """
    scale = model.vision_model.post_layernorm.weight.detach().cpu().double()
    if tap == "pooled":
        return torch.diag(1 / scale)
    projection = model.visual_projection.weight.detach().cpu().double()
    inverse: Tensor = torch.linalg.pinv(projection * scale)
    return inverse


def read_out(model: Any, states: Tensor, tap: Tap) -> Tensor:
    """From the class token behind the last block, (n, d) on the CPU, to `pooled` or `image_embeds`: (n, k) there."""
    weight = model.visual_projection.weight
    with torch.inference_mode():
        pooled = model.vision_model.post_layernorm(states.to(weight.device, weight.dtype))
        found: Tensor = pooled if tap == "pooled" else model.visual_projection(pooled)
    return found.float().cpu()


def with_delta(encoder: Encoder, delta: WeightDelta, dtype: str = "float32") -> Encoder:
    """Return an edited copy; the encoder handed in keeps every bit.

    Raises:
        ArtifactError: the delta names tensors that the encoder does not have, or of another shape.
    """
    state = {name: tensor.detach().float() for name, tensor in encoder.model.state_dict().items()}
    for name, change in delta.tensors.items():
        if name not in state or state[name].shape != change.shape:
            raise ArtifactError(
                f"The delta changes {name}, which this encoder does not have in that shape",
                "Name the encoder that the delta was made for",
            )
        state[name] = state[name] + change.to(state[name].device)
    model = type(encoder.model)(encoder.model.config)
    model.load_state_dict(state)
    device = str(next(encoder.model.parameters()).device)
    edited = _placed(model.eval().requires_grad_(False), device, dtype)
    return Encoder(edited, encoder.processor, fingerprint_of(edited.state_dict()))


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


def _tensor(value: Tensor) -> Tensor:
    return value


def _placed(model: Any, device: str, dtype: str) -> Any:
    if device.startswith("meta"):
        raise ModelError("The device meta computes nothing", "Name a real one with --device")
    try:
        return model.to(device=torch.device(device), dtype=DTYPES[dtype])
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"The device {device} cannot be used ({str(error).splitlines()[0]:.80})", "Correct --device"
        ) from None


def _from_pretrained(source: str, revision: str | None, *, local: bool) -> tuple[Any, Any]:
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
    return model, _processor(source, revision, model.config.image_size, local=local)


def config_of(checkpoint: Checkpoint) -> Any:
    """The `CLIPVisionConfig` that lies beside a checkpoint, or that its tensors tell.

    Raises:
        ModelError: neither.
    """
    from transformers import CLIPVisionConfig

    try:
        if checkpoint.config.exists():
            # Also out of the config of a whole CLIP model.
            return CLIPVisionConfig.from_pretrained(str(checkpoint.config.parent), local_files_only=True)
        return CLIPVisionConfig(**_infer(checkpoint))
    except (KeyError, ValueError, TypeError, OSError):
        raise ModelError(
            f"The sizes of the encoder {checkpoint.source} cannot be told from its tensors",
            "Put its config.json beside it",
        ) from None


def _from_checkpoint(source: Path) -> tuple[Any, Any]:
    from transformers import CLIPVisionModelWithProjection

    checkpoint = open_checkpoint(source)
    config = config_of(checkpoint)
    with torch.device("meta"):
        model = CLIPVisionModelWithProjection(config)
    names = sorted(model.state_dict())
    if missing := [name for name in names if name not in checkpoint]:
        raise ModelError(
            f"The encoder {source} lacks {len(missing)} weights, first {missing[0]}", "Name a complete encoder"
        )
    try:
        model.load_state_dict({name: checkpoint[name].to(torch.float32) for name in names}, assign=True)
    except RuntimeError:
        raise ModelError(
            f"The tensors of {source} do not have the shapes of its config.json", "Put the right config.json beside it"
        ) from None
    # The one buffer, which no file holds.
    embeddings = model.vision_model.embeddings
    embeddings.position_ids = torch.arange(embeddings.num_positions).expand((1, -1))
    return model, _processor(str(checkpoint.config.parent), None, config.image_size, local=True)


def _infer(state: Mapping[str, Tensor]) -> dict[str, Any]:
    hidden, _, patch, _ = state[PATCHES].shape
    tokens = state["vision_model.embeddings.position_embedding.weight"].shape[0]
    blocks = {int(match[1]) for name in state if (match := re.match(r"vision_model\.encoder\.layers\.(\d+)\.", name))}
    heads, activation, _ = _KNOWN[hidden]
    return {
        "hidden_size": hidden,
        "patch_size": patch,
        "image_size": round((tokens - 1) ** 0.5) * patch,
        "num_hidden_layers": max(blocks) + 1,
        "intermediate_size": state["vision_model.encoder.layers.0.mlp.fc1.weight"].shape[0],
        "projection_dim": state["visual_projection.weight"].shape[0],
        "num_attention_heads": heads,
        "hidden_act": activation,
    }


def _processor(source: str, revision: str | None, side: int, *, local: bool) -> Any:
    kind = _processor_class()
    if local and not (Path(source) / "preprocessor_config.json").exists():
        # What diffusers' `load_ip_adapter` does when a repository has none.
        return kind(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    with quiet_transformers():
        try:
            return kind.from_pretrained(source, revision=revision, local_files_only=local)
        except (OSError, ValueError, TypeError) as error:
            raise ModelError(
                f"The preprocessor_config.json of {source} cannot be read ({type(error).__name__})",
                "Repair or remove it",
            ) from None


def _processor_class() -> Any:
    """The Pillow processor under either name: its results do not depend on torchvision being installed."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    import transformers

    return getattr(transformers, "CLIPImageProcessorPil", None) or transformers.CLIPImageProcessor
