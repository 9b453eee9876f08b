"""The systems that draw videos."""

from ireu_cli.encoders.systems.table import EVA, LATENTS, Channel, System

_WAN = (Channel("H", ("penultimate",)), Channel("WV", words=LATENTS))
"""What Wan 2.1 reads, and what is built on it: the tokens before the last block, and the photo itself."""

VIDEOS: dict[str, System] = {
    "consisid": System(
        "ConsisID, video",
        EVA,
        "of the face in grey on white",
        "huggingface/diffusers@58eb52c pipelines/consisid/consisid_utils.py",
    ),
    "ingredients": System(
        "Ingredients, video of several people",
        EVA,
        "of each person's face",
        "feizc/Ingredients@36e3d1b models/utils.py",
    ),
    "wan-i2v": System(
        "Wan 2.1 image-to-video and first-last-frame-to-video",
        _WAN,
        source="Wan-Video/Wan2.1@9737cba wan/image2video.py, wan/first_last_frame2video.py",
    ),
    "wan-animate": System(
        "Wan-Animate, video",
        _WAN,
        "the face in the driving video is read by an encoder of its own",
        source="Wan-Video/Wan2.2@42bf4cf wan/animate.py",
    ),
    "multitalk": System(
        "MultiTalk and InfiniteTalk, talking video",
        _WAN,
        source="MeiGen-AI/MultiTalk@c1ad840, MeiGen-AI/InfiniteTalk@0107cd9 wan/multitalk.py",
    ),
    "skyreels-v2": System(
        "SkyReels-V2 image-to-video",
        _WAN,
        source="SkyworkAI/SkyReels-V2@abed76f image2video_pipeline.py",
    ),
    "skyreels-a2": System(
        "SkyReels-A2, video of several pictures",
        _WAN,
        source="SkyworkAI/SkyReels-A2@7c14e2e models/pipeline_a2.py",
    ),
    "chronoedit": System(
        "ChronoEdit, pictures edited as video",
        _WAN,
        source="huggingface/diffusers@58eb52c pipelines/chronoedit/pipeline_chronoedit.py",
    ),
    "svd": System(
        "Stable Video Diffusion and Sonic, talking video",
        (Channel("H", ("image_embeds",)), Channel("VAE", words=LATENTS)),
        source="huggingface/diffusers@58eb52c pipelines/stable_video_diffusion/pipeline_stable_video_diffusion.py, "
        "jixiaozhong/Sonic@51a74ae sonic.py",
    ),
    "hunyuanportrait": System(
        "HunyuanPortrait, a portrait that follows a video",
        (
            Channel("A2F", ("normed_embedding",)),
            Channel("DH", words="all tokens"),
            Channel("VAE", words=LATENTS),
        ),
        "without a face it goes on with zeros",
        "Tencent-Hunyuan/HunyuanPortrait@48bae74 inference.py, src/pipelines/hunyuan_svd_pipeline.py",
    ),
    "echovideo": System(
        "EchoVideo",
        (Channel("R100", ("embedding",)), Channel("SB", ("last",)), Channel("VAE", words=LATENTS)),
        "",
        "bytedance/EchoVideo@9939545 models/utils.py, models/pipeline_echovideo.py",
    ),
    "framepack": System(
        "FramePack, HunyuanVideo 1.5 image-to-video",
        (Channel("S", ("last",)), Channel("VAE", words=LATENTS)),
        "Redux's copy",
        "huggingface/diffusers@58eb52c pipelines/hunyuan_video/pipeline_hunyuan_video_framepack.py, "
        "pipelines/hunyuan_video1_5/pipeline_hunyuan_video1_5_image2video.py",
    ),
    "motif-video": System(
        "Motif-Video image-to-video",
        (Channel("T5G", words="patches"), Channel("VAE", words=LATENTS)),
        "",
        "huggingface/diffusers@58eb52c pipelines/motif_video/pipeline_motif_video_image2video.py",
    ),
    "phantom": System(
        "Phantom-Wan, video of several pictures",
        (Channel("WV", words=LATENTS),),
        "",
        "sbalani/Phantom-cog@9a9be62 phantom_wan/subject2video.py",
    ),
    "stand-in": System(
        "Stand-In, video",
        (Channel("WV", words=LATENTS),),
        "antelopev2 only finds the face",
        "WeChatCV/Stand-In@cceec58 pipelines/wan_video.py",
    ),
    "hunyuancustom": System(
        "HunyuanCustom, video",
        (Channel("VLM", words="the photo's tokens"), Channel("VAE", words=LATENTS)),
        "",
        "Tencent-Hunyuan/HunyuanCustom@abffb8f hymm_sp/text_encoder/__init__.py",
    ),
}
"""By their names in `--for`."""
