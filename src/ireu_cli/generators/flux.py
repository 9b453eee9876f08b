"""The mount of FLUX, and of the pipelines that take IP-Adapters as it does."""

from typing import Any

from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.params import Tap


class Flux:
    """Null features go in under a name of their own, and guidance is that of two passes."""

    def takes(self, kind: type) -> bool:
        """FLUX, Chroma and their like."""
        from diffusers.loaders import FluxIPAdapterMixin

        return issubclass(kind, FluxIPAdapterMixin)

    def mount(self, pipeline: Any, adapter: Any, file: str = "") -> None:
        """Load an adapter."""
        pipeline.load_ip_adapter(
            adapter,
            subfolder="",
            weight_name=file,
            low_cpu_mem_usage=False,
            image_encoder_pretrained_model_name_or_path=None,
        )

    def embeds(self, feature: Tensor, null: Tensor, guidance: float) -> dict[str, Any]:
        """Both, always: without null features it encodes a black picture itself, whether it is used or not."""
        return {
            "ip_adapter_image_embeds": [feature[:, None]],
            "negative_ip_adapter_image_embeds": [null[:, None]],
            "negative_prompt": [""] * len(feature) if guidance > 1 else None,
            "true_cfg_scale": guidance,
        }

    def null(self, encoder: ImageEncoder, tap: Tap) -> Tensor:
        """The encoder's view of a black picture."""
        return encoder.encode(encoder.null_pixels()[1:], tap)[0].clone()

    def side(self, pipeline: Any) -> int:
        """As the pipeline states it."""
        return int(pipeline.default_sample_size) * int(pipeline.vae_scale_factor)
