"""Edits are measured on pictures: what was edited counts, what was not does not."""

import cv2
import numpy as np
import pytest

from ireu_cli.maths.images.edits import EDITS, adheres, yaw
from ireu_cli.values import RgbImage
from tests.drawn.people import draw_photo, person_numbers, photo_numbers

FRONT = np.array([[40.0, 48], [72, 48], [56, 66], [44, 84], [68, 84]])
GREY = np.array([0.299, 0.587, 0.114])


def picture(number: int = 0) -> RgbImage:
    drawn = draw_photo(person_numbers(0, number), photo_numbers(0, number, 0))
    return np.asarray(cv2.resize(drawn, (112, 112), interpolation=cv2.INTER_AREA), np.uint8)


def as_picture(values: object) -> RgbImage:
    return np.asarray(np.clip(np.asarray(values, np.float64), 0, 255).round(), np.uint8)


def before_wall(plain: RgbImage, channel: int) -> RgbImage:
    walled = plain.astype(np.float64)
    colour = np.full(3, 40.0)
    colour[channel] = 170.0
    walled[:, :24], walled[:, -24:] = colour, colour
    return as_picture(walled)


def edited(edit: str, plain: RgbImage) -> RgbImage:
    grey = (plain @ GREY)[..., None]
    made = {
        "dark": plain * 0.45,
        "bright": 255 - (255 - plain.astype(np.float64)) * 0.5,
        "black and white": np.repeat(grey, 3, 2),
        "sepia": grey * np.array([1.05, 0.9, 0.68]) * 0.9,
        "blurred": cv2.GaussianBlur(plain, (0, 0), 2.2),
        "red background": before_wall(plain, 0),
        "green background": before_wall(plain, 1),
        "blue background": before_wall(plain, 2),
    }
    return as_picture(made[edit])


TONES = ("dark", "bright", "black and white", "sepia", "blurred")
WALLS = ("red background", "green background", "blue background")


@pytest.mark.parametrize("edit", [*TONES, *WALLS])
def test_an_edit_of_the_picture_is_seen_and_its_absence_too(edit: str) -> None:
    plain = picture()
    assert adheres(edit, edited(edit, plain), plain) is True
    assert adheres(edit, plain, plain) is False


@pytest.mark.parametrize("edit", WALLS)
def test_a_wall_of_another_colour_does_not_count(edit: str) -> None:
    plain = picture(1)
    for other in WALLS:
        if other != edit:
            assert adheres(edit, edited(other, plain), plain) is False


def test_black_and_white_is_not_sepia_and_sepia_not_black_and_white() -> None:
    plain = picture()
    assert adheres("sepia", edited("black and white", plain), plain) is False
    assert adheres("black and white", edited("sepia", plain), plain) is False


def scaled(factor: float) -> np.ndarray:
    return np.asarray((FRONT - 56) * factor + 56)


def test_framing_compares_the_faces_of_both_pictures() -> None:
    plain = picture()
    assert adheres("close-up", plain, plain, scaled(1.3), FRONT) is True
    assert adheres("close-up", plain, plain, FRONT, FRONT) is False
    assert adheres("wide", plain, plain, scaled(0.85), FRONT) is True
    assert adheres("wide", plain, plain, FRONT, FRONT) is False


def turned(by: float) -> np.ndarray:
    points = FRONT.copy()
    points[2, 0] += by
    return points


def test_facing_follows_the_nose_and_not_the_tilt_of_the_head() -> None:
    plain = picture()
    assert adheres("facing left", plain, plain, turned(-8), FRONT) is True
    assert adheres("facing left", plain, plain, turned(8), FRONT) is False
    assert adheres("facing right", plain, plain, turned(8), FRONT) is True
    angle = np.deg2rad(20)
    tilt = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    assert abs(yaw((FRONT - 56) @ tilt.T + 56)) < 0.02
    assert yaw(turned(-8)) < -0.2


def test_the_nose_is_measured_from_the_line_between_eyes_and_mouth() -> None:
    aside = FRONT.copy()
    aside[2:, 0] += np.array([4.0, 8.0, 8.0])
    assert abs(yaw(aside)) < 0.02


def test_warm_light_on_many_colours_is_not_sepia() -> None:
    colours = np.zeros((112, 112, 3))
    colours[:56], colours[56:] = (200, 150, 90), (150, 140, 100)
    assert adheres("sepia", as_picture(colours), picture()) is False
    cold = (picture() @ GREY)[..., None] * np.array([1.08, 0.95, 0.93])
    assert adheres("sepia", as_picture(cold), picture()) is False


def test_without_a_face_an_edit_of_the_face_is_not_measured() -> None:
    plain = picture()
    for edit in ("close-up", "wide", "facing left", "facing right"):
        assert adheres(edit, plain, plain, None, FRONT) is None
    assert adheres("close-up", plain, plain, FRONT, None) is None
    assert set(EDITS) == {*TONES, *WALLS, "close-up", "wide", "facing left", "facing right"}
