"""ArcFace's network with squeeze-and-excitation (`ir_se50`), in torch, with gates behind it where there are some.

Names, order and sizes are those of facexlib (0.3, `recognition/arcface_arch.py`), so that its files can be loaded:
`input_layer`, units in `body`, `output_layer`, then each embedding is brought to length one. A unit whose number of
channels grows halves the picture, and so does the first one.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ireu_cli.encoders.onnx_gates import Gates, through_gates

MARKS = ("input_layer.0.weight", "body.0.res_layer.5.fc1.weight", "output_layer.3.weight", "output_layer.4.weight")
"""Tensors that such a network has, and no other that ireu reads."""
UNTOLD = "num_batches_tracked"
"""How the names of counters end that some files leave out."""
_UNIT = re.compile(r"body\.(\d{1,3})\.")


@dataclass(frozen=True)
class UnitSizes:
    """One unit: channels that enter and leave it, channels of its squeezed layer, and by how much it shrinks a side."""

    enter: int
    leave: int
    squeezed: int
    stride: int


@dataclass(frozen=True)
class IrSeSizes:
    """All sizes of a network: channels of the first layer, the units, the side behind them, and the embedding."""

    first: int
    units: tuple[UnitSizes, ...]
    last_side: int
    width: int

    @property
    def side(self) -> int:
        """The side of the picture in pixels."""
        return self.last_side * math.prod(unit.stride for unit in self.units)

    @property
    def convolutions(self) -> int:
        """How many convolutions it has, those of squeezed layers not counted."""
        return 1 + sum(3 if unit.enter != unit.leave else 2 for unit in self.units)


def sizes_of(shapes: Mapping[str, tuple[int, ...]]) -> IrSeSizes:
    """The sizes that the shapes of its tensors tell; whether all of them fit is still to be compared.

    Raises:
        ValueError, KeyError, IndexError: a tensor is missing, or has another number of dimensions.
    """
    numbers = {int(match[1]) for name in shapes if (match := _UNIT.match(name))}
    if not numbers or numbers != set(range(len(numbers))):
        raise ValueError("a unit is missing")
    units = []
    for number in range(len(numbers)):
        leave, enter = shapes[f"body.{number}.res_layer.1.weight"][:2]
        squeezed = shapes[f"body.{number}.res_layer.5.fc1.weight"][0]
        units.append(UnitSizes(enter, leave, squeezed, 2 if number == 0 or enter != leave else 1))
    width, values = shapes["output_layer.3.weight"]
    return IrSeSizes(shapes["input_layer.0.weight"][0], tuple(units), math.isqrt(values // units[-1].leave), width)


class _Squeeze(nn.Module):
    """Scale each channel by a number from 0 to 1, which two layers compute from the channels' means."""

    def __init__(self, unit: UnitSizes) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(unit.leave, unit.squeezed, 1, bias=False)
        self.fc2 = nn.Conv2d(unit.squeezed, unit.leave, 1, bias=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, channels, side, side) to the same."""
        means = nn.functional.adaptive_avg_pool2d(maps, 1)
        scaled: Tensor = maps * torch.sigmoid(self.fc2(torch.relu(self.fc1(means))))
        return scaled


class _Unit(nn.Module):
    """A residual unit."""

    def __init__(self, unit: UnitSizes) -> None:
        super().__init__()
        if unit.enter == unit.leave:
            self.shortcut_layer: nn.Module = nn.MaxPool2d(1, unit.stride)
        else:
            shortcut = nn.Conv2d(unit.enter, unit.leave, 1, unit.stride, bias=False)
            self.shortcut_layer = nn.Sequential(shortcut, nn.BatchNorm2d(unit.leave))
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(unit.enter),
            nn.Conv2d(unit.enter, unit.leave, 3, padding=1, bias=False),
            nn.PReLU(unit.leave),
            nn.Conv2d(unit.leave, unit.leave, 3, unit.stride, 1, bias=False),
            nn.BatchNorm2d(unit.leave),
            _Squeeze(unit),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, channels, side, side) to those of the next unit."""
        added: Tensor = self.res_layer(maps) + self.shortcut_layer(maps)
        return added


class IrSe(nn.Module):
    """The whole network: pixels (n, 3, side, side), BGR from -1 to 1, to embeddings at length one (n, width)."""

    def __init__(self, sizes: IrSeSizes) -> None:
        """Build it with random weights, or without values on the meta device."""
        super().__init__()
        self.sizes = sizes
        first, last = sizes.first, sizes.units[-1].leave
        self.input_layer = nn.Sequential(
            nn.Conv2d(3, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.PReLU(first)
        )
        self.body = nn.Sequential(*(_Unit(unit) for unit in sizes.units))
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Identity(),
            nn.Flatten(),
            nn.Linear(last * sizes.last_side**2, sizes.width),
            nn.BatchNorm1d(sizes.width),
        )
        self.gates: Gates | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        """Embed."""
        found = nn.functional.normalize(self.output_layer(self.body(self.input_layer(pixels))), dim=1)
        if self.gates is None:
            return found
        parts = (self.gates.weights, self.gates.thresholds, self.gates.changes)
        weights, thresholds, changes = (part.to(found.device, found.dtype) for part in parts)
        return through_gates(found, weights, thresholds, changes, self.gates.rise)[0]


def shapes_in(sizes: IrSeSizes) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a network of these sizes, in the order of its file."""
    with torch.device("meta"):
        model: Any = IrSe(sizes)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
