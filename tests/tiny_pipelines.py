"""Whole diffusers pipelines with random weights, each with an IP-Adapter; they prove plumbing, not identity."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from tests.tiny_generator import WIDTH, adapter_weights, tiny_pipeline

SIDE = 32


def write_sd(folder: Path, kind: str, *, hidden: int, projection: int) -> tuple[Path, Path]:
    """Stable Diffusion 1.5's classes, and the adapter of it, as h94/IP-Adapter names its tensors."""
    pipeline = tiny_pipeline()
    return _written(pipeline, folder, adapter_weights(pipeline.unet, kind, hidden=hidden, projection=projection))


def write_sdxl(folder: Path, kind: str, *, hidden: int, projection: int) -> tuple[Path, Path]:
    """SDXL's classes: two text encoders, whose states stand side by side."""
    torch.manual_seed(4)
    unet = UNet2DConditionModel(
        block_out_channels=(4, 8), layers_per_block=1, sample_size=SIDE // 2, in_channels=4, out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, norm_num_groups=2, addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + WIDTH // 2,
    )  # fmt: skip
    tokenizer = tiny_pipeline().tokenizer
    texts = [kind(_text(tokenizer, WIDTH // 2)) for kind in (CLIPTextModel, CLIPTextModelWithProjection)]
    pipeline = StableDiffusionXLPipeline(
        vae=_vae(latents=4), text_encoder=texts[0], text_encoder_2=texts[1], tokenizer=tokenizer,
        tokenizer_2=tokenizer, unet=unet, scheduler=DDIMScheduler(clip_sample=False), add_watermarker=False,
    )  # fmt: skip
    return _written(pipeline, folder, adapter_weights(unet, kind, hidden=hidden, projection=projection))


def write_flux(folder: Path, *, projection: int) -> tuple[Path, Path]:
    """FLUX's classes, and the adapter of it, as XLabs names its tensors."""
    torch.manual_seed(5)
    transformer = FluxTransformer2DModel(
        in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH, axes_dims_rope=(4, 4, 8),
    )  # fmt: skip
    words = Tokenizer(WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "a": 3, "face": 4}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    long = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )
    tokenizer: CLIPTokenizer = tiny_pipeline().tokenizer
    long_text = T5Config(vocab_size=8, d_model=WIDTH, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    pipeline = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=_vae(latents=4), text_encoder=CLIPTextModel(_text(tokenizer)),
        tokenizer=tokenizer, tokenizer_2=long, transformer=transformer,
        text_encoder_2=T5EncoderModel(long_text),
    )  # fmt: skip
    inner = 32
    weights = {
        "ip_adapter_proj_model.proj.weight": torch.randn(4 * WIDTH, projection),
        "ip_adapter_proj_model.proj.bias": torch.zeros(4 * WIDTH),
        "ip_adapter_proj_model.norm.weight": torch.ones(WIDTH),
        "ip_adapter_proj_model.norm.bias": torch.zeros(WIDTH),
    }
    for stream in ("k", "v"):
        name = f"double_blocks.0.processor.ip_adapter_double_stream_{stream}_proj"
        weights |= {f"{name}.weight": torch.randn(inner, WIDTH), f"{name}.bias": torch.zeros(inner)}
    return _written(pipeline, folder, weights)


def _vae(*, latents: int) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=[4, 8], down_block_types=["DownEncoderBlock2D"] * 2, norm_num_groups=2,
        up_block_types=["UpDecoderBlock2D"] * 2, latent_channels=latents, shift_factor=0.0,
    )  # fmt: skip


def _text(tokenizer: Any, width: int = WIDTH) -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=width, intermediate_size=16, num_attention_heads=2, num_hidden_layers=2, projection_dim=width,
        vocab_size=len(tokenizer), bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip


def _written(pipeline: Any, folder: Path, adapter: dict[str, torch.Tensor]) -> tuple[Path, Path]:
    pipeline.save_pretrained(folder)
    place = folder.with_name(f"{folder.name}-adapter.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in adapter.items()}, place)
    return folder, place
