"""Open every ONNX network the same way: quiet, repeatable, with torch's number of threads."""

from pathlib import Path
from typing import Any

import torch

from ireu_cli.encoders.files.networks import external_files
from ireu_cli.errors import ModelError


def open_session(source: Path | bytes, device: str) -> Any:
    """Open an `onnxruntime.InferenceSession`.

    Args:
        source: the .onnx file, with external weights beside it, or the bytes of a file with its weights inside.
        device: torch device; onnxruntime's CUDA provider if it names CUDA and the provider is installed, else the CPU.

    Raises:
        ModelError: onnxruntime is not installed, or weights of the file lie outside its folder.
        Exception: any error of onnxruntime on a damaged network; these have no common base.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ModelError("onnxruntime is not installed", "Install it with `pip install onnxruntime`") from None
    if isinstance(source, Path):
        external_files(source)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    place = torch.device(device)
    providers: list[Any] = ["CPUExecutionProvider"]
    if place.type == "cuda" and not stays_on_cpu(device):
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": place.index or 0}))
    given = source if isinstance(source, bytes) else str(source)
    return onnxruntime.InferenceSession(given, options, providers=providers)


def stays_on_cpu(device: str) -> bool:
    """Whether ONNX networks run on the CPU although you named another device: onnxruntime lacks its provider."""
    import onnxruntime

    kind = device.partition(":")[0]
    return kind != "cpu" and (kind != "cuda" or "CUDAExecutionProvider" not in onnxruntime.get_available_providers())
