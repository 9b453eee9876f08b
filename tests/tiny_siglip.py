"""A tiny SigLIP with random weights, in the files that SigLIP is shipped in."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import SiglipVisionConfig, SiglipVisionModel

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 30,
    "patch_size": 7,
}  # fmt: skip
"""The margin that patches leave is as in so400m-patch14-384."""


def write_siglip(folder: Path, prefix: str = "vision_model.", **sizes: int) -> Path:
    """Write config.json and model.safetensors as published: names behind a prefix, a text encoder beside.

    Without a prefix, it is the vision transformer alone, as transformers 5 writes it.
    """
    torch.manual_seed(0)
    config = SiglipVisionConfig(**SIZES | sizes)
    state = {
        name.removeprefix("vision_model."): tensor for name, tensor in SiglipVisionModel(config).state_dict().items()
    }
    # As drawn, all photos look alike to the pooling head.
    generator = torch.Generator().manual_seed(1)
    state = {
        name: torch.randn(tensor.shape, generator=generator) * tensor.shape[-1] ** -0.5 if tensor.ndim > 1 else tensor
        for name, tensor in state.items()
    }
    folder.mkdir(parents=True)
    config.save_pretrained(folder)
    named = {f"{prefix}{name}": tensor.contiguous() for name, tensor in state.items()}
    if prefix:
        named["text_model.head.weight"] = torch.ones(2)
    save_file(named, folder / "model.safetensors", {"format": "pt"})
    return folder
