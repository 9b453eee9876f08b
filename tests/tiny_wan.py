"""Wan's CLIP: a vision transformer with Wan's names and shapes, written for the tests, beside a stand-in for its text.

It computes what Wan's own module computes of pixels, and asks for every tensor of a file, as that one does.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        count, tokens, width = states.shape
        # The rows are those of query, key and value, one after another.
        query, key, value = (
            part.reshape(count, tokens, self.heads, -1).transpose(1, 2) for part in self.to_qkv(states).chunk(3, dim=-1)
        )
        found = functional.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.proj(found.transpose(1, 2).reshape(count, tokens, width))
        return mixed


class _Block(nn.Module):
    def __init__(self, width: int, inner: int, heads: int, activation: nn.Module) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = _Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, inner), activation, nn.Linear(inner, width))

    def forward(self, states: Tensor) -> Tensor:
        states = states + self.attn(self.norm1(states))
        found: Tensor = states + self.mlp(self.norm2(states))
        return found


class _QuickGelu(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values * torch.sigmoid(1.702 * values)


class _Visual(nn.Module):
    def __init__(self, sizes: dict[str, int | str]) -> None:
        super().__init__()
        width, inner, blocks, heads, patch, side, out = (
            int(sizes[name])
            for name in (
                "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "patch_size",
                "image_size", "projection_dim",
            )
        )  # fmt: skip
        self.patch_embedding = nn.Conv2d(3, width, patch, stride=patch, bias=False)
        self.cls_embedding = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embedding = nn.Parameter(torch.zeros(1, (side // patch) ** 2 + 1, width))
        self.pre_norm, self.post_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        activation = {"gelu": nn.GELU, "quick_gelu": _QuickGelu}[str(sizes["hidden_act"])]
        self.transformer = nn.Sequential(*(_Block(width, inner, heads, activation()) for _ in range(blocks)))
        self.head = nn.Parameter(torch.zeros(width, out))

    def entering(self, pixels: Tensor) -> Tensor:
        patches = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        states = torch.cat([self.cls_embedding.expand(len(pixels), -1, -1), patches], dim=1) + self.pos_embedding
        found: Tensor = self.pre_norm(states)
        return found


class WanClip(nn.Module):
    """The module that Wan's pipelines load the file into: `visual`, `textual`, `log_scale`."""

    def __init__(self, sizes: dict[str, int | str]) -> None:
        """Build it from the settings in a config.json of a CLIP vision transformer with projection."""
        super().__init__()
        self.visual = _Visual(sizes)
        self.textual = nn.Linear(3, 5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def read(self, pixels: Tensor) -> Tensor:
        """What the pipelines read: all tokens before the last block, (n, tokens, width)."""
        found: Tensor = self.visual.transformer[:-1](self.visual.entering(pixels))
        return found

    def embed(self, pixels: Tensor) -> Tensor:
        """The whole tower, whose projection no pipeline of Wan reads: (n, projection)."""
        states = self.visual.transformer(self.visual.entering(pixels))
        found: Tensor = self.visual.post_norm(states[:, 0]) @ self.visual.head
        return found


def wan_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A `CLIPVisionModelWithProjection` under Wan's names and in its shapes, with the rest of a whole CLIP."""
    vision = {name.removeprefix("vision_model."): tensor for name, tensor in state.items()}
    blocks = len({name.split(".")[2] for name in vision if name.startswith("encoder.layers.")})
    found = {
        "visual.cls_embedding": vision["embeddings.class_embedding"][None, None],
        "visual.pos_embedding": vision["embeddings.position_embedding.weight"][None],
        "visual.head": state["visual_projection.weight"].T.contiguous(),
        "visual.patch_embedding.weight": vision["embeddings.patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        found[f"visual.pre_norm.{kind}"] = vision[f"pre_layrnorm.{kind}"]
        for number in range(blocks):
            there, own = f"visual.transformer.{number}", f"encoder.layers.{number}"
            fused = [vision[f"{own}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            found |= {
                f"{there}.norm1.{kind}": vision[f"{own}.layer_norm1.{kind}"],
                f"{there}.attn.to_qkv.{kind}": torch.cat(fused),
                f"{there}.attn.proj.{kind}": vision[f"{own}.self_attn.out_proj.{kind}"],
                f"{there}.norm2.{kind}": vision[f"{own}.layer_norm2.{kind}"],
                f"{there}.mlp.0.{kind}": vision[f"{own}.mlp.fc1.{kind}"],
                f"{there}.mlp.2.{kind}": vision[f"{own}.mlp.fc2.{kind}"],
            }
        found[f"visual.post_norm.{kind}"] = vision[f"post_layernorm.{kind}"]
    draw = torch.Generator().manual_seed(7)
    found |= {"textual.weight": torch.randn(5, 3, generator=draw), "textual.bias": torch.randn(5, generator=draw)}
    return {**found, "log_scale": torch.tensor(math.log(1 / 0.07))}
