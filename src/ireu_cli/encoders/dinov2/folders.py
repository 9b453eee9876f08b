"""The family of DINOv2's vision transformers: how one is loaded, and what is said of it."""

from typing import Any

import numpy as np
import torch

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.clip import finite_fingerprint
from ireu_cli.encoders.dinov2.encoder import Dinov2Encoder, filled
from ireu_cli.encoders.dinov2.reading import CONFIG, folder_of, open_folder
from ireu_cli.encoders.family import Family
from ireu_cli.encoders.files.fingerprint import fingerprint_from, prints_by
from ireu_cli.encoders.groups import groups_of_dinov2
from ireu_cli.encoders.preprocessing import PROCESSOR, processor_in
from ireu_cli.encoders.reach import DINOV2, sites_of
from ireu_cli.errors import ModelError
from ireu_cli.layouts.table import plain_layout
from ireu_cli.params import EncoderParams
from ireu_cli.values import DTYPES

_SIZE, _CROP = 256, 224
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""The published preprocessing: shrink, cut the middle out, scale as for ImageNet."""


def _load(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> Dinov2Encoder:
    del landmarks
    whole, sizes = open_folder(params.source)
    fingerprint = finite_fingerprint(params.source, prints_by(list(whole), whole.__getitem__))
    try:
        place = torch.device(device)
        state = {name: whole[name].float().to(place) for name in whole}
    except (RuntimeError, AssertionError):
        raise ModelError(f"The device {device} cannot be used", "Correct --device") from None
    usual = {
        "size": {"shortest_edge": _SIZE},
        "crop_size": {"height": _CROP, "width": _CROP},
        "image_mean": list(_MEAN),
        "image_std": list(_DEVIATION),
        "resample": 3,
    }
    processor = processor_in(whole.source, "Bit", usual, _CROP)
    paths = [whole.source / name for name in (CONFIG, PROCESSOR)]
    beside = {path.name: path.read_bytes() for path in paths if path.is_file()}
    model = filled(sizes, state, DTYPES[params.dtype])
    side = _side_of(processor, sizes.patch, params.source)
    return Dinov2Encoder(model, processor, fingerprint, whole, beside, side)


def _side_of(processor: Any, patch: int, source: str) -> int:
    """The side of the squares that a processor makes, whatever a picture's shape, in whole patches.

    Raises:
        ModelError: it makes others.
    """
    pictures = [np.zeros((300, 300, 3), np.uint8), np.zeros((100, 301, 3), np.uint8)]
    try:
        found = processor(images=pictures, return_tensors="pt")["pixel_values"]
        _, _, height, side = found.shape
        is_usable = bool(torch.isfinite(found).all()) and len(processor.image_mean) == len(processor.image_std) == 3
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - settings that do not go together end in errors of every kind
        height, side, is_usable = 0, 1, False
    if height != side or side % patch or not is_usable:
        raise ModelError(
            f"The {PROCESSOR} beside {source} does not make squares of whole patches",
            "Put the right one beside it, or remove it",
        )
    return int(side)


def _card(source: str) -> Card:
    whole, sizes = open_folder(source)
    return Card(
        kind=DINOV2.kind,
        layout=plain_layout(DINOV2.family, folder=True).name,
        architecture=f"{sizes.width} wide, {sizes.blocks} blocks, patches of {sizes.patch}, "
        f"{'gated hidden layers' if sizes.is_gated else 'gelu'}",
        dtype=" and ".join(whole.dtypes(whole)),
        parameters=sum(whole[name].numel() for name in whole),
        fingerprint=fingerprint_from(prints_by(list(whole), whole.__getitem__)),
        groups=groups_of_dinov2(sizes),
        taps=DINOV2.taps,
        sites=sites_of(sizes.blocks, DINOV2),
        holds="nobody yet: use ireu or global",
    )


DINOV2_TRANSFORMERS = Family(
    title="vision transformer of DINOv2",
    taps=DINOV2.taps,
    sources="a folder of DINOv2",
    place=folder_of,
    load=_load,
    card=_card,
    library="transformers",
    held_as=DINOV2.family,
    has_depths=True,
)
