"""The family of facexlib's `ir_se50`: how its file is told from others, checked and loaded, and what is said of it."""

from pathlib import Path

import torch
from torch import Tensor

from ireu_cli.encoders.card import ANY_NUMBER, Card
from ireu_cli.encoders.family import Family
from ireu_cli.encoders.files.fingerprint import fingerprint_from, fingerprint_of, prints_by
from ireu_cli.encoders.files.tensor_file import ARCHIVES, PLAIN, TensorFile, dtypes_of, open_file
from ireu_cli.encoders.groups import groups_of_ir_se
from ireu_cli.encoders.ir_se.backbone import MARKS, UNTOLD, IrSeSizes, shapes_in, sizes_of
from ireu_cli.encoders.ir_se.encoder import IR_SE_TAPS, IrSeEncoder, filled, weights_in
from ireu_cli.errors import ConfigError, ModelError
from ireu_cli.faces.decode import BadPhotoError
from ireu_cli.layouts.layout import FACEXLIB
from ireu_cli.layouts.table import plain_layout
from ireu_cli.params import EncoderParams
from ireu_cli.support.bounded import printable
from ireu_cli.values import DTYPES

_SIDE = 112
_REMEDY = "Name facexlib's recognition_arcface_ir_se50.pth, or one with the same tensors"


def _place(source: str) -> Path | None:
    path = Path(source)
    if path.suffix.lower() not in ARCHIVES or not path.is_file():
        return None
    try:
        file = open_file(path)
    except ModelError:
        # Whoever asks for the file next says what is wrong with it.
        return None
    return path if all(mark in file for mark in MARKS) else None


def _opened(source: str) -> tuple[TensorFile, IrSeSizes]:
    """A file and the sizes of its network, all of whose tensors are there, and nothing else.

    Raises:
        ModelError: they are not, or the network takes faces of another size.
    """
    file = open_file(Path(source))
    try:
        found = {name: file.shape(name) for name in file}
        sizes = sizes_of(found)
        wanted = shapes_in(sizes)
    except (ValueError, KeyError, IndexError, ZeroDivisionError, RuntimeError):
        raise ModelError(f"{source} does not hold a whole network of facexlib", _REMEDY) from None
    missing = [name for name, shape in wanted.items() if found.get(name) != shape and not name.endswith(UNTOLD)]
    if odd := missing or sorted(set(found) - set(wanted)):
        raise ModelError(
            f"{source} does not hold a whole network of facexlib: {printable(odd[0])} is missing, unknown or of "
            "another shape",
            _REMEDY,
        )
    if wrong := [name for name in found if not name.endswith(UNTOLD) and file[name].dtype not in PLAIN]:
        raise ModelError(f"{source} holds {wrong[0]} in {file[wrong[0]].dtype}", "Name plain weights of 16 or 32 bits")
    if sizes.side != _SIDE:
        raise ModelError(f"The network {source} takes faces of {sizes.side} px, and not of {_SIDE}", _REMEDY)
    return file, sizes


def _load(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> IrSeEncoder:
    file, sizes = _opened(params.source)
    prints = prints_by(weights_in(file), file.__getitem__)
    if not all(one.is_finite for one in prints.values()):
        raise ModelError(
            f"The encoder {params.source} holds values that are not finite numbers", "Use an undamaged copy"
        )
    try:
        place = torch.device(device)
        state = {name: _value(file, name).to(place) for name in shapes_in(sizes)}
    except RuntimeError:
        raise ModelError(f"The device {device} does not exist", "Correct --device") from None
    model = filled(sizes, state, DTYPES[params.dtype])
    encoder = IrSeEncoder(model, file, fingerprint_from(prints), landmarks)
    try:
        embedded = encoder.encode(encoder.null_pixels(), "normed_embedding")
    except BadPhotoError:
        raise ConfigError("The landmarks of the photos are all at one point", "Correct data.landmarks") from None
    if not bool(torch.isfinite(embedded).all()):
        raise ModelError(f"The network {params.source} gives values that are not finite numbers", _REMEDY)
    return encoder


def _value(file: TensorFile, name: str) -> Tensor:
    """A tensor of the file, in single precision; a counter that the file leaves out is zero."""
    if name not in file:
        return torch.zeros((), dtype=torch.int64)
    found = file[name]
    return found.float() if found.is_floating_point() else found


def _card(source: str) -> Card:
    file, sizes = _opened(source)
    weights = weights_in(file)
    return Card(
        kind=IR_SE_NETWORKS.title,
        layout=plain_layout(FACEXLIB, folder=False).name,
        architecture=f"{sizes.convolutions} convolutions, 3x{sizes.side}x{sizes.side} to {sizes.width}",
        dtype=dtypes_of(weights.values())[0],
        parameters=sum(weight.numel() for weight in weights.values()),
        fingerprint=fingerprint_of(weights),
        groups=groups_of_ir_se(sizes),
        taps=IR_SE_TAPS,
        sites={"output": IR_SE_TAPS, "weights": IR_SE_TAPS},
        holds=f"{ANY_NUMBER}, which leaves as ONNX",
    )


IR_SE_NETWORKS = Family(
    title="face-embedding network of facexlib",
    taps=IR_SE_TAPS,
    sources="a .pth file of facexlib",
    place=_place,
    load=_load,
    card=_card,
    library="facexlib",
    held_as=FACEXLIB,
)
