"""`ireu samples`: a folder with everything for a whole job, drawn and trained for the purpose."""

import shutil
from importlib import resources
from pathlib import Path

from ireu_cli.errors import ArtifactError
from ireu_cli.samples.draw import draw_photo, person_numbers, photo_numbers
from ireu_cli.store.files import write_bytes, write_folder
from ireu_cli.store.pictures import png_bytes

TARGETS, OTHERS = 1, 60
TARGET_PHOTOS, OTHER_PHOTOS = 10, 8

_SETTINGS = """\
# Written by `ireu samples`: drawn people and a small encoder trained on drawn people.
[encoder]
source = "encoder"
tap = "pooled"

[data]
targets = "faces"
retain = "others"
# Five photos are used; the other five are the ones that unlearning never sees.
max_photos = 5

[unlearn]
# Chosen for this small encoder; the published settings are for encoders a hundred times its size.
learning_rate = 5e-5
batch = 4
null_share = 0.3
# Toward the swapped faces: away from them, as published, draws a caricature that is still recognised.
direction = "toward"
"""


def write_samples(out: Path, seed: int, *, force: bool) -> None:
    """Write `faces/`, `others/`, `encoder/` and `ireu.toml`; the same seed gives the same bytes.

    Raises:
        ArtifactError: the folder is not empty and `force` is not given.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        ours = (out / "ireu.toml").is_file() and (out / "ireu.toml").read_bytes() == _SETTINGS.encode()
        foreign = not out.is_dir() or {path.name for path in out.iterdir()} - {
            "faces",
            "others",
            "encoder",
            "ireu.toml",
        }
        if foreign or not ours:
            raise ArtifactError(f"{out} exists and holds files that ireu did not write", "Choose another folder")
        if not force:
            raise ArtifactError(f"{out} exists and is not empty", "Choose another folder, or overwrite it with --force")

    def fill(folder: Path) -> None:
        for number in range(TARGETS + OTHERS):
            group, count = ("faces", TARGET_PHOTOS) if number < TARGETS else ("others", OTHER_PHOTOS)
            for photo in range(count):
                picture = draw_photo(person_numbers(seed, number), photo_numbers(seed, number, photo))
                write_bytes(
                    folder / group / f"person-{number:02d}" / f"{photo:02d}.png", png_bytes(picture), durable=False
                )
        with resources.as_file(resources.files("ireu_cli.samples") / "encoder") as encoder:
            shutil.copytree(encoder, folder / "encoder")
        write_bytes(folder / "ireu.toml", _SETTINGS.encode())

    write_folder(out, fill)
