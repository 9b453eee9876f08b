"""DINOv2's vision transformers, tiny, with random weights, as transformers saves them under the published names."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from ireu_cli.encoders.dinov2.tower import Dinov2, Dinov2Sizes

PLAIN = Dinov2Sizes(32, 128, 4, 2, 14, 16, 1e-6, False, True)
GATED = Dinov2Sizes(32, 88, 4, 2, 14, 16, 1e-6, True, True)
"""Both have positions for 56 px; 88 is what transformers makes of a ratio of 4 where hidden layers are gated."""
SIDE = 28
"""Side of the pictures that the processor makes; the positions have to be interpolated."""


def config_of(sizes: Dinov2Sizes) -> dict[str, object]:
    """The settings as transformers writes them."""
    return {
        "architectures": ["Dinov2Model"],
        "model_type": "dinov2",
        "hidden_size": sizes.width,
        "num_hidden_layers": sizes.blocks,
        "num_attention_heads": sizes.heads,
        "mlp_ratio": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": sizes.epsilon,
        "image_size": 56,
        "patch_size": sizes.patch,
        "num_channels": 3,
        "qkv_bias": True,
        "layerscale_value": 1.0,
        "use_swiglu_ffn": sizes.is_gated,
    }


def write_dinov2(folder: Path, sizes: Dinov2Sizes = PLAIN, side: int = SIDE) -> Path:
    """Write one with its settings."""
    folder.mkdir(parents=True)
    draw = torch.Generator().manual_seed(0)
    state = {
        name: 0.3 * torch.randn(tensor.shape, generator=draw) + ("norm" in name and "weight" in name)
        for name, tensor in Dinov2(sizes).state_dict().items()
    }
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config_of(sizes)))
    settings = {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "size": {"shortest_edge": side + 4},
        "crop_size": {"height": side, "width": side},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder
