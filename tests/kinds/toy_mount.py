"""A mount that drives SDXL without ever showing it a photo: null features go in twice."""

from typing import Any

from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.generators.mounts import register
from ireu_cli.generators.stable_diffusion import StableDiffusion
from ireu_cli.params import Tap


class Blind:
    """Stable Diffusion's own mount with the photo left out."""

    stock = StableDiffusion()

    def takes(self, kind: type) -> bool:
        """SDXL alone."""
        return kind.__name__ == "StableDiffusionXLPipeline"

    def mount(self, pipeline: Any, adapter: Any, file: str = "") -> None:
        """As Stable Diffusion does."""
        self.stock.mount(pipeline, adapter, file)

    def embeds(self, feature: Tensor, null: Tensor, guidance: float) -> dict[str, Any]:
        """Null features, twice."""
        del feature
        return self.stock.embeds(null, null, guidance)

    def null(self, encoder: ImageEncoder, tap: Tap) -> Tensor:
        """One more than is usual."""
        return self.stock.null(encoder, tap) + 1

    def side(self, pipeline: Any) -> int:
        """Larger pictures."""
        del pipeline
        return 32


register(Blind())
