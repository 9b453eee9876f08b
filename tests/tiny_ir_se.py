"""Networks built like facexlib's `ir_se50`, tiny or of the true size, with random weights; how facexlib runs one."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from ireu_cli.encoders.ir_se.backbone import IrSe, IrSeSizes, UnitSizes

TINY = IrSeSizes(
    8, (UnitSizes(8, 8, 2, 2), UnitSizes(8, 16, 2, 2), UnitSizes(16, 16, 2, 1), UnitSizes(16, 24, 2, 2),
        UnitSizes(24, 32, 4, 2)), 7, 48,
)  # fmt: skip


def true_sizes() -> IrSeSizes:
    """Those of `ir_se50`: 3, 4, 14 and 3 units of 64, 128, 256 and 512 channels."""
    units, enter = [], 64
    for leave, count in ((64, 3), (128, 4), (256, 14), (512, 3)):
        for number in range(count):
            units.append(UnitSizes(enter, leave, leave // 16, 1 if number else 2))
            enter = leave
    return IrSeSizes(64, tuple(units), 7, 512)


def random_state(sizes: IrSeSizes, seed: int = 0) -> "OrderedDict[str, Tensor]":
    """Weights and statistics under facexlib's names and in its order."""
    torch.manual_seed(seed)
    state = IrSe(sizes).state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            tensor.normal_(std=0.1)
        elif name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith("num_batches_tracked"):
            tensor.fill_(7)
    return OrderedDict(state)


def write_ir_se(path: Path, sizes: IrSeSizes = TINY, *, old: bool = False, half: bool = False) -> Path:
    """Write one as `torch.save` does; `old` is torch's form before 1.6, `half` is float16."""
    state = random_state(sizes)
    if half:
        state = OrderedDict((name, each.half() if each.is_floating_point() else each) for name, each in state.items())
    torch.save(state, path, _use_new_zipfile_serialization=not old)
    return path


def as_facexlib(state: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
    """What facexlib's `Backbone` computes, from the tensors alone: pixels (n, 3, 112, 112) to (n, width)."""
    used = {name for name in state if name.endswith("num_batches_tracked")}

    def get(name: str) -> Tensor:
        used.add(name)
        return state[name]

    def normal(maps: Tensor, name: str) -> Tensor:
        mean, spread, weight, bias = (get(f"{name}.{p}") for p in ("running_mean", "running_var", "weight", "bias"))
        return functional.batch_norm(maps, mean, spread, weight, bias)

    maps = functional.conv2d(pixels, get("input_layer.0.weight"), padding=1)
    maps = functional.prelu(normal(maps, "input_layer.1"), get("input_layer.2.weight"))
    number = 0
    while f"body.{number}.res_layer.1.weight" in state:
        name = f"body.{number}"
        stride = 2 if number == 0 or f"{name}.shortcut_layer.0.weight" in state else 1
        if f"{name}.shortcut_layer.0.weight" in state:
            shortcut = functional.conv2d(maps, get(f"{name}.shortcut_layer.0.weight"), stride=stride)
            shortcut = normal(shortcut, f"{name}.shortcut_layer.1")
        else:
            shortcut = functional.max_pool2d(maps, 1, stride)
        inner = functional.conv2d(normal(maps, f"{name}.res_layer.0"), get(f"{name}.res_layer.1.weight"), padding=1)
        inner = functional.prelu(inner, get(f"{name}.res_layer.2.weight"))
        inner = functional.conv2d(inner, get(f"{name}.res_layer.3.weight"), stride=stride, padding=1)
        inner = normal(inner, f"{name}.res_layer.4")
        squeezed = functional.adaptive_avg_pool2d(inner, 1)
        squeezed = functional.relu(functional.conv2d(squeezed, get(f"{name}.res_layer.5.fc1.weight")))
        maps = inner * functional.conv2d(squeezed, get(f"{name}.res_layer.5.fc2.weight")).sigmoid() + shortcut
        number += 1
    flat = normal(maps, "output_layer.0").flatten(1)
    found = normal(functional.linear(flat, get("output_layer.3.weight"), get("output_layer.3.bias")), "output_layer.4")
    assert used == set(state)
    length: Tensor = torch.norm(found, 2, 1, True)
    return found / length
