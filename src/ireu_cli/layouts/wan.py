"""Wan's `models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth`: a ViT-H/14 beside a text encoder.

Wan's own module has names of its own, one tensor for query, key and value, and a projection that is turned
(Wan-Video/Wan2.1, wan/modules/clip.py). It runs the vision transformer without its last block. The text encoder and a
scale lie beside it, and the loader asks for every one of them.
"""

import re

from ireu_cli.layouts.layout import CLIP, Layout, Piece

_BLOCK = re.compile(r"transformer\.(\d+)\.")
_FUSED = "attn.to_qkv."
_PARTS = {
    "patch_embedding.": "embeddings.patch_embedding.",
    "pre_norm.": "pre_layrnorm.",
    "post_norm.": "post_layernorm.",
}
_BLOCK_PARTS = {
    "norm1.": "layer_norm1.",
    "norm2.": "layer_norm2.",
    "attn.proj.": "self_attn.out_proj.",
    "mlp.0.": "mlp.fc1.",
    "mlp.2.": "mlp.fc2.",
}
_SINGLE = {
    "cls_embedding": Piece("vision_model.embeddings.class_embedding", ones=2),
    "pos_embedding": Piece("vision_model.embeddings.position_embedding.weight", ones=1),
    "head": Piece("visual_projection.weight", turned=True),
}


class Wan(Layout):
    """Names such as `visual.transformer.0.attn.to_qkv.weight`."""

    def pieces(self, there: str) -> tuple[Piece, ...]:
        """The encoder's tensors in a tensor of the file."""
        if not there.startswith(self.prefix):
            return ()
        name = there.removeprefix(self.prefix)
        if name in _SINGLE:
            return (_SINGLE[name],)
        block = _BLOCK.match(name)
        if block is None:
            return _renamed(name, _PARTS, "vision_model.")
        start, rest = f"vision_model.encoder.layers.{block[1]}.", name[block.end() :]
        if not rest.startswith(_FUSED):
            return _renamed(rest, _BLOCK_PARTS, start)
        last = rest.removeprefix(_FUSED)
        # Scales and other parts of quantised weights are one tensor each; they have to be found, to be refused.
        parts = 3 if last in {"weight", "bias"} else 1
        named = (f"{start}self_attn.{part}_proj.{last}" for part in "qkv"[:parts])
        return tuple(Piece(own, part, parts) for part, own in enumerate(named))


def _renamed(name: str, parts: dict[str, str], start: str) -> tuple[Piece, ...]:
    found = (Piece(f"{start}{own}{name.removeprefix(there)}") for there, own in parts.items() if name.startswith(there))
    return tuple(found)


WAN = Wan(
    "wan",
    frozenset({CLIP}),
    in_folder=False,
    library="wan",
    prefix="visual.",
    part_of="Wan",
    file="models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    squeezes=True,
)
