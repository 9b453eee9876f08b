"""A face-embedding network for drawn people: linear discriminants of coarse pixels, in ONNX."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from ireu_cli.faces.align import crop_face, template_points
from ireu_cli.params import ARCFACE_LANDMARKS
from tests.drawn.people import draw_photo, person_numbers, photo_numbers

_PEOPLE, _PHOTOS, _SEED = 120, 5, 7
_POOL = 8


def write_face_network(path: Path, width: int = 48) -> Path:
    """Learn from drawn people of a seed of their own; 112 px to `width` numbers."""
    matrix, mean = _discriminants(_pixels(), width)
    weights = {"matrix": matrix.T, "bias": -mean @ matrix}
    nodes = [
        helper.make_node(
            "AveragePool", ["face"], ["map"], kernel_shape=[_POOL] * 2, strides=[_POOL] * 2, name="Pool_0"
        ),
        helper.make_node("Flatten", ["map"], ["flat"], name="Flatten_1"),
        helper.make_node("Gemm", ["flat", "matrix", "bias"], ["embedding"], transB=1, name="Gemm_2"),
    ]
    graph = helper.make_graph(
        nodes,
        "drawn",
        [helper.make_tensor_value_info("face", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", width])],
        [numpy_helper.from_array(value.numpy().astype(np.float32), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@cache
def _pixels() -> Tensor:
    """Coarse pixels, float64 (people, photos, d); drawing them takes seconds."""
    rows = []
    for person in range(_PEOPLE):
        for photo in range(_PHOTOS):
            picture = draw_photo(person_numbers(_SEED, person), photo_numbers(_SEED, person, photo))
            rows.append(crop_face(picture, template_points(ARCFACE_LANDMARKS, picture), 112, 0.0)[0])
    scaled = torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).double() / 127.5 - 1
    return torch.nn.functional.avg_pool2d(scaled, _POOL).reshape(_PEOPLE, _PHOTOS, -1)


def _discriminants(rows: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Directions that tell people apart, in units of the deviation within people: (d, width), and the mean (d,)."""
    people, mean = rows.mean(1), rows.mean((0, 1))
    own = (rows - people[:, None]).flatten(0, 1)
    within = own.T @ own / (_PEOPLE * (_PHOTOS - 1))
    within = within + 0.1 * within.diagonal().mean() * torch.eye(len(within), dtype=torch.float64)
    whiten = torch.linalg.cholesky(torch.linalg.inv(within))
    _, _, directions = torch.linalg.svd((people - mean) @ whiten, full_matrices=False)
    return whiten @ directions[:width].T, mean
