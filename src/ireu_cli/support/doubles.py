"""Double precision on devices that may not have it."""

from torch import Tensor


def doubles(values: Tensor) -> Tensor:
    """Values as float64: on their device, or on the CPU if their device (Apple's) knows no float64."""
    return (values.cpu() if values.device.type == "mps" else values).double()
