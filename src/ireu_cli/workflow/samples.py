"""`ireu samples`: photos of the people that come with `portrait-mini`, sorted for a whole job."""

import random
from pathlib import Path

from ireu_cli.errors import ArtifactError, ModelError
from ireu_cli.models.portrait import EMBEDDED, find_bundle
from ireu_cli.store.files import read_bytes, write_bytes, write_folder

TARGETS = 1
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
    """Write `faces/<person>/`, `others/<person>/` and `ireu.toml`; `seed` decides who is to be unlearned.

    Raises:
        ArtifactError: the folder is not empty and `force` is not given.
        ModelError: the installation has no sample people.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        ours = (out / "ireu.toml").is_file() and (out / "ireu.toml").read_bytes() == SETTINGS.encode()
        foreign = not out.is_dir() or {path.name for path in out.iterdir()} - {"faces", "others", "ireu.toml"}
        if foreign or not ours:
            raise ArtifactError(f"{out} exists and holds files that ireu did not write", "Choose another folder")
        if not force:
            raise ArtifactError(f"{out} exists and is not empty", "Choose another folder, or overwrite it with --force")
    people = _sample_people()
    targets = set(random.Random(seed).sample(people, TARGETS))

    def fill(folder: Path) -> None:
        for person in people:
            group = "faces" if person in targets else "others"
            for photo in sorted(person.glob("*.jpg")):
                data = read_bytes(photo, "a sample photo", "Install the package again")
                write_bytes(folder / group / person.name / photo.name, data, durable=False)
        write_bytes(folder / "ireu.toml", SETTINGS.encode())

    write_folder(out, fill)


def _sample_people() -> list[Path]:
    bundle = find_bundle(EMBEDDED)
    folder = None if bundle is None or bundle.people is None else bundle.folder / bundle.people
    people = [] if folder is None else sorted(path for path in folder.glob("*") if path.is_dir())
    if len(people) <= TARGETS:
        raise ModelError("The sample people are not part of this installation", "Install the package again")
    return people
