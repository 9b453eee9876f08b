"""The generators: UNets with the image projections and attention of IP-Adapter, under the names of its weight files."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, IPAdapterAttnProcessor
from safetensors.torch import load_file, save_file
from scenes import LATENT
from torch import nn
from train_text import WIDTH as TEXT
from train_vae import CHANNELS

TOKENS = {"base": 4, "plus": 16, "faceid": 8, "deep": 16}  # diffusers fixes those of `base`
INNER, DEPTH, HEAD = 128, 4, 64  # of the resampler


def build_scheduler() -> DDIMScheduler:
    """Cosine schedule to pure noise, v-prediction."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,  # without effect on trailing steps; the pipeline insists
    )


def build_unet(widths: tuple[int, int]) -> UNet2DConditionModel:
    """Two levels, 14 x 14 and 7 x 7; text and face are read on the lower one."""
    return UNet2DConditionModel(
        sample_size=LATENT,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=widths,
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=TEXT,
        attention_head_dim=8,  # heads, in spite of the name: each looks at the face in its own places
        norm_num_groups=16,
    )


class BaseProjection(nn.Module):
    """Pooled vector (n, d) -> (n, 4, text width)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.proj = nn.Linear(features, TOKENS["base"] * TEXT)
        self.norm = nn.LayerNorm(TEXT)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """-> (n, 4, text width)."""
        tokens: torch.Tensor = self.norm(self.proj(features).view(len(features), -1, TEXT))
        return tokens


class FaceIdProjection(nn.Module):
    """Face embedding (n, d) -> (n, 8, text width), through a hidden layer."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, TOKENS["faceid"] * TEXT)
        )
        self.norm = nn.LayerNorm(TEXT)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """-> (n, 8, text width)."""
        tokens: torch.Tensor = self.norm(self.proj(features).view(len(features), -1, TEXT))
        return tokens


class _Perceiver(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(INNER), nn.LayerNorm(INNER)
        self.to_q = nn.Linear(INNER, INNER, bias=False)
        self.to_kv = nn.Linear(INNER, 2 * INNER, bias=False)
        self.to_out = nn.Linear(INNER, INNER, bias=False)

    def forward(self, tokens: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        tokens, latents = self.norm1(tokens), self.norm2(latents)
        key, value = self.to_kv(torch.cat([tokens, latents], 1)).chunk(2, -1)
        query, key, value = (x.unflatten(-1, (-1, HEAD)).transpose(1, 2) for x in (self.to_q(latents), key, value))
        weight = (query @ key.transpose(-2, -1) * HEAD**-0.5).softmax(-1)
        out: torch.Tensor = self.to_out((weight @ value).transpose(1, 2).flatten(2))
        return out


class PlusProjection(nn.Module):
    """Tokens (n, t, d) -> (n, 16, text width) by a resampler."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, TOKENS["plus"], INNER) / INNER**0.5)
        self.proj_in, self.proj_out = nn.Linear(features, INNER), nn.Linear(INNER, TEXT)
        self.norm_out = nn.LayerNorm(TEXT)
        self.layers = nn.ModuleList(nn.ModuleList([_Perceiver(), self._feed_forward()]) for _ in range(DEPTH))

    @staticmethod
    def _feed_forward() -> nn.Sequential:
        return nn.Sequential(
            nn.LayerNorm(INNER),
            nn.Linear(INNER, 4 * INNER, bias=False),
            nn.GELU(),
            nn.Linear(4 * INNER, INNER, bias=False),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """-> (n, 16, text width)."""
        tokens = self.proj_in(features)
        latents = self.latents.expand(len(features), -1, -1)
        for layer in self.layers:
            attend, feed = layer  # type: ignore[misc]
            latents = attend(tokens, latents) + latents
            latents = feed(latents) + latents
        found: torch.Tensor = self.norm_out(self.proj_out(latents))
        return found


PROJECTIONS: dict[str, type[nn.Module]] = {
    "base": BaseProjection,
    "plus": PlusProjection,
    "faceid": FaceIdProjection,
    "deep": PlusProjection,
}


class Generator(nn.Module):
    """A UNet that reads text and a face; trained whole unless told otherwise."""

    def __init__(self, kind: str, widths: tuple[int, int], features: int) -> None:
        super().__init__()
        self.unet = build_unet(widths)
        self.projection = PROJECTIONS[kind](features)
        self.attention = nn.ModuleList()
        processors = {}
        for name in self.unet.attn_processors:
            if name.endswith("attn1.processor"):
                processors[name] = AttnProcessor()
            else:
                width = widths[1]
                processors[name] = IPAdapterAttnProcessor(width, TEXT, num_tokens=(TOKENS[kind],), scale=1.0)
                self.attention.append(processors[name])
        self.unet.set_attn_processor(processors)

    def forward(
        self, noisy: torch.Tensor, steps: torch.Tensor, text: torch.Tensor, features: torch.Tensor
    ) -> torch.Tensor:
        """Noisy latents (n, 8, 14, 14), steps (n,), text (n, t, 128), features (n, …) -> v (n, 8, 14, 14)."""
        v: torch.Tensor = self.unet(noisy, steps, (text, [self.projection(features)[:, None]])).sample
        return v

    def keep_unet(self) -> None:
        """Train the adapter alone: it is to be used with another generator's UNet."""
        self.unet.requires_grad_(False)
        self.attention.requires_grad_(True)

    def adapter(self) -> dict[str, torch.Tensor]:
        """The weights in the layout of h94/IP-Adapter."""
        tensors = {f"image_proj.{name}": x for name, x in self.projection.state_dict().items()}
        for place, processor in enumerate(self.attention):
            for name, part in (("to_k_ip", processor.to_k_ip), ("to_v_ip", processor.to_v_ip)):
                tensors[f"ip_adapter.{2 * place + 1}.{name}.weight"] = part[0].weight
        return tensors


def plain_unet(generator: Generator, widths: tuple[int, int]) -> UNet2DConditionModel:
    """The UNet as text-to-image alone, without the adapter's processors: what is saved and mounted."""
    unet = build_unet(widths)
    wanted = set(unet.state_dict())
    unet.load_state_dict({name: x for name, x in generator.unet.state_dict().items() if name in wanted})
    return unet


def save_adapter(generator: Generator, file: str) -> None:
    """Write the adapter, half precision."""
    save_file({name: x.detach().half().contiguous() for name, x in generator.adapter().items()}, file)


def start_weights(source: Path) -> dict[str, torch.Tensor]:
    """Weights to start from: a run's checkpoint, or a generator's folder in the bundle."""
    if source.is_file():
        average: dict[str, torch.Tensor] = torch.load(source, map_location="cpu", weights_only=True)["average"]
        return average
    unet = load_file(source / "unet" / "diffusion_pytorch_model.safetensors")
    weights = {f"unet.{name}": x.float() for name, x in unet.items()}
    for name, x in load_file(source / "ip_adapter.safetensors").items():
        part, place = name.split(".", 1)
        if part == "ip_adapter":
            layer, matrix, _ = place.split(".")
            weights[f"attention.{int(layer) // 2}.{matrix}.0.weight"] = x.float()
        else:
            weights[f"projection.{place}"] = x.float()
    return weights


@torch.no_grad()
def sample(
    generator: Generator,
    text: torch.Tensor,
    features: torch.Tensor,
    null_text: torch.Tensor,
    null_features: torch.Tensor,
    noise: torch.Tensor,
    steps: int,
    guidance: float,
) -> torch.Tensor:
    """Draw latents (n, 8, 14, 14) as the stock pipeline does."""
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    both_text = torch.cat([null_text.expand_as(text), text])
    both = torch.cat([null_features.expand_as(features), features])
    x = noise
    for t in scheduler.timesteps:
        v = generator(torch.cat([x, x]), t.expand(2 * len(x)), both_text, both).float()
        free, asked = v.chunk(2)
        x = scheduler.step(free + guidance * (asked - free), t, x).prev_sample
    return x
