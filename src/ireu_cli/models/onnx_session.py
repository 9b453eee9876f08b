"""ONNX networks opened in one way: quiet, repeatable, with torch's number of threads."""

from pathlib import Path
from typing import Any

import torch

from ireu_cli.errors import ModelError


def open_session(source: Path | bytes, device: str) -> Any:
    """An `onnxruntime.InferenceSession`.

    Args:
        source: the .onnx file, whose external weights lie beside it, or the bytes of one that holds its own.
        device: torch device; onnxruntime's CUDA provider where it names CUDA and the provider is there, else the CPU.

    Raises:
        ModelError: onnxruntime is not installed.
        Exception: whatever onnxruntime raises on a damaged network, which has no common base.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ModelError("onnxruntime is not installed", "Install it with `pip install onnxruntime`") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    place = torch.device(device)
    providers: list[Any] = ["CPUExecutionProvider"]
    if place.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": place.index or 0}))
    given = source if isinstance(source, bytes) else str(source)
    return onnxruntime.InferenceSession(given, options, providers=providers)
