"""Two layouts: a file in which names have a prefix, and a folder in which slashes stand for the dots in them."""

from ireu_cli.layouts.layout import CLIP, Layout
from ireu_cli.layouts.table import register


class Slashed(Layout):
    """Names such as `toy/visual_projection/weight`."""

    def own_name(self, there: str) -> str | None:
        """Dots again."""
        own = super().own_name(there)
        return None if own is None else own.replace("/", ".")

    def name_there(self, own: str) -> str:
        """Slashes."""
        return super().name_there(own.replace(".", "/"))


TOY = Layout(
    "toy", frozenset({CLIP}), in_folder=False, library="toy-library", prefix="toy.", file="toy-encoder.safetensors"
)
SLASHED = Slashed(
    "toy-folder", frozenset({CLIP}), in_folder=True, library="toy-library", prefix="toy/", file="slashed.safetensors"
)
register(TOY)
register(SLASHED)
