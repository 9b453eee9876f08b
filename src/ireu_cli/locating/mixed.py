"""Find folders of targets that seem to hold two people: an edit would fit neither."""

from dataclasses import replace

import numpy as np
import torch

from ireu_cli.encodings.lens import Lens, flatten_tokens
from ireu_cli.faces.folder import choose_photos
from ireu_cli.locating.alike import FEWEST, halves
from ireu_cli.photos import Cast
from ireu_cli.session import Session

_STRANGERS, _PHOTOS = 60, 4
"""The number of retained people, and of photos of each, that targets are compared with."""


def say_mixed(session: Session, lens: Lens, cast: Cast) -> list[int]:
    """Warn about targets whose photos split into two halves that are no more similar to each other than to strangers.

    Returns:
        The numbers of those targets; empty without retained people to compare with.
    """
    theirs, others = cast.targets.photos, cast.used.photos
    candidates = replace(cast.targets, photos=theirs.some(theirs.sizes >= FEWEST))
    if not candidates.photos:
        return []
    rng = session.random("strangers")
    chosen = np.zeros(len(others), np.bool_)
    chosen[torch.randperm(len(others), generator=rng)[:_STRANGERS].numpy()] = True
    few = replace(cast.used, photos=others.some(chosen))
    strangers, vectors = lens.encode_averages(choose_photos(few, _PHOTOS, rng), "--retain", "retained photos")
    targets = lens.encode(candidates, "--targets", "target photos")
    apart = [vectors.get([photo.sha256 for photo in person]) for person in strangers.photos]
    numbers = []
    for person in targets.photos:
        found = halves(flatten_tokens(lens.features(person)), apart)
        if found is not None and found.are_two:
            numbers.append(person[0].person + 1)
            sizes = sorted((int(found.first.sum()), int((~found.first).sum())), reverse=True)
            session.talk.note(
                f"target {numbers[-1]}: the photos look like those of two people ({sizes[0]} and {sizes[1]} photos). "
                "Look at them; docs/photos.md says how often this is a false alarm"
            )
    return numbers
