"""A random `StableDiffusionPipeline` with an IP-Adapter, small enough for a test; proves plumbing, not identity."""

from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import IPAdapterAttnProcessor
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

WIDTH = 8
"""Cross-attention width of the tiny UNet."""
_QUERIES, _INNER = 4, 64


def tiny_pipeline() -> Any:
    """Text to 16 px latents with random weights; every call gives the same weights."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(4, 8), layers_per_block=1, sample_size=8, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, norm_num_groups=2,
    )  # fmt: skip
    vae = AutoencoderKL(block_out_channels=[4, 8], down_block_types=["DownEncoderBlock2D"] * 2, norm_num_groups=2,
                        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=4)  # fmt: skip
    letters = list(bytes_to_unicode().values())
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)
    text = CLIPTextModel(CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=16, num_attention_heads=2, num_hidden_layers=1, vocab_size=len(words),
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    ))  # fmt: skip
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text, tokenizer=tokenizer, unet=unet, scheduler=DDIMScheduler(clip_sample=False),
        safety_checker=None, feature_extractor=None, image_encoder=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def adapter_weights(unet: Any, kind: str, *, hidden: int, projection: int) -> dict[str, torch.Tensor]:
    """Random IP-Adapter weights with the names of h94/IP-Adapter.

    `base` reads image_embeds, `plus` the penultimate, `faceid` a face embedding.
    """
    torch.manual_seed(1)
    image = {"base": _base, "plus": _plus, "faceid": _faceid}[kind](hidden if kind == "plus" else projection)
    named = {f"image_proj.{name}": tensor for name, tensor in image.items()}
    return {name: tensor.contiguous() for name, tensor in (named | _attention(unet)).items()}


def draw(pipeline: Any, photo: Image.Image) -> Any:
    """One picture from a photo, always with the same noise."""
    generator = torch.Generator().manual_seed(0)
    return pipeline("a face", ip_adapter_image=photo, num_inference_steps=2, guidance_scale=4.0, generator=generator,
                    output_type="np", height=16, width=16).images[0]  # fmt: skip


def _linear(out: int, inner: int) -> torch.Tensor:
    return torch.randn(out, inner) / torch.tensor(float(inner)).sqrt()


def _base(projection: int) -> dict[str, torch.Tensor]:
    return {"proj.weight": _linear(_QUERIES * WIDTH, projection), "proj.bias": torch.zeros(_QUERIES * WIDTH),
            "norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}  # fmt: skip


def _faceid(projection: int) -> dict[str, torch.Tensor]:
    return {"proj.0.weight": _linear(2 * projection, projection), "proj.0.bias": torch.zeros(2 * projection),
            "proj.2.weight": _linear(_QUERIES * WIDTH, 2 * projection), "proj.2.bias": torch.zeros(_QUERIES * WIDTH),
            "norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}  # fmt: skip


def _plus(hidden: int) -> dict[str, torch.Tensor]:
    weights = {
        "latents": torch.randn(1, _QUERIES, _INNER),
        "proj_in.weight": _linear(_INNER, hidden),
        "proj_in.bias": torch.zeros(_INNER),
        "proj_out.weight": _linear(WIDTH, _INNER),
        "proj_out.bias": torch.zeros(WIDTH),
        "norm_out.weight": torch.ones(WIDTH),
        "norm_out.bias": torch.zeros(WIDTH),
    }
    linear = {"0.to_q": 1, "0.to_kv": 2, "0.to_out": 1, "1.1": 4}
    for layer in range(4):
        for norm in ("0.norm1", "0.norm2", "1.0"):
            weights |= {
                f"layers.{layer}.{norm}.weight": torch.ones(_INNER),
                f"layers.{layer}.{norm}.bias": torch.zeros(_INNER),
            }
        for name, factor in linear.items():
            weights[f"layers.{layer}.{name}.weight"] = _linear(factor * _INNER, _INNER)
        weights[f"layers.{layer}.1.3.weight"] = _linear(_INNER, 4 * _INNER)
    return weights


def _attention(unet: Any) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = {}
    number = 1
    for name in (name for name in unet.attn_processors if name.endswith("attn2.processor")):
        place, *rest = name.split(".")
        sizes = unet.config.block_out_channels
        size = sizes[-1] if place == "mid_block" else (sizes[::-1] if place == "up_blocks" else sizes)[int(rest[0])]
        shapes = IPAdapterAttnProcessor(hidden_size=size, cross_attention_dim=WIDTH).state_dict()
        for key in ("to_k_ip", "to_v_ip"):
            weights[f"ip_adapter.{number}.{key}.weight"] = torch.randn_like(shapes[f"{key}.0.weight"])
        number += 2
    return weights
