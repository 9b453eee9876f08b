"""What torch is set to before anything is computed, and what is installed for it."""

import ast
import re
import sys
from pathlib import Path

import pytest
import tomli
import torch
from torch.backends import cuda

from ireu_cli.encoders.files.onnx_session import stays_on_cpu
from ireu_cli.support.runtime import settle

ROOT = Path(__file__).parent.parent
_OF_EXTRAS = {"insightface", "model_signing", "ray"}


@pytest.fixture(autouse=True)
def _as_before() -> object:
    backends = torch.backends
    kept = (backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32)
    yield
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = kept
    cuda.enable_mem_efficient_sdp(True)
    torch.use_deterministic_algorithms(False)


def test_float32_is_float32_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    settle("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.are_deterministic_algorithms_enabled()


def test_algorithms_on_cuda_are_repeatable_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    settle("cuda:1")
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
    assert not cuda.mem_efficient_sdp_enabled()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("device", "providers", "stays"),
    [
        ("cpu", ["CPUExecutionProvider"], False),
        ("cuda", ["CPUExecutionProvider"], True),
        ("cuda:1", ["CUDAExecutionProvider", "CPUExecutionProvider"], False),
        ("mps", ["CUDAExecutionProvider", "CPUExecutionProvider"], True),
    ],
)
def test_who_asks_for_a_device_that_onnxruntime_lacks_is_told(
    device: str, providers: list[str], stays: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    assert stays_on_cpu(device) is stays


def test_whatever_is_imported_is_installed_with_the_package() -> None:
    told = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    declared = {re.split(r"[<>=!~ \[]", line)[0].lower().replace("-", "_") for line in told}
    names = {"cv2": "opencv_python", "PIL": "pillow", "pydantic_core": "pydantic"}
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {module.partition(".")[0] for module in modules}
    needed = {names.get(name, name).lower() for name in found - set(sys.stdlib_module_names) - {"ireu_cli"}}
    assert needed - declared == _OF_EXTRAS
