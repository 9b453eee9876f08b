"""Drawn pictures for people to look at: grids for the report, and all pictures with an index."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ireu_cli.drawing.judged_pictures import Drawn
from ireu_cli.drawing.shots import Shot
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.faces.read import PhotoReader
from ireu_cli.report import Role
from ireu_cli.store.files import write_bytes
from ireu_cli.store.picture_cache import png_bytes
from ireu_cli.values import STATES, Photo, RgbImage

_COLUMNS = 8
_GAP = 4


@dataclass(frozen=True)
class Grid:
    """One grid as a PNG file; from top to bottom: a photo, the picture before, the picture after."""

    name: str
    generator: str
    role: str
    png: bytes


def make_grids(drawn: Drawn, reader: PhotoReader) -> list[Grid]:
    """One grid for each role, from the base prompt, with as many different people as fit."""
    roles = dict.fromkeys(shot.role for shot in drawn.shots)
    return [make_grid(drawn, role, reader) for role in roles if columns(drawn.shots, role)]


def make_grid(drawn: Drawn, role: Role, reader: PhotoReader) -> Grid:
    """The grid of a role; the pictures in `columns` must have been drawn."""
    picture = _grid(drawn, columns(drawn.shots, role), reader)
    return Grid(f"{drawn.generator}-{role}.png", drawn.generator, role, png_bytes(picture))


def write_images(folder: Path, drawn: Sequence[Drawn]) -> list[Path]:
    """Write every picture and `index.csv` into `folder`; returns the files."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("generator", "role", "person", "photo", "prompt", "seed", "state", "file"))
    files = []
    for plan in drawn:
        for number, (shot, prompt) in enumerate(zip(plan.shots, plan.prompts, strict=True)):
            for state, word in enumerate(STATES):
                file = folder / f"{plan.generator}-{number + 1:05d}-{word}.png"
                write_bytes(file, png_bytes(plan.picture(number, state)), durable=False)
                person, photo = shot.photo.person + 1, shot.photo.index + 1
                rows.writerow((plan.generator, shot.role, person, photo, prompt, shot.seed, word, file.name))
                files.append(file)
    write_bytes(folder / "index.csv", table.getvalue().encode())
    return [*files, folder / "index.csv"]


def columns(shots: Sequence[Shot], role: Role) -> list[int]:
    """Numbers of the shots that a role's grid shows: one for each photo, taking people in turn."""
    people: dict[int, dict[Photo, int]] = {}
    for number, shot in enumerate(shots):
        if shot.role == role and shot.edit is None:
            people.setdefault(shot.photo.person, {}).setdefault(shot.photo, number)
    queues = [list(photos.values()) for photos in people.values()]
    deepest = max((len(queue) for queue in queues), default=0)
    return [queue[depth] for depth in range(deepest) for queue in queues if depth < len(queue)][:_COLUMNS]


def _grid(drawn: Drawn, numbers: Sequence[int], reader: PhotoReader) -> RgbImage:
    side = drawn.picture(numbers[0], 0).shape[0]
    step = side + _GAP
    canvas = np.full((3 * step - _GAP, len(numbers) * step - _GAP, 3), 255, np.uint8)
    for column, number in enumerate(numbers):
        cells = [_photo(reader, drawn.shots[number].photo, side), drawn.picture(number, 0), drawn.picture(number, 1)]
        for row, cell in enumerate(cells):
            canvas[row * step : row * step + side, column * step : column * step + side] = cell
    return canvas


def _photo(reader: PhotoReader, photo: Photo, side: int) -> RgbImage:
    """The photo as the encoder sees it, resized to the size of the pictures; grey if it no longer exists."""
    try:
        image = Image.fromarray(reader.image(photo))
    except (BadPhotoError, OSError):
        return np.full((side, side, 3), 128, np.uint8)
    image.thumbnail((side, side))
    cell = Image.new("RGB", (side, side), (255, 255, 255))
    cell.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return np.asarray(cell)
