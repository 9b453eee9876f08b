"""Random generators by name, and the device of the work."""

import contextlib
import hashlib
import os
import platform
import warnings
from importlib import metadata

import torch

_PACKAGES = ("torch", "transformers", "diffusers", "torchmetrics", "numpy", "safetensors", "pillow")
_OPTIONAL = ("onnx", "onnxruntime", "onnxruntime-gpu", "insightface")


def generator(seed: int, *names: str | int) -> torch.Generator:
    """Return a CPU generator that depends only on the seed and the names, so that one use never affects another."""
    text = "/".join(str(part) for part in (seed, *names))
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big"))


def settle(device: str) -> None:
    """Make torch compute in the precision that records state, and on CUDA with repeatable algorithms if it has them.

    TF32 would keep only ten bits of a float32's mantissa. The CPU needs neither setting. If CUDA has no repeatable
    algorithm (for gradients of resampled pictures), last bits may differ from run to run.
    """
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if not device.startswith("cuda"):
        return
    # CUDA reads this when it starts; without it, this mode refuses matrix products.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Its gradients are summed in varying order.
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation.*")


def environment(device: str, batch_size: int, picture_batch: int) -> dict[str, str]:
    """The environment of the run, which decides the last digits of its results; it is recorded but in no digest.

    `picture_batch`, the number of pictures drawn in one call, is left out where pictures are drawn one by one.
    """
    packages = {name: metadata.version(name) for name in _PACKAGES}
    for name in _OPTIONAL:
        with contextlib.suppress(metadata.PackageNotFoundError):
            packages[name] = metadata.version(name)
    ran_on = {"python": platform.python_version(), "platform": platform.platform(), "device": device}
    if picture_batch > 1:
        ran_on["picture_batch"] = str(picture_batch)
    return {**ran_on, "batch_size": str(batch_size), "threads": str(torch.get_num_threads()), **packages}
