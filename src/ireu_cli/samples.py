"""`ireu samples`: write photos of the people that come with `portrait-mini`, sorted for a whole job."""

import os
import random
from collections.abc import Container, Mapping
from pathlib import Path

from ireu_cli.encoders.files.portrait import EMBEDDED, find_bundle
from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.store.files import read_bytes, write_bytes, write_folder
from ireu_cli.store.locks import LOCK_INSIDE, beside
from ireu_cli.store.outputs import recover, refuse_changed, refuse_full_mount, refuse_place, state_of

TARGETS = 1
_GROUPS = ("faces", "others")
_SETTINGS_NAME = "ireu.toml"
SETTINGS = """\
# Written by `ireu samples`. The people are drawn by a generator: they are nobody.
[data]
targets = "faces"
retain = "others"
# Five photos are used; the other five are the ones that unlearning never sees.
max_photos = 5

[encoder]
# The earlier of the two taps: an edit that is made for it reaches both generators.
tap = "penultimate"

[locate]
interchange_pairs = 4

[unlearn]
# For --method ireu or global: what removes the most from this small encoder in a minute.
direction = "toward"
learning_rate = 3e-4
steps = 500
batch = 4
null_share = 0.4

[gated]
# The threshold is set on two hundred photos of others, which tell little: the one person may take more of them.
people = 1
max_false_alarm = 0.03

[pictures]
# Enough to look at, drawn in a minute. Without this section there are ten times as many.
target_photos = 4
people = 5
look_alikes = 2
photos = 1
seeds = 1

[verify]
# Grids of photos and pictures in the report, as with --with-pictures: these people are nobody.
pictures = true

[attacks]
# Attacks are judged on features and shown to the face-match gate. `drawn` is the number of photos of each target from
# which pictures are drawn under attack: 2 by default, some two hundred pictures each.
photos = 2
drawn = 0
"""


def write_samples(out: Path, seed: int, *, force: bool) -> None:
    """Write `faces/<person>/`, `others/<person>/` and `ireu.toml`; `seed` chooses the person to unlearn.

    Raises:
        ArtifactError: the folder holds other files than samples, or holds samples and `force` is not given.
        ModelError: the installation has no sample people.
    """
    out = Path(os.path.normpath(out))
    if not out.name:
        raise ArtifactError(f"The folder {out} does not end in a name", "Name a new folder")
    settings = out / _SETTINGS_NAME
    refuse_place(settings, out)
    people = _sample_people()
    targets = set(random.Random(seed).sample(people, TARGETS))

    def fill(folder: Path) -> None:
        for person in people:
            group = "faces" if person in targets else "others"
            for photo in sorted(person.glob("*.jpg")):
                data = read_bytes(photo, "a sample photo", "Install the package again")
                write_bytes(folder / group / person.name / photo.name, data, durable=False)
        write_bytes(folder / _SETTINGS_NAME, SETTINGS.encode())

    with beside(out, lambda _text: None):
        recover(settings, out)
        _refuse_others(out, people, force)
        seen = state_of(settings, out)
        # These people do not exist, and the settings are not private.
        write_folder(out, fill, shared=True, check=lambda: refuse_changed(settings, out, seen))


def _refuse_others(out: Path, people: list[Path], force: bool) -> None:
    """Refuse a folder that holds anything except samples, byte for byte."""
    entries = [path for path in out.rglob("*") if path != out / LOCK_INSIDE]
    if not entries:
        return
    photos = {Path(person.name, photo.name): photo for person in people for photo in person.glob("*.jpg")}
    folders = {Path(group, *name) for group in _GROUPS for name in ((), *((person.name,) for person in people))}
    foreign = [path for path in entries if not _is_sample(path, path.relative_to(out), photos, folders)]
    if foreign:
        raise ArtifactError(
            f"{out} exists and holds {len(foreign)} files that ireu did not write or that have changed since",
            "Choose another folder",
        )
    if not force:
        raise ArtifactError(f"{out} exists and is not empty", "Choose another folder, or overwrite it with --force")
    refuse_full_mount(out)


def _is_sample(path: Path, name: Path, photos: Mapping[Path, Path], folders: Container[Path]) -> bool:
    if path.is_symlink():
        return False
    if path.is_dir():
        return name in folders
    if name == Path(_SETTINGS_NAME):
        return path.read_bytes() == SETTINGS.encode()
    own = photos.get(Path(*name.parts[1:])) if name.parts[0] in _GROUPS else None
    return own is not None and path.read_bytes() == own.read_bytes()


def _sample_people() -> list[Path]:
    bundle = find_bundle(EMBEDDED)
    folder = None if bundle is None or bundle.people is None else bundle.folder / bundle.people
    people = [] if folder is None else sorted(path for path in folder.glob("*") if path.is_dir())
    if len(people) <= TARGETS:
        raise ModelError("The sample people are not part of this installation", "Install the package again")
    return people
