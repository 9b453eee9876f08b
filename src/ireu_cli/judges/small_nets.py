"""Load the small networks of a bundle from their folders, and check their settings and their weights."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import nn

from ireu_cli.encoders.files.settings import read_settings
from ireu_cli.encoders.files.tensor_file import open_file
from ireu_cli.errors import ModelError
from ireu_cli.support.bounded import printable

_MOST_TENSORS = 10_000
_FLOATS = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})


class NetSettings(BaseModel):
    """The settings in the config.json of a small network; later versions may have more."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


Settings = TypeVar("Settings", bound=NetSettings)
Net = TypeVar("Net", bound=nn.Module)


def read_net(
    folder: Path, kind: type[Settings], layers: Callable[[Settings], int], build: Callable[[Settings], Net]
) -> tuple[Net, Settings]:
    """Load a network for evaluation, without gradients and in single precision, with its settings.

    Args:
        folder: holds config.json and model.safetensors.
        kind: the schema of the settings.
        layers: the fewest tensors of such a network, compared with the file before anything is built.
        build: makes the network.

    Raises:
        ModelError: a file is missing or damaged, or the two do not fit together.
    """
    try:
        settings = kind.model_validate(read_settings(folder / "config.json"))
    except FileNotFoundError:
        raise ModelError(f"{folder} holds no config.json", "Use an undamaged copy") from None
    except ValidationError as error:
        place = ".".join(printable(part, 40) for part in error.errors()[0]["loc"])
        raise ModelError(f"The config.json of {folder} is wrong at {place or 'the top'}", "Correct it") from None
    file = open_file(folder / "model.safetensors")
    unfit = ModelError(
        f"The weights in {folder} do not have the shapes that its config.json states", "Use an undamaged copy"
    )
    if layers(settings) > min(len(file), _MOST_TENSORS):
        raise unfit
    with torch.device("meta"):
        net = build(settings)
    shapes = {name: tuple(tensor.shape) for name, tensor in net.state_dict().items()}
    if {name: file.shape(name) for name in file} != shapes:
        raise unfit
    if not all(file[name].dtype in _FLOATS for name in file if net.state_dict()[name].is_floating_point()):
        raise ModelError(f"The weights in {folder} are quantised", "Use an undamaged copy")
    own = net.state_dict()
    if any(file[name].dtype.is_complex for name in file):
        raise ModelError(f"The weights in {folder} hold complex numbers", "Use an undamaged copy")
    net.load_state_dict({name: file[name].to(own[name].dtype) for name in file}, assign=True)
    return net.eval().requires_grad_(False), settings
