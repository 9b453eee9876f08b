"""Alignment, swapping, detection."""

import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ireu_cli.errors import ModelError
from ireu_cli.faces.align import crop_face, face_matrix, similarity, template_points
from ireu_cli.faces.decode import BadPhotoError, decode
from ireu_cli.faces.insight import FaceFinder, Inswapper
from ireu_cli.faces.read import PhotoReader
from ireu_cli.faces.swap import Face, blend, face_region
from ireu_cli.params import ARCFACE_LANDMARKS, DataParams
from ireu_cli.values import Photo
from tests.drawn.people import draw_photo, person_numbers, photo_numbers


def drawn(person: int, photo: int) -> Face:
    image = draw_photo(person_numbers(0, person), photo_numbers(0, person, photo))
    return Face(image, template_points(ARCFACE_LANDMARKS, image))


def test_similarity_recovers_rotation_scale_and_shift() -> None:
    points = np.random.default_rng(0).normal(size=(5, 2)) * 30
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    matrix = similarity(points, 1.7 * points @ turn.T + [5, -3])
    np.testing.assert_allclose(matrix, np.hstack([1.7 * turn, [[5], [-3]]]), atol=1e-9)


def test_similarity_never_mirrors() -> None:
    points = np.random.default_rng(1).normal(size=(5, 2))
    matrix = similarity(points, points * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0


def test_crop_puts_the_landmarks_on_the_template() -> None:
    face = drawn(0, 0)
    moved = face.points @ np.array([[0.9, 0.1], [-0.1, 0.9]]).T + [6, 3]
    crop, points = crop_face(face.image, moved, 100, 0.5)
    expected = (np.asarray(ARCFACE_LANDMARKS).reshape(5, 2) + 0.25) / 1.5 * 100
    assert crop.shape == (100, 100, 3)
    np.testing.assert_allclose(points, expected, atol=1.0)


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_a_crop_of_a_large_photo_is_smooth(factor: int) -> None:
    """What lies between the pixels of the crop is averaged, not passed over."""
    side = 112 * factor
    noise = np.random.default_rng(0).integers(0, 256, (side + 1, side, 3), np.uint8)
    crop, _ = crop_face(noise, template_points(ARCFACE_LANDMARKS, noise[:side]), 112, 0.0)
    averaged = cv2.resize(noise[:side], (112, 112), interpolation=cv2.INTER_AREA)
    assert crop.std() <= averaged.std() + 1


@pytest.mark.parametrize("side", [90, 112, 167, 169, 300, 1000, 2345])
@pytest.mark.parametrize("margin", [0.0, 0.6])
def test_a_crop_lies_where_its_matrix_says(side: int, margin: float) -> None:
    """On a picture that is a smooth function of the place, at every size, up to the border's width."""

    def shown(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.stack([127 + 90 * np.sin(6 * x + 3 * y), 127 + 90 * np.cos(5 * y), 30 + 180 * x], -1)

    y, x = np.mgrid[0:side, 0:side]
    image = shown(x / side, y / side).round().astype(np.uint8)
    turn = np.array([[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]])
    points = (template_points(ARCFACE_LANDMARKS, image) - side / 2) @ turn.T * 0.45 + side / 2
    crop, _ = crop_face(image, points, 56, margin)
    back = np.linalg.inv(np.vstack([face_matrix(points, 56, margin), [0, 0, 1]]))
    v, u = np.mgrid[0:56, 0:56]
    at = back[:2] @ np.stack([u.ravel(), v.ravel(), np.ones(56 * 56)]) / side
    np.testing.assert_allclose(crop, shown(*at).reshape(56, 56, 3), atol=2.5)


def test_crops_of_small_photos_are_as_they_were() -> None:
    face = drawn(0, 0)
    matrix = face_matrix(face.points, 112, 0.0)
    plain = cv2.warpAffine(face.image, matrix, (112, 112), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    assert np.array_equal(crop_face(face.image, face.points, 112, 0.0)[0], plain)


def test_a_face_as_large_as_a_speck_and_one_beyond_all_bounds_are_cropped() -> None:
    image = drawn(0, 0).image
    for scale in (1e-3, 1e4):
        crop, _ = crop_face(image, template_points(ARCFACE_LANDMARKS, image) * scale, 64, 0.0)
        assert crop.shape == (64, 64, 3)


def test_a_large_face_is_swapped_into_a_small_photo_smoothly() -> None:
    context, identity = drawn(0, 0), drawn(3, 1)
    large = cv2.resize(identity.image, None, fx=8, fy=8, interpolation=cv2.INTER_NEAREST).astype(int)
    noise = np.random.default_rng(0).integers(-120, 121, large.shape)
    rough = np.clip(large + noise, 0, 255).astype(np.uint8)
    smooth = cv2.resize(rough, identity.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    swapped = blend(context, Face(rough, (identity.points + 0.5) * 8 - 0.5))
    wanted = blend(context, Face(smooth, identity.points))
    assert np.abs(swapped.astype(int) - wanted).mean() < 2


def test_blend_changes_the_face_and_keeps_the_rest() -> None:
    context, identity = drawn(0, 0), drawn(3, 1)
    before = context.image.copy()
    swapped = blend(context, identity)
    inside = face_region(context) > 0
    changed = (swapped != before).any(2)
    assert changed[inside].mean() > 0.25
    around = cv2.dilate(inside.astype(np.uint8), np.ones((9, 9))) > 0
    assert not changed[~around].any()
    assert np.array_equal(context.image, before)
    assert np.array_equal(swapped, blend(context, identity))


def test_blend_with_the_same_photo_changes_next_to_nothing() -> None:
    context = drawn(0, 0)
    assert np.abs(blend(context, context).astype(int) - context.image).max() <= 2


def test_blend_without_a_face_inside_returns_the_context() -> None:
    context = drawn(0, 0)
    outside = Face(context.image, context.points + 1000)
    assert np.array_equal(blend(outside, drawn(1, 0)), context.image)


def test_detection_on_real_photos(data: Path) -> None:
    finder = FaceFinder(data / "models" / "insightface", "mini")
    path = sorted((data / "faces" / "eval").glob("*/*.jpg"))[0]
    points = finder.find(decode(path.read_bytes(), 64))
    # All photos of this data share one frame: eyes at (60, 69) and (102, 68), mouth near y = 115.
    np.testing.assert_allclose(points[:2], [[60, 69], [102, 68]], atol=14)
    assert points[3:, 1].mean() > points[:2, 1].mean() + 30
    reader = PhotoReader(DataParams(faces="detect", crop_size=112), finder.find)
    face = reader.face(Photo(0, 0, str(path), hashlib.sha256(path.read_bytes()).hexdigest()))
    assert face.image.shape == (112, 112, 3)
    with pytest.raises(BadPhotoError, match="no face"):
        finder.find(np.full((160, 160, 3), 90, np.uint8))


def test_missing_packs_are_errors_and_nothing_is_downloaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no insightface pack"):
        FaceFinder(tmp_path, "buffalo_l")
    with pytest.raises(ModelError, match="No face models"):
        FaceFinder(None, "buffalo_l")
    broken = tmp_path / "models" / "broken"
    broken.mkdir(parents=True)
    (broken / "x.onnx").write_bytes(b"rubbish")
    with pytest.raises(ModelError, match="cannot be loaded"):
        FaceFinder(tmp_path, "broken")
    with pytest.raises(ModelError, match="inswapper model"):
        Inswapper(tmp_path / "none.onnx", tmp_path, "broken")


def tiny_inswapper(path: Path) -> None:
    """A network with an inswapper's form: 128 px face and 512-d source in, face out; here, a flat red face."""
    red = np.zeros((1, 3, 128, 128), np.float32)
    red[:, 0] = 1
    nodes = [
        helper.make_node("ReduceSum", ["target"], ["t"], keepdims=0),
        helper.make_node("ReduceSum", ["source"], ["s"], keepdims=0),
        helper.make_node("Add", ["t", "s"], ["ts"]),
        helper.make_node("Mul", ["ts", "zero"], ["z"]),
        helper.make_node("Add", ["red", "z"], ["output"]),
    ]
    constants = [
        numpy_helper.from_array(np.float32(0), "zero"),
        numpy_helper.from_array(red, "red"),
        numpy_helper.from_array(np.eye(128, 512, dtype=np.float32), "emap"),
    ]
    inputs = [
        helper.make_tensor_value_info("target", TensorProto.FLOAT, [1, 3, 128, 128]),
        helper.make_tensor_value_info("source", TensorProto.FLOAT, [1, 512]),
    ]
    output = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 3, 128, 128])]
    model = helper.make_model(
        helper.make_graph(nodes, "swap", inputs, output, constants), opset_imports=[helper.make_opsetid("", 13)]
    )
    model.ir_version = 8
    onnx.save(model, path)


def test_inswapper_pastes_into_the_context(data: Path, tmp_path: Path) -> None:
    tiny_inswapper(tmp_path / "swap.onnx")
    swap = Inswapper(tmp_path / "swap.onnx", data / "models" / "insightface", "mini")
    photos = [decode(path.read_bytes(), 64) for path in sorted((data / "faces" / "eval").glob("*/000.jpg"))[:2]]
    swapped = swap(*(Face(photo, np.zeros((5, 2))) for photo in photos))
    assert swapped.shape == photos[0].shape
    middle = swapped[80:100, 70:90].reshape(-1, 3).mean(0)
    assert middle[0] > 200 > 60 > middle[2]
    assert np.abs(swapped[:5].astype(int) - photos[0][:5]).mean() < 3
