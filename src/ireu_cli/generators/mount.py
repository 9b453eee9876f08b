"""What a mount is: how a kind of diffusers pipeline takes an IP-Adapter, and features in place of a photo."""

from typing import Any, Protocol

from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder
from ireu_cli.params import Tap


class Mount(Protocol):
    """How one kind of pipeline is driven. To add one, write a class like this in a file, and a row in `mounts`."""

    def takes(self, kind: type) -> bool:
        """Whether pipelines of a class are driven like this."""
        ...

    def mount(self, pipeline: Any, adapter: Any, file: str = "") -> None:
        """Load an adapter into a pipeline, without the image encoder that it reads.

        Args:
            pipeline: of diffusers, without an adapter.
            adapter: the folder that the adapter lies in, or its tensors in the two dictionaries of a file.
            file: its name in that folder.
        """
        ...

    def embeds(self, feature: Tensor, null: Tensor, guidance: float) -> dict[str, Any]:
        """The arguments by which a pipeline takes the features of photos, and the null features under guidance.

        Args:
            feature: (n, d) or (n, tokens, d), on the pipeline's device and in its dtype.
            null: the same, one for each photo.
            guidance: above 1, both go in.
        """
        ...

    def null(self, encoder: ImageEncoder, tap: Tap) -> Tensor:
        """The pipeline's null image under guidance: float32 (d,) or (tokens, d), on the CPU."""
        ...

    def side(self, pipeline: Any) -> int:
        """The default side of a pipeline's pictures, in pixels."""
        ...
