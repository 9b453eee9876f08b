"""Which generators read which encoder at which tap: data, from their code and model cards.

A system is covered by an edit only when every identity channel it reads is reached. Sizes alone do not tell which
weights a file holds. A group is named after the architecture of its encoder; the owner of a file has to say whether it
is that very encoder.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from ireu_cli.params import Tap


@dataclass(frozen=True)
class Group:
    """Generators that mount the same file: what it is, where it comes from, and whether `ireu` edits its kind."""

    title: str
    file: str
    edited: bool = True


GROUPS: dict[str, Group] = {
    "H": Group(
        "OpenCLIP ViT-H/14",
        "h94/IP-Adapter models/image_encoder, laion/CLIP-ViT-H-14-laion2B-s32B-b79K, image_encoder of Wan's folders "
        "for diffusers, Wan's models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
    ),
    "G": Group("OpenCLIP ViT-bigG/14", "h94/IP-Adapter sdxl_models/image_encoder"),
    "L": Group("CLIP ViT-L/14", "openai/clip-vit-large-patch14"),
    "336": Group("CLIP ViT-L/14, 336 px", "clip-vit-large-patch14-336 of the Kolors repositories"),
    "P1": Group("PhotoMaker v1's own ViT-L/14", "photomaker-v1.bin"),
    "P2": Group("PhotoMaker v2's own ViT-L/14", "photomaker-v2.bin"),
    "FC": Group("FastComposer's own ViT-L/14", "pytorch_model.bin of FastComposer"),
    "R50": Group("ArcFace r50", "w600k_r50.onnx of insightface's buffalo_l"),
    "FF": Group("FaceFusion's own copy of ArcFace r50", "arcface_w600k_r50.onnx of FaceFusion"),
    "R100": Group("ArcFace r100", "glintr100.onnx of insightface's antelopev2"),
    "A2F": Group("Arc2Face's own ArcFace r100", "arcface.onnx of Arc2Face"),
    "S": Group("SigLIP so400m", "google/siglip-so400m-patch14-384"),
    "E": Group("EVA02-CLIP-L-14-336", "EVA02_CLIP_L_336_psz14_s6B.pt", edited=False),
    "R101": Group("UniPortrait's own CurricularFace r101", "its feature maps are read, not its output", edited=False),
    "WV": Group("Wan's VAE", "Wan2.1_VAE.pth, vae of Wan's folders for diffusers", edited=False),
    "IR50": Group("facexlib's ArcFace ir_se50", "recognition_arcface_ir_se50.pth"),
}


@dataclass(frozen=True)
class Channel:
    """One way for identity to enter a generator: an encoder of a group, read at all of these taps.

    `words` says what is read where we have no tap.
    """

    group: str
    taps: tuple[Tap, ...] = ()
    words: str = ""

    def sentence(self) -> str:
        """What is read, in words."""
        return f"{self.words or ' and '.join(self.taps)} of {GROUPS[self.group].title}"


@dataclass(frozen=True)
class System:
    """A customised portrait generator, and what it reads of a face.

    `enters` says how a photo of the person gets in where there is no identity encoder; empty where none gets in. A gate
    in front of such a system sees the photo too.
    """

    title: str
    channels: tuple[Channel, ...]
    remark: str = ""
    enters: str = ""


_WAN = (Channel("H", ("penultimate",)), Channel("WV", words="the photo's latents"))
"""What Wan 2.1 reads, and what is built on it: the tokens before the last block, and the photo itself."""

SYSTEMS: dict[str, System] = {
    "ip-adapter": System(
        "IP-Adapter base: sd15, sd15_light, sdxl_vit-h",
        (Channel("H", ("image_embeds",)),),
    ),
    "ip-adapter-vit-g": System(
        "IP-Adapter base: sdxl, sd15_vit-G",
        (Channel("G", ("image_embeds",)),),
    ),
    "ip-adapter-plus": System(
        "IP-Adapter plus and plus-face, SD1.5 and SDXL",
        (Channel("H", ("penultimate",)),),
        "the SDXL variants mount the encoder of models/, not of sdxl_models/",
    ),
    "ip-adapter-full-face": System(
        "IP-Adapter full-face, SD1.5",
        (Channel("H", ("penultimate",)),),
    ),
    "ip-adapter-faceid": System(
        "IP-Adapter FaceID and portrait, SD1.5 and SDXL",
        (Channel("R50", ("normed_embedding",)),),
    ),
    "ip-adapter-faceid-unnorm": System(
        "IP-Adapter FaceID portrait_sdxl_unnorm",
        (Channel("R50", ("embedding",)),),
    ),
    "ip-adapter-faceid-plus": System(
        "IP-Adapter FaceID-Plus and PlusV2, SD1.5 and SDXL",
        (Channel("R50", ("normed_embedding",)), Channel("H", ("penultimate",))),
    ),
    "photomaker-v1": System(
        "PhotoMaker v1, SDXL",
        (Channel("P1", ("pooled",)),),
        "two projections of it",
    ),
    "photomaker-v2": System(
        "PhotoMaker v2, SDXL",
        (Channel("P2", ("last",)), Channel("R50", ("embedding",))),
        "no post_layernorm and no projection",
    ),
    "fastcomposer": System(
        "FastComposer, SD1.5",
        (Channel("FC", ("image_embeds",)),),
    ),
    "instantid": System(
        "InstantID, SDXL",
        (Channel("R100", ("embedding",)),),
    ),
    "pulid": System(
        "PuLID v1, v1.1 (SDXL) and v0.9 (FLUX)",
        (Channel("E", words="the inputs of blocks 4, 8, 12, 16, 20 and the head"), Channel("R100", ("embedding",))),
    ),
    "consisid": System(
        "ConsisID, video",
        (Channel("E", words="the inputs of blocks 4, 8, 12, 16, 20 and the head"), Channel("R100", ("embedding",))),
    ),
    "consistentid": System(
        "ConsistentID, SD1.5 and SDXL",
        (Channel("H", ("penultimate",)), Channel("R50", ("normed_embedding",))),
        "of the face and of crops of its parts",
    ),
    "uniportrait": System(
        "UniPortrait, SD1.5",
        (Channel("H", ("image_embeds", "penultimate")), Channel("R101", words="feature maps")),
    ),
    "hyperlora": System(
        "HyperLoRA, SDXL",
        (Channel("L", ("penultimate",)), Channel("R100", ("normed_embedding",))),
    ),
    "flux-ip-adapter": System(
        "XLabs FLUX IP-Adapter; Flux, Flux-Kontext and Chroma of diffusers",
        (Channel("L", ("image_embeds",)),),
    ),
    "instantx-flux-ip-adapter": System(
        "InstantX FLUX IP-Adapter",
        (Channel("S", ("pooled",)),),
    ),
    "sd3-ip-adapter": System(
        "SD3 and SD3.5 IP-Adapter",
        (Channel("S", ("penultimate",)),),
    ),
    "flux-redux": System(
        "FLUX Redux, FramePack",
        (Channel("S", ("last",)),),
        "Redux ships its own copy",
    ),
    "kolors-ip-adapter-plus": System(
        "Kolors IP-Adapter-Plus",
        (Channel("336", ("penultimate",)),),
    ),
    "kolors-faceid-plus": System(
        "Kolors FaceID-Plus",
        (Channel("336", ("penultimate",)), Channel("R100", ("embedding",))),
    ),
    "arc2face": System(
        "Arc2Face, SD1.5",
        (Channel("A2F", ("normed_embedding",)),),
        "glintr100.onnx is removed from its folder",
    ),
    "reactor": System(
        "ReActor, a face swapper for ComfyUI",
        (Channel("R50", ("normed_embedding",)),),
        "its saved face models hold embeddings that were computed before",
    ),
    "facefusion": System(
        "FaceFusion, a face swapper",
        (Channel("FF", ("embedding", "normed_embedding")),),
        "it compares a checksum; blendswap and uniface read a picture of the face instead",
    ),
    "infiniteyou": System(
        "InfiniteYou, FLUX",
        (Channel("IR50", ("normed_embedding",)),),
        "antelopev2 only finds the face",
    ),
    "id-patch": System(
        "ID-Patch, SDXL",
        (Channel("IR50", ("normed_embedding",)),),
    ),
    # Wan-Video/Wan2.1 wan/image2video.py, wan/first_last_frame2video.py; diffusers pipeline_wan_i2v.py.
    "wan-i2v": System(
        "Wan 2.1 image-to-video and first-last-frame-to-video",
        _WAN,
    ),
    # Wan-Video/Wan2.2 wan/animate.py; diffusers pipeline_wan_animate.py.
    "wan-animate": System(
        "Wan-Animate, video",
        _WAN,
        "the face in the driving video is read by an encoder of its own",
    ),
    # MeiGen-AI/MultiTalk and MeiGen-AI/InfiniteTalk wan/multitalk.py.
    "multitalk": System(
        "MultiTalk and InfiniteTalk, talking video",
        _WAN,
    ),
    # SkyworkAI/SkyReels-V2 image2video_pipeline.py; diffusers pipeline_skyreels_v2_i2v.py.
    "skyreels-v2": System(
        "SkyReels-V2 image-to-video",
        _WAN,
    ),
    # SkyworkAI/SkyReels-A2 models/pipeline_a2.py.
    "skyreels-a2": System(
        "SkyReels-A2, video of several pictures",
        _WAN,
    ),
    # diffusers pipeline_chronoedit.py.
    "chronoedit": System(
        "ChronoEdit, pictures edited as video",
        _WAN,
    ),
    # diffusers flux/pipeline_flux_kontext.py: the image encoder there is that of an IP-Adapter, and optional.
    "flux-kontext": System(
        "FLUX.1 Kontext",
        (),
        "an IP-Adapter beside it is flux-ip-adapter",
        enters="through its VAE",
    ),
    # diffusers flux2/pipeline_flux2.py: the language model sees pictures only where it rewrites the prompt.
    "flux-2": System(
        "FLUX.2",
        (),
        enters="through its VAE, and into the language model if that rewrites the prompt",
    ),
    # diffusers qwenimage/pipeline_qwenimage_edit.py, pipeline_qwenimage_edit_plus.py.
    "qwen-image-edit": System(
        "Qwen-Image-Edit and its Plus",
        (),
        enters="through its VAE and through Qwen2.5-VL",
    ),
    # VectorSpaceLab/OmniGen2 pipeline_omnigen2.py: Qwen2.5-VL is handed text only.
    "omnigen2": System(
        "OmniGen2",
        (),
        enters="through its VAE",
    ),
    "token-editors": System(
        "OmniGen, DreamO, UNO, Wan 2.2 image-to-video",
        (),
        enters="through a VAE or a language model",
    ),
    "tuned-weights": System(
        "DreamBooth and LoRA of one person: identity is in the generator's own weights",
        (),
    ),
}
"""The systems by their names in `--for`."""


def is_gated_only(system: System) -> bool:
    """Whether a gate is all that can keep a person out: a photo gets in, and no identity encoder reads it."""
    return not system.channels and bool(system.enters)


def systems_of(groups: Iterable[str]) -> list[str]:
    """The systems that read an encoder of some groups, in the order of the table."""
    wanted = set(groups)
    return [name for name, system in SYSTEMS.items() if wanted & {channel.group for channel in system.channels}]
