"""The groups: files that generators mount."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Generators that mount the same file: what it is, where it comes from, and whether `ireu` edits its kind."""

    title: str
    file: str
    edited: bool = True
    why_not: str = ""
    """Why ireu does not edit its kind, where it does not."""


_VAE_KEEPS = "a VAE keeps the whole picture, not who is in it"
GROUPS: dict[str, Group] = {
    "H": Group(
        "OpenCLIP ViT-H/14",
        "h94/IP-Adapter models/image_encoder, laion/CLIP-ViT-H-14-laion2B-s32B-b79K, image_encoder of Wan's folders "
        "for diffusers, Wan's models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth, image_encoder of Stable Video "
        "Diffusion",
    ),
    "G": Group(
        "OpenCLIP ViT-bigG/14", "h94/IP-Adapter sdxl_models/image_encoder, image_encoder of Kandinsky 2.2's prior"
    ),
    "L": Group("CLIP ViT-L/14", "openai/clip-vit-large-patch14"),
    "336": Group("CLIP ViT-L/14, 336 px", "clip-vit-large-patch14-336 of the Kolors repositories"),
    "P1": Group("PhotoMaker v1's own ViT-L/14", "photomaker-v1.bin"),
    "P2": Group("PhotoMaker v2's own ViT-L/14", "photomaker-v2.bin"),
    "FC": Group("FastComposer's own ViT-L/14", "pytorch_model.bin of FastComposer"),
    "R50": Group("ArcFace r50", "w600k_r50.onnx of insightface's buffalo_l"),
    "FF": Group("FaceFusion's own copy of ArcFace r50", "arcface_w600k_r50.onnx of FaceFusion"),
    "R100": Group("ArcFace r100", "glintr100.onnx of insightface's antelopev2"),
    "A2F": Group("Arc2Face's own ArcFace r100", "arcface.onnx of Arc2Face"),
    "AF": Group("AuraFace, an ArcFace r100", "glintr100.onnx of fal/AuraFace-v1"),
    "S": Group("SigLIP so400m", "google/siglip-so400m-patch14-384"),
    "S2": Group("SigLIP 2 so400m, 512 px", "google/siglip2-so400m-patch16-512"),
    "SB": Group("SigLIP base", "google/siglip-base-patch16-224"),
    "SB256": Group("SigLIP base, 256 px", "google/siglip-base-patch16-256-i18n"),
    "D": Group("DINOv2 giant", "facebook/dinov2-giant"),
    "E": Group("EVA02-CLIP-L-14-336", "EVA02_CLIP_L_336_psz14_s6B.pt"),
    "R101": Group(
        "UniPortrait's own CurricularFace r101",
        "glint360k_curricular_face_r101_backbone.bin",
        edited=False,
        why_not="its feature maps are read, not its output, so no gate can stand behind it",
    ),
    "DH": Group(
        "HunyuanPortrait's own DINOv2 ViT-L",
        "dino.pth",
        edited=False,
        why_not="each of its blocks also takes the face embedding",
    ),
    "TF": Group(
        "TransFace ViT-S",
        "ms1mv2_model_TransFace_S.pt",
        edited=False,
        why_not="its patches are read, and it has no class token",
    ),
    "FX": Group(
        "FaceCLIP's own face ViT",
        "face_encoder of FaceCLIP's and FaceT5's files",
        edited=False,
        why_not="its patches are read too, and it has no class token",
    ),
    "N2": Group(
        "SigLIP 2 for pictures of any shape",
        "siglip of Z-Image-Omni's folder, vision_model of HunyuanImage 3.0",
        edited=False,
        why_not="the number of patches depends on the picture, and it has no class token",
    ),
    "T5G": Group(
        "T5Gemma 2's vision tower",
        "text_encoder of Motif-Video's folder",
        edited=False,
        why_not="it lies inside a language model, and it has no class token",
    ),
    "VLM": Group(
        "the generator's own language model",
        "its text encoder, which sees pictures",
        edited=False,
        why_not="a language model is no image encoder",
    ),
    "WV": Group(
        "Wan's VAE",
        "Wan2.1_VAE.pth, vae of Wan's folders for diffusers",
        edited=False,
        why_not=_VAE_KEEPS,
    ),
    "VAE": Group("the generator's own VAE", "vae of its folder, another one in each", edited=False, why_not=_VAE_KEEPS),
    "IR50": Group("facexlib's ArcFace ir_se50", "recognition_arcface_ir_se50.pth"),
}
