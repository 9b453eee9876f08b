"""Drawn pictures in the run folder, one PNG each, so that a repeated or resumed run draws nothing twice."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from ireu_cli.manifest import digest_of
from ireu_cli.store.files import write_bytes
from ireu_cli.values import Json, RgbImage


class PictureCache:
    """Pictures by a key of everything that decides them; a damaged file is a miss, never an error."""

    def __init__(self, folder: Path) -> None:
        """Args: the folder that holds them; made on first use."""
        self._folder = folder

    @staticmethod
    def key(*decides: Json) -> str:
        """The name (hex) of the picture that these values decide."""
        return digest_of(list(decides))

    def get(self, key: str) -> RgbImage | None:
        """The picture, or None if it does not exist or cannot be read."""
        try:
            with Image.open(self._path(key), formats=("PNG",)) as file:
                return np.array(file.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            # A refusal of the system, which has a number, says nothing about the file: it may be undamaged.
            if not isinstance(error, OSError) or error.errno is None:
                self._path(key).unlink(missing_ok=True)
            return None

    def need(self, key: str) -> RgbImage:
        """The picture, which must exist."""
        found = self.get(key)
        if found is None:
            raise RuntimeError("a drawn picture is missing in the run folder")
        return found

    def put(self, key: str, picture: RgbImage) -> None:
        """Keep a picture."""
        write_bytes(self._path(key), png_bytes(picture), durable=False)

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.png"


def png_bytes(picture: RgbImage) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
