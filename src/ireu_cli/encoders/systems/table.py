"""What systems read, and the systems that draw pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

from ireu_cli.encoders.systems.groups import GROUPS
from ireu_cli.params import Tap


def listed(taps: Sequence[str]) -> str:
    """Some taps in words, such as "a, b and c"."""
    *rest, last = taps
    return f"{', '.join(rest)} and {last}" if rest else last


@dataclass(frozen=True)
class Channel:
    """One way for identity to enter a generator: an encoder of a group, read at all of these taps.

    `words` says what is read where we have no tap, or many.
    """

    group: str
    taps: tuple[Tap, ...] = ()
    words: str = ""

    def sentence(self) -> str:
        """What is read, in words."""
        return f"{self.words or listed(self.taps)} of {GROUPS[self.group].title}"


@dataclass(frozen=True)
class System:
    """A customised portrait generator, and what it reads of a face.

    `enters` says how a photo of the person gets in where there is no identity encoder; empty where none gets in. A gate
    in front of such a system sees the photo too.
    """

    title: str
    channels: tuple[Channel, ...]
    remark: str = ""
    source: str = ""
    """Where we read it: a repository at GitHub with its commit, and files in it."""
    enters: str = ""


LATENTS = "the photo's latents"
EVA = (
    Channel(
        "E",
        ("block-4", "block-8", "block-12", "block-16", "block-20", "image_embeds"),
        "the inputs of blocks 4, 8, 12, 16, 20 and the head",
    ),
    Channel("R100", ("embedding",)),
)
"""What PuLID reads, and what is built like it: EVA02-CLIP at six depths, and the raw embedding."""
PICTURES: dict[str, System] = {
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
        EVA,
        "of the face in grey on white",
        "ToTheBeginning/PuLID@1aa2fc7 pulid/pipeline.py, pulid/pipeline_flux.py, eva_clip/eva_vit_model.py",
    ),
    "ecomid": System(
        "EcomID, SDXL",
        EVA,
        "with the weights of PuLID and InstantID",
        "alimama-creative/SDXL_EcomID_ComfyUI@e43fdb7 eva_clip/eva_vit_model.py",
    ),
    "consistentid": System(
        "ConsistentID, SD1.5 and SDXL",
        (Channel("H", ("penultimate",)), Channel("R50", ("normed_embedding",))),
        "of the face and of crops of its parts",
    ),
    "uniportrait": System(
        "UniPortrait, SD1.5",
        (Channel("H", ("image_embeds", "penultimate")), Channel("R101", words="feature maps")),
        source="junjiehe96/UniPortrait@65079d3 uniportrait/uniportrait_pipeline.py",
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
        "FLUX Redux",
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
        source="Gourieff/ComfyUI-ReActor@6ad6b35 reactor_core/inswap.py",
    ),
    "facefusion": System(
        "FaceFusion, a face swapper",
        (Channel("FF", ("embedding", "normed_embedding")),),
        "it compares a checksum; blendswap and uniface read a picture of the face instead",
        source="facefusion/facefusion@33cc6b40 facefusion/face_recognizer.py",
    ),
    "infiniteyou": System(
        "InfiniteYou, FLUX",
        (Channel("IR50", ("normed_embedding",)),),
        "antelopev2 only finds the face",
        source="bytedance/InfiniteYou@aaa6ea5 pipelines/pipeline_infu_flux.py",
    ),
    "id-patch": System(
        "ID-Patch, SDXL",
        (Channel("IR50", ("normed_embedding",)),),
        source="bytedance/ID-Patch@099ad14 demo.py",
    ),
    "storymaker": System(
        "StoryMaker, SDXL",
        (Channel("H", ("penultimate",)), Channel("R50", ("normed_embedding",))),
        "of the person, cut out, and of the face",
        "RedAIGC/StoryMaker@a7ce766 pipeline_sdxl_storymaker.py",
    ),
    "inswapper": System(
        "roop, Deep-Live-Cam and others that run inswapper, face swappers",
        (Channel("R50", ("normed_embedding",)),),
        "",
        "deepinsight/insightface@7fadd420 python-package/insightface/model_zoo/inswapper.py",
    ),
    "withanyone": System(
        "WithAnyone, FLUX",
        (Channel("R100", ("embedding",)), Channel("SB256", ("last",))),
        "the variant on FLUX Kontext reads the picture that it edits too",
        "Doby-Xu/WithAnyone@996d152 util.py, withanyone/flux/model.py",
    ),
    "xverse": System(
        "XVerse, FLUX",
        (Channel("L", ("penultimate",)), Channel("VAE", words=LATENTS)),
        "",
        "bytedance/XVerse@65e2581 src/adapters/mod_adapters.py, src/flux/generate.py",
    ),
    "anystory": System(
        "AnyStory, FLUX",
        (Channel("S", ("last",)), Channel("VAE", words=LATENTS)),
        "Redux's copy",
        "junjiehe96/AnyStory@c38fef8 anystory/generate.py",
    ),
    "uso": System(
        "USO, FLUX",
        (Channel("S", ("block-8", "block-17", "penultimate")), Channel("VAE", words=LATENTS)),
        "the first of the picture of a style, the second of the picture of a person",
        "bytedance/USO@b6784d7 uso/flux/modules/layers.py, uso/flux/pipeline.py",
    ),
    "instantcharacter": System(
        "InstantCharacter, FLUX",
        (
            Channel("S", ("block-7", "block-13", "penultimate", "last")),
            Channel("D", ("block-9", "block-19", "block-29", "last")),
        ),
        "patches only, of the picture and of four parts of it",
        "Tencent/InstantCharacter@5f5c49a pipeline.py",
    ),
    "uniworld-v1": System(
        "UniWorld-V1, FLUX",
        (Channel("S2", ("last",)), Channel("VLM", words="the photo's tokens")),
        "",
        "PKU-YuanGroup/UniWorld-V1@8403e86 app.py",
    ),
    "z-image-omni": System(
        "Z-Image-Omni",
        (Channel("N2", words="patches"), Channel("VAE", words=LATENTS)),
        "",
        "huggingface/diffusers@58eb52c pipelines/z_image/pipeline_z_image_omni.py",
    ),
    "hunyuanimage-3": System(
        "HunyuanImage 3.0",
        (Channel("N2", words="patches"), Channel("VAE", words=LATENTS)),
        "",
        "Tencent-Hunyuan/HunyuanImage-3.0@1d011c8 hunyuan_image_3/hunyuan.py",
    ),
    "stable-cascade": System(
        "Stable Cascade with a picture",
        (Channel("L", ("image_embeds",)),),
        "its prior ships a copy",
        "huggingface/diffusers@58eb52c pipelines/stable_cascade/pipeline_stable_cascade_prior.py",
    ),
    "kandinsky-2.2": System(
        "Kandinsky 2.2 with a picture",
        (Channel("G", ("image_embeds",)),),
        "its prior ships a copy",
        "huggingface/diffusers@58eb52c pipelines/kandinsky2_2/pipeline_kandinsky2_2_prior.py",
    ),
    "facechain-fact": System(
        "FaceChain FACT, SD1.5",
        (Channel("TF", words="patches"),),
        "",
        "modelscope/facechain@7bc7119 face_adapter/face_adapter_v1.py",
    ),
    "faceclip": System(
        "FaceCLIP, SDXL, and FaceT5, FLUX",
        (Channel("FX", words="patches and output"),),
        "",
        "bytedance/FaceCLIP@a984887 core/face_clip/face_clip.py",
    ),
    "flux-kontext": System(
        "FLUX.1 Kontext",
        (),
        "an IP-Adapter beside it is flux-ip-adapter",
        "huggingface/diffusers@58eb52c pipelines/flux/pipeline_flux_kontext.py",
        enters="through its VAE",
    ),
    "flux-2": System(
        "FLUX.2",
        (),
        source="huggingface/diffusers@58eb52c pipelines/flux2/pipeline_flux2.py",
        enters="through its VAE, and into the language model if that rewrites the prompt",
    ),
    "qwen-image-edit": System(
        "Qwen-Image-Edit and its Plus",
        (),
        source="huggingface/diffusers@58eb52c pipelines/qwenimage/pipeline_qwenimage_edit.py",
        enters="through its VAE and through Qwen2.5-VL",
    ),
    "omnigen2": System(
        "OmniGen2",
        (),
        source="VectorSpaceLab/OmniGen2@0f72fa9 pipeline_omnigen2.py",
        enters="through its VAE",
    ),
    "token-editors": System(
        "OmniGen, DreamO, UNO, UMO, HiDream-E1, LongCat-Image-Edit, JoyImage-Edit, DreamLite, GLM-Image, Wan 2.2 "
        "image-to-video",
        (),
        enters="through a VAE or a language model",
    ),
    "tuned-weights": System(
        "DreamBooth and LoRA of one person: identity is in the generator's own weights",
        (),
    ),
}
"""Those that draw pictures, by their names in `--for`."""
