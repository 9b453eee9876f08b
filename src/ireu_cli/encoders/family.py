"""What can be asked of a loaded image encoder of any family."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from torch import Tensor

from ireu_cli.encoders.reach import Reach
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.values import RgbImage, WeightDelta


class ImageEncoder(ABC):
    """An image encoder: a vision transformer of CLIP or SigLIP, a face-embedding network, or one of another family.

    Attributes:
        fingerprint: digest (hex) of its weights, independent of the files that hold them.
        gives_gradients: whether its weights can be trained, and its pixels searched, by gradient.
    """

    fingerprint: str
    gives_gradients: bool

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Number of its blocks, or of its layers with weights."""

    @property
    @abstractmethod
    def dtype(self) -> str:
        """The dtype it runs in, such as float32."""

    @property
    @abstractmethod
    def whole_tap(self) -> Tap | None:
        """The tap that describes the whole picture in one vector; None where none does."""

    @property
    @abstractmethod
    def architecture(self) -> str:
        """In short which one it is, from its sizes."""

    @property
    @abstractmethod
    def settings(self) -> str | None:
        """Digest (hex) of how it computes with its weights, where no weight tells; None where nothing is left open."""

    @property
    @abstractmethod
    def preprocessing(self) -> str:
        """Digest (16 hex) of how pixels are prepared; equal digests give equal pixels."""

    @abstractmethod
    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """Prepare pictures as the encoder takes them: float32 (n, 3, side, side)."""

    @abstractmethod
    def null_pixels(self) -> Tensor:
        """The two null images, a zero tensor and a black picture: float32 (2, 3, side, side)."""

    @abstractmethod
    def encode(self, pixels: Tensor, tap: Tap) -> Tensor:
        """Prepared pixels (n, 3, side, side) to a tap: float32 (n, …, d), on the CPU."""

    @abstractmethod
    def edited(self, delta: WeightDelta, dtype: str) -> "ImageEncoder":
        """An edited copy, which runs in a dtype; this one keeps every bit.

        Raises:
            ArtifactError: the delta is for another encoder.
        """

    @abstractmethod
    def reach(self, names: Iterable[str], *, class_token_only: bool) -> Reach:
        """Which taps change when the named tensors change; see `reach_of`."""

    @abstractmethod
    def groups(self, params: EncoderParams) -> tuple[str, ...]:
        """The groups of generators that its sizes and its source admit."""

    @abstractmethod
    def stays_on_cpu(self, device: str) -> bool:
        """Whether it runs on the CPU although another device is asked for."""
