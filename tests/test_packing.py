"""Tensors packed in pieces have the bytes that safetensors gives them, and signals are heard meanwhile."""

import threading
import time

import pytest
import safetensors.torch
import torch

from ireu_cli.store.packing import KINDS, packed

SHAPES = ((), (0,), (3,), (2, 5), (1, 1, 7))


def some(dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    values = torch.arange(torch.Size(shape).numel()).reshape(shape)
    return values.to(dtype)


@pytest.mark.parametrize("metadata", [{"format": "pt"}, {"state": '{"step": 3, "ü": "\\u001b\\" \\n"}'}])
def test_the_bytes_are_those_of_safetensors(metadata: dict[str, str]) -> None:
    tensors = {f'{dtype} {shape} ü"\\': some(dtype, shape) for dtype in KINDS for shape in SHAPES}
    assert packed(tensors, metadata) == safetensors.torch.save(tensors, metadata=metadata)
    for name in tensors:
        one = {name: tensors[name]}
        assert packed(one, metadata) == safetensors.torch.save(one, metadata=metadata)
    turned = {"a": torch.arange(12.0).reshape(3, 4).T, "b": torch.nn.Parameter(torch.ones(2))}
    plain = {name: tensor.detach().contiguous() for name, tensor in turned.items()}
    assert packed(turned, metadata) == safetensors.torch.save(plain, metadata=metadata)


def test_other_threads_run_while_large_tensors_are_packed() -> None:
    large = {"a": torch.zeros(200_000_000, dtype=torch.uint8)}
    seen = [time.monotonic()]
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.002):
            seen.append(time.monotonic())

    watcher = threading.Thread(target=tick)
    watcher.start()
    started = time.monotonic()
    data = packed(large, {"format": "pt"})
    took = time.monotonic() - started
    over.set()
    watcher.join()
    assert len(data) > 200_000_000
    during = [moment for moment in seen if moment > started]
    assert len(during) >= min(10, took / 0.1)
