"""The layouts that encoders are shipped in: tiny, with random weights, and with everything that lies beside them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.tiny_wan import FILE as WAN_FILE
from tests.tiny_wan import wan_state

Tree = dict[str, Any]


def extra(*shape: int, seed: int = 7) -> Tensor:
    """Weights of other parts, which must come through with every bit."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def photomaker_tree(state: dict[str, Tensor], *, second: bool = False) -> Tree:
    """PhotoMaker's two dictionaries in their order."""
    own = {name: tensor for name, tensor in state.items() if name.startswith("vision_model.")}
    encoder = own | {
        "visual_projection.weight": state["visual_projection.weight"],
        "visual_projection_2.weight": extra(20, 16),
        "fuse_module.mlp1.fc1.weight": extra(8, 8),
    }
    if second:
        encoder["qformer_perceiver.token_proj.0.weight"] = extra(4, 4)
    return {"id_encoder": encoder, "lora_weights": {"unet.down.lora.up.weight": extra(6, 2).half()}}


def flat(tree: Tree) -> dict[str, Tensor]:
    """The names that a safetensors file of the same checkpoint has."""
    return {f"{part}.{name}": tensor for part, tensors in tree.items() for name, tensor in tensors.items()}


def fastcomposer_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A whole FastComposer, of which the encoder is a part."""
    return {
        **{f"image_encoder.{name}": tensor for name, tensor in state.items()},
        "text_encoder.embeddings.weight": extra(5, 3),
        "unet.conv_in.weight": extra(4, 4, 3, 3),
        "postfuse_module.mlp1.fc1.weight": extra(8, 8),
    }


def write_layout(name: str, folder: Path, place: Path) -> Path:
    """Lay out the encoder of a folder as `name` says; returns what is to be named to load it.

    Args:
        name: a key of `LAYOUTS`.
        folder: config.json and model.safetensors of a tiny `CLIPVisionModelWithProjection`.
        place: the folder to write.
    """
    place.mkdir()
    shutil.copyfile(folder / "config.json", place / "config.json")
    return LAYOUTS[name](load_file(folder / "model.safetensors"), place)


def _saved(tree: Any, path: Path, **more: Any) -> Path:
    torch.save(tree, path, **more)
    return path


def _safe(state: dict[str, Tensor], path: Path) -> Path:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path, {"format": "pt"})
    return path


def _sharded(state: dict[str, Tensor], place: Path) -> Path:
    names = sorted(state)
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    files = [f"model-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    for half, file in zip(halves, files, strict=True):
        _safe({name: state[name] for name in half}, place / file)
    places = {name: file for half, file in zip(halves, files, strict=True) for name in half}
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return place


LAYOUTS: dict[str, Callable[[dict[str, Tensor], Path], Path]] = {
    "folder": lambda state, place: (_safe(state, place / "model.safetensors"), place)[1],
    "folder of an archive": lambda state, place: (_saved(state, place / "pytorch_model.bin"), place)[1],
    "folder in shards": _sharded,
    "file": lambda state, place: _safe(state, place / "CLIP-ViT-H-14.safetensors"),
    "file of a whole CLIP": lambda state, place: _safe(
        state | {"text_model.x.weight": extra(3, 3), "logit_scale": extra(1)}, place / "clip.safetensors"
    ),
    "archive": lambda state, place: _saved(state, place / "clip_h.pth"),
    "archive before zip": lambda state, place: _saved(state, place / "old.pth", _use_new_zipfile_serialization=False),
    "photomaker v1": lambda state, place: _saved(photomaker_tree(state), place / "photomaker-v1.bin"),
    "photomaker v2": lambda state, place: _saved(photomaker_tree(state, second=True), place / "photomaker-v2.bin"),
    "photomaker safetensors": lambda state, place: _safe(flat(photomaker_tree(state)), place / "pm.safetensors"),
    "fastcomposer": lambda state, place: _saved(fastcomposer_state(state), place / "pytorch_model.bin"),
    "wan": lambda state, place: _saved(wan_state(state), place / WAN_FILE),
    "wan safetensors": lambda state, place: _safe(wan_state(state), place / "clip_visual.safetensors"),
}
KINDS = {
    "folder": "clip-folder",
    "folder of an archive": "clip-folder",
    "folder in shards": "clip-folder",
    "file": "single-file",
    "file of a whole CLIP": "single-file",
    "archive": "single-file",
    "archive before zip": "single-file",
    "photomaker v1": "photomaker",
    "photomaker v2": "photomaker",
    "photomaker safetensors": "photomaker",
    "fastcomposer": "fastcomposer",
    "wan": "wan",
    "wan safetensors": "wan",
}
"""What each is called by `ireu`."""
