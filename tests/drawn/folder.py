"""A folder with everything for a whole job on drawn people."""

import shutil
from pathlib import Path

from ireu_cli.store.picture_cache import png_bytes
from tests.drawn.people import draw_photo, person_numbers, photo_numbers

TARGETS, OTHERS = 1, 60
TARGET_PHOTOS, OTHER_PHOTOS = 10, 8

SETTINGS = """\
[encoder]
source = "encoder"
tap = "pooled"

[data]
targets = "faces"
retain = "others"
# Five photos are used; the other five are the ones that unlearning never sees.
max_photos = 5

[attacks]
people = 1
photos = 2
pgd_steps = 3
relearn_steps = 10

[unlearn]
method = "ireu"
# Chosen for this small encoder; the published settings are for encoders a hundred times its size.
learning_rate = 5e-5
batch = 4
null_share = 0.3
# Toward the swapped faces: away from them, as published, draws a caricature that is still recognised.
direction = "toward"
"""


def write_drawn(out: Path, seed: int) -> None:
    """Write `faces/`, `others/`, `encoder/` and `ireu.toml`; the same seed gives the same bytes."""
    for number in range(TARGETS + OTHERS):
        group, count = ("faces", TARGET_PHOTOS) if number < TARGETS else ("others", OTHER_PHOTOS)
        folder = out / group / f"person-{number:02d}"
        folder.mkdir(parents=True)
        for photo in range(count):
            picture = draw_photo(person_numbers(seed, number), photo_numbers(seed, number, photo))
            (folder / f"{photo:02d}.png").write_bytes(png_bytes(picture))
    shutil.copytree(Path(__file__).parent / "encoder", out / "encoder")
    (out / "ireu.toml").write_text(SETTINGS)
