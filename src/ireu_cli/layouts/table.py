"""The only table of layouts. One of somebody else's joins it by `register`."""

from ireu_cli.layouts.layout import BARE, CLIP, DINOV2, EVA, FACEXLIB, NETWORK, SIGLIP, Layout
from ireu_cli.layouts.wan import WAN

AUTO = "auto"
"""What stands for the layout that an encoder has."""
_COMFYUI = {
    "H": "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors",
    "G": "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors",
    "L": "clip-vit-large-patch14.safetensors",
    "336": "clip-vit-large-patch14-336.safetensors",
    "S": "sigclip_vision_patch14_384.safetensors",
}
"""The names by which ComfyUI's loaders tell encoders."""

_LAYOUTS = [
    # `config.json` and weights, in one piece or in shards.
    Layout("clip-folder", frozenset({CLIP}), in_folder=True, library="transformers"),
    # The same of a CLIP vision transformer that has no projection, as Wan's folders for diffusers hold it.
    Layout("clip-vision-folder", frozenset({BARE}), in_folder=True, library="transformers"),
    # The same of SigLIP, alone or with a text encoder.
    Layout("siglip-folder", frozenset({SIGLIP}), in_folder=True, library="transformers"),
    # The same of DINOv2.
    Layout("dino-folder", frozenset({DINOV2}), in_folder=True, library="transformers"),
    # What `load_ip_adapter` takes as repository.
    Layout(
        "ip-adapter",
        frozenset({CLIP}),
        in_folder=True,
        library="transformers",
        inside="models/image_encoder",
        beside=("ip-adapter*",),
    ),
    # ComfyUI's `clip_vision/*.safetensors`, sd-webui's `clip_h.pth`, a whole CLIP model.
    Layout(
        "single-file",
        frozenset({CLIP, SIGLIP}),
        in_folder=False,
        library="transformers",
        files_of_groups=_COMFYUI,
    ),
    # `photomaker-v1.bin`, `photomaker-v2.bin`, or the same as safetensors; v2 has a Q-Former and v1 has none.
    Layout(
        "photomaker",
        frozenset({CLIP}),
        in_folder=False,
        library="transformers",
        prefix="id_encoder.",
        part_of="PhotoMaker",
        groups={"id_encoder.qformer_perceiver.": "P2", "": "P1"},
    ),
    # `pytorch_model.bin` of a whole FastComposer.
    Layout(
        "fastcomposer",
        frozenset({CLIP}),
        in_folder=False,
        library="transformers",
        prefix="image_encoder.",
        part_of="FastComposer",
        groups={"": "FC"},
    ),
    # Wan's file of both towers of a CLIP, with names and shapes of its own.
    WAN,
    # The file of both towers of EVA02-CLIP, as `torch.save` writes a state dict of eva_clip; or the vision transformer.
    Layout(
        "eva-clip",
        frozenset({EVA}),
        in_folder=False,
        library="eva_clip",
        prefix="visual.",
        part_of="EVA-CLIP",
        file="EVA02_CLIP_L_336_psz14_s6B.pt",
    ),
    # facexlib's `recognition_arcface_ir_se50.pth`.
    Layout(
        "facexlib",
        frozenset({FACEXLIB}),
        in_folder=False,
        library="facexlib",
        file="recognition_arcface_ir_se50.pth",
    ),
    # An ArcFace network.
    Layout("onnx", frozenset({NETWORK, FACEXLIB}), in_folder=False, library="onnx"),
    # A folder of networks, of which insightface takes one for recognition.
    Layout("insightface-pack", frozenset({NETWORK}), in_folder=True, library="onnx", part_of="insightface"),
    # FaceFusion's own network, under the only name that FaceFusion looks for, with the checksum that it compares.
    Layout(
        "facefusion",
        frozenset({NETWORK}),
        in_folder=False,
        library="onnx",
        file="arcface_w600k_r50.onnx",
        has_checksum=True,
    ),
    # The detectors of an ArcFace network without the network, for services whose generator has no identity encoder.
    Layout(
        "gate",
        frozenset({NETWORK, FACEXLIB}),
        in_folder=False,
        library="onnx",
        file="gate.onnx",
        is_gate=True,
    ),
]


def layout_names() -> list[str]:
    """The names of all layouts."""
    return [layout.name for layout in _LAYOUTS]


def layout_named(name: str) -> Layout:
    """The layout of a name, which has to be one of `layout_names`."""
    return next(layout for layout in _LAYOUTS if layout.name == name)


def layouts_of(kind: str) -> list[Layout]:
    """The layouts that hold a kind of encoder, in the order in which a file is asked for them."""
    return [layout for layout in _LAYOUTS if kind in layout.holds]


def files_in_folders() -> list[str]:
    """How layouts that fill a folder call a file of weights."""
    return list(dict.fromkeys(layout.file for layout in _LAYOUTS if layout.in_folder))


def plain_layout(kind: str, *, folder: bool) -> Layout:
    """The layout of an encoder that was found in a folder, or in a file, and in no layout with a prefix."""
    return next(layout for layout in layouts_of(kind) if not layout.prefix and layout.is_met_in(folder=folder))


def register(layout: Layout) -> None:
    """Add a layout, which is read, and which `export.format` may name, from then on.

    Raises:
        ValueError: there is one of that name.
    """
    if layout.name in {AUTO, *layout_names()}:
        raise ValueError(f"there is a layout called {layout.name} already")
    _LAYOUTS.append(layout)
