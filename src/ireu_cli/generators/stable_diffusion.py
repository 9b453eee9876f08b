"""The mount of Stable Diffusion and SDXL, and of every other pipeline with diffusers' own `load_ip_adapter`."""

from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.params import Tap


class StableDiffusion:
    """Null features go in before those of the photo, in one tensor."""

    def takes(self, kind: type) -> bool:
        """Whatever takes an IP-Adapter at all."""
        return hasattr(kind, "load_ip_adapter")

    def mount(self, pipeline: Any, adapter: Any, file: str = "") -> None:
        """Load an adapter."""
        pipeline.load_ip_adapter(
            adapter, subfolder="", weight_name=file, low_cpu_mem_usage=False, image_encoder_folder=None
        )

    def embeds(self, feature: Tensor, null: Tensor, guidance: float) -> dict[str, Any]:
        """All nulls, then all photos; without guidance, the photos alone."""
        sent = [null, feature] if guidance > 1 else [feature]
        return {"ip_adapter_image_embeds": [torch.cat(sent)[:, None]], "guidance_scale": guidance}

    def null(self, encoder: ImageEncoder, tap: Tap) -> Tensor:
        """Zeros, or the encoder's view of a zero tensor."""
        return encoder.null_features(tap)

    def side(self, pipeline: Any) -> int:
        """As the pipeline states it, or else its U-Net."""
        sample = getattr(pipeline, "default_sample_size", None)
        if sample is None:
            sample = pipeline.unet.config.sample_size
        return int(sample) * int(pipeline.vae_scale_factor)
