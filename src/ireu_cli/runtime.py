"""Randomness by name, and where the work runs."""

import contextlib
import hashlib
import platform
from importlib import metadata

import torch

_PACKAGES = ("torch", "transformers", "diffusers", "torchmetrics", "numpy", "safetensors", "pillow")
_OPTIONAL = ("onnx", "onnxruntime", "onnxruntime-gpu", "insightface")


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator that depends on the seed and the names only, so that one use never moves another."""
    text = "/".join(str(part) for part in (seed, *names))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))


def environment(device: str, batch_size: int) -> dict[str, str]:
    """What the run ran on, which decides the last digits of its results; recorded, and kept out of every digest."""
    packages = {name: metadata.version(name) for name in _PACKAGES}
    for name in _OPTIONAL:
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    ran_on = {"python": platform.python_version(), "platform": platform.platform(), "device": device}
    return {**ran_on, "batch_size": str(batch_size), **packages}
