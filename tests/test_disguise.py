"""Disguises do to a photo what they claim, at every size, and leave what they were given alone."""

import colorsys
import io
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import CLIPImageProcessorPil

from ireu_cli.errors import ConfigError
from ireu_cli.faces.align import Points, template_points
from ireu_cli.faces.disguise import DISGUISES, Disguise, disguise
from ireu_cli.params import ARCFACE_LANDMARKS
from ireu_cli.values import RgbImage
from tests.drawn.people import draw_photo, person_numbers, photo_numbers

NAMES = [known.name for known in DISGUISES]
EYES, NOSE, MOUTH = [0, 1], [2], [3, 4]
each_disguise = pytest.mark.parametrize("known", DISGUISES, ids=NAMES)


def drawn(person: int = 0, photo: int = 0, height: int = 192, width: int = 160) -> RgbImage:
    image = draw_photo(person_numbers(0, person), photo_numbers(0, person, photo))
    return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def textured(height: int, width: int, seed: int = 0) -> RgbImage:
    """Detail at every scale, so that a lost or moved pixel shows."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def landmarks(image: RgbImage) -> Points:
    return template_points(ARCFACE_LANDMARKS, image)


def disguised(name: str, photo: RgbImage) -> RgbImage:
    return disguise(name).apply(photo, landmarks(photo), drawn(0, 1), drawn(1, 0))


def error(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    return float(np.abs(one.astype(np.float64) - other).mean())


def fine_detail(image: RgbImage) -> float:
    return float(cv2.Laplacian(image.astype(np.float64), cv2.CV_64F).std())


def dots(places: Points, height: int = 240, width: int = 200) -> RgbImage:
    """A white disc of radius 4 on black at each place."""
    image = np.zeros((height, width, 3), np.uint8)
    for x, y in places:
        cv2.circle(image, (round(x), round(y)), 4, (255, 255, 255), -1)
    return image


def centres(image: RgbImage) -> Points:
    """Centres of bright patches, float64 (n, 2), sorted by x."""
    _, _, _, found = cv2.connectedComponentsWithStats((image[:, :, 0] > 127).astype(np.uint8))
    return np.asarray(sorted(found[1:].tolist()), np.float64)


def changed(name: str, photo: RgbImage, points: Points) -> npt.NDArray[np.bool_]:
    other = drawn(1, 0)
    return np.asarray((disguise(name).apply(photo, points, other, other) != photo).any(2))


def at(mask: npt.NDArray[np.bool_], points: Points) -> list[bool]:
    return [bool(mask[round(y), round(x)]) for x, y in points]


def test_names_are_unique_and_looked_up() -> None:
    assert len(set(NAMES)) == len(NAMES)
    assert [disguise(name) for name in NAMES] == list(DISGUISES)
    families = {"front-end", "geometry", "colour", "compression", "blur", "occlusion", "mix", "chain"}
    assert {known.family for known in DISGUISES} == families
    assert all(known.meaning.endswith(".") and known.meaning.count(".") < 3 for known in DISGUISES)
    with pytest.raises(ConfigError, match=r"no disguise with the name 'moustache'.*eye-bar"):
        disguise("moustache")


@pytest.mark.parametrize(
    ("chain", "parts"),
    [
        ("screenshot", ["crop-0.9", "down-up-2", "jpeg-50"]),
        ("passed-on", ["jpeg-50", "down-up-2", "jpeg-30"]),
        ("filtered", ["rotate-right-10", "blur-0.03", "contrast-1.6"]),
        ("mirror-selfie", ["crop-0.9", "flip", "cast-warm", "jpeg-50"]),
        ("photocopy", ["rotate-left-10", "grey", "contrast-1.6", "noise-10"]),
    ],
)
def test_a_chain_is_its_changes_in_turn(chain: str, parts: list[str]) -> None:
    photo = textured(120, 100)
    points, made = landmarks(photo), photo
    for part in parts:
        made = disguise(part).apply(made, points, photo, photo)
    np.testing.assert_array_equal(disguised(chain, photo), made)
    # Each of the changes shows: without it, something else comes out.
    for left_out in range(len(parts)):
        other = photo
        for part in parts[:left_out] + parts[left_out + 1 :]:
            other = disguise(part).apply(other, points, photo, photo)
        assert not np.array_equal(other, made)


@each_disguise
@settings(max_examples=3, deadline=None)
@given(
    height=st.integers(64, 1024),
    width=st.integers(64, 1024),
    other=st.tuples(st.integers(40, 300), st.integers(40, 300)),
)
def test_pictures_keep_their_shape_and_repeat(known: Disguise, height: int, width: int, other: tuple[int, int]) -> None:
    photo, second = textured(height, width), textured(*other, seed=1)
    points = landmarks(photo)
    before, points_before = photo.copy(), points.copy()
    for array in (photo, second, points):
        array.setflags(write=False)
    made = known.apply(photo, points, second, second)
    assert made.shape == photo.shape
    assert made.dtype == np.uint8
    assert made.flags.c_contiguous
    assert made.flags.writeable
    assert not np.shares_memory(made, photo)
    np.testing.assert_array_equal(photo, before)
    np.testing.assert_array_equal(points, points_before)
    np.testing.assert_array_equal(made, known.apply(photo.copy(), points, second, second))
    # A small or a square photo is the same to some front-ends.
    assert known.family == "front-end" or not np.array_equal(made, photo)


@each_disguise
def test_memory_layout_does_not_matter(known: Disguise) -> None:
    photo, second = drawn(), drawn(1)
    points = landmarks(photo)
    turned = [np.asarray(image[:, :, ::-1].copy()[:, :, ::-1]) for image in (photo, second)]
    assert not turned[0].flags.c_contiguous
    made = known.apply(turned[0], points, turned[1], turned[1])
    assert made.flags.c_contiguous
    np.testing.assert_array_equal(made, known.apply(photo, points, second, second))


@each_disguise
@settings(max_examples=4, deadline=None)
@given(places=st.lists(st.floats(-40, 200), min_size=10, max_size=10))
def test_any_landmarks_will_do(known: Disguise, places: list[float]) -> None:
    photo = drawn(height=96, width=80)
    made = known.apply(photo, np.array(places).reshape(5, 2), photo[:, ::-1], photo)
    assert made.shape == photo.shape


# Compression and noise have a grain in pixels, down-up a size in pixels: they say what is done to the file.
PIXELWISE = {
    "unsmoothed",
    "jpeg-90",
    "jpeg-50",
    "jpeg-30",
    "jpeg-10",
    "noise-10",
    "noise-25",
    "down-up-2",
    "down-up-3",
    "down-up-4",
    "screenshot",
    "passed-on",
    "mirror-selfie",
    "photocopy",
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PIXELWISE])
def test_a_disguise_is_the_same_at_every_size(name: str) -> None:
    small = cv2.GaussianBlur(drawn(height=120, width=120), (0, 0), 2)
    large = np.asarray(cv2.resize(small, (480, 480), interpolation=cv2.INTER_CUBIC))
    shrunk = np.asarray(cv2.resize(disguised(name, large), (120, 120), interpolation=cv2.INTER_AREA))
    assert error(disguised(name, small), shrunk) < 2.5


class TestFrontEnds:
    """What an encoder's own processor makes of the picture is what the front-end makes of the photo."""

    def prepared(self, photo: RgbImage, side: int = 56) -> npt.NDArray[np.float32]:
        processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
        return np.asarray(processor(images=photo, return_tensors="np")["pixel_values"][0])

    @pytest.mark.parametrize(("height", "width"), [(240, 160), (160, 240), (161, 240)])
    def test_squashed_photos_lose_no_border(self, height: int, width: int) -> None:
        photo = cv2.GaussianBlur(drawn(height=height, width=width), (0, 0), 2)
        square = cv2.resize(photo, (160, 160), interpolation=cv2.INTER_AREA)
        found = self.prepared(disguised("squash", np.asarray(photo)))
        assert error(found, self.prepared(np.asarray(square))) < 0.03
        assert error(found, self.prepared(np.asarray(photo))) > 0.1
        np.testing.assert_array_equal(disguised("squash", textured(90, 90)), textured(90, 90))

    @pytest.mark.parametrize(("height", "width"), [(224, 224), (300, 224), (224, 301)])
    def test_aligned_photos_have_the_face_at_its_place(self, height: int, width: int) -> None:
        turned = landmarks(np.zeros((120, 120, 3), np.uint8)) + 30
        turned = turned @ np.array([[0.98, 0.17], [-0.17, 0.98]])
        photo = dots(turned, height, width)
        made = disguise("aligned").apply(photo, turned, photo, photo)
        top, left = (height - 224) // 2, (width - 224) // 2
        square = made[top : top + 224, left : left + 224]
        expected = np.asarray(sorted(landmarks(square).tolist()))
        np.testing.assert_allclose(centres(square), expected, atol=1.5)
        nowhere = np.full((5, 2), 7.0)
        np.testing.assert_array_equal(disguise("aligned").apply(photo, nowhere, photo, photo), photo)

    def test_unsmoothed_photos_keep_what_should_have_been_lost(self) -> None:
        photo = textured(896, 896)
        smooth = cv2.resize(photo, (224, 224), interpolation=cv2.INTER_AREA)
        kept = cv2.resize(disguised("unsmoothed", photo), (224, 224), interpolation=cv2.INTER_AREA)
        assert fine_detail(np.asarray(kept)) > 1.3 * fine_detail(np.asarray(smooth))
        np.testing.assert_array_equal(disguised("unsmoothed", textured(200, 300)), textured(200, 300))


def test_flip_mirrors() -> None:
    photo = textured(90, 70)
    np.testing.assert_array_equal(disguised("flip", photo)[:, 0], photo[:, -1])
    np.testing.assert_array_equal(disguised("flip", disguised("flip", photo)), photo)


@pytest.mark.parametrize("scale", [0.9, 0.8, 0.7])
def test_crops_magnify_about_the_face(scale: float) -> None:
    places = np.array([[80.0, 100], [120, 100], [100, 120], [80, 140], [120, 140]])
    made = disguise(f"crop-{scale}").apply(dots(places[[0, 4]]), places, drawn(), drawn())
    expected = [[100 - 20 / scale, 120 - 20 / scale], [100 + 20 / scale, 120 + 20 / scale]]
    np.testing.assert_allclose(centres(made), expected, atol=1.5)


def test_a_crop_stays_inside_the_picture() -> None:
    places = np.array([[10.0, 20], [30, 20], [20, 30], [10, 40], [30, 40]])
    made = disguise("crop-0.7").apply(dots(places[:1]), places, drawn(), drawn())
    np.testing.assert_allclose(centres(made), places[:1] / 0.7, atol=1.5)


def test_zoom_out_shrinks_and_mirrors_the_border() -> None:
    places = np.array([[60.0, 80], [140, 160]])
    made = disguised("zoom-out-0.8", dots(places))
    np.testing.assert_allclose(centres(made), (places - [100, 120]) * 0.8 + [100, 120], atol=1.5)
    zoomed = disguised("zoom-out-0.8", textured(200, 200))
    np.testing.assert_array_equal(zoomed[:20], zoomed[21:41][::-1])


def test_shift_moves_right_and_down() -> None:
    photo = textured(100, 80)
    shifted = disguised("shift", photo)
    np.testing.assert_array_equal(shifted[10:, 8:], photo[:-10, :-8])
    np.testing.assert_array_equal(shifted[9, 8:], photo[1, :-8])


@pytest.mark.parametrize(("name", "degrees"), [("left-10", 10), ("right-10", -10), ("left-20", 20), ("right-20", -20)])
def test_rotations_turn_about_the_face(name: str, degrees: int) -> None:
    places = np.array([[60.0, 120], [140, 120], [100, 120], [60, 120], [140, 120]])
    made = centres(disguise(f"rotate-{name}").apply(dots(places[:2]), places, drawn(), drawn()))
    np.testing.assert_allclose(made.mean(0), [100, 120], atol=1)
    across = made[1] - made[0]
    # Pixels count downwards: anticlockwise lifts the right-hand dot.
    assert np.degrees(np.arctan2(-across[1], across[0])) == pytest.approx(degrees, abs=1)


def test_grey_has_equal_channels() -> None:
    made = disguised("grey", drawn())
    assert (made == made[:, :, :1]).all()
    assert made.std() > 10


def test_brightness_scales() -> None:
    photo = (drawn() * 0.5).astype(np.uint8)
    np.testing.assert_allclose(disguised("brightness-0.5", photo), photo * 0.5, atol=0.51)
    np.testing.assert_allclose(disguised("brightness-1.6", photo), photo * 1.6, atol=0.51)
    assert (disguised("brightness-1.6", np.full_like(photo, 200)) == 255).all()


@pytest.mark.parametrize("factor", [0.5, 1.6])
def test_contrast_spreads_about_the_mean(factor: float) -> None:
    photo = (drawn() * 0.4 + 70).astype(np.uint8)
    made = disguised(f"contrast-{factor}", photo)
    assert made.std() / photo.std() == pytest.approx(factor, rel=0.06)
    assert made.mean() == pytest.approx(photo.mean(), abs=5)


@pytest.mark.parametrize(("name", "gamma"), [("gamma-0.5", 0.5), ("gamma-2", 2.0)])
def test_gamma_bends_the_tones(name: str, gamma: float) -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    np.testing.assert_allclose(disguised(name, ramp), 255 * (ramp / 255.0) ** gamma, atol=0.51)


def test_hue_turns_by_thirty_degrees() -> None:
    photo = np.empty((64, 64, 3), np.uint8)
    for colour in ((200, 60, 60), (60, 60, 200), (220, 50, 100)):
        photo[:] = colour
        before, after = (colorsys.rgb_to_hsv(*image[0, 0] / 255.0) for image in (photo, disguised("hue-30", photo)))
        assert (after[0] - before[0]) % 1 * 360 == pytest.approx(30, abs=2)
        assert after[1:] == pytest.approx(before[1:], abs=0.02)


def test_casts_lean_to_their_colour() -> None:
    red, _, blue = drawn().mean((0, 1))
    warm, cold = (disguised(name, drawn()).mean((0, 1)) for name in ("cast-warm", "cast-cold"))
    assert warm[0] / warm[2] > 1.3 * red / blue
    assert cold[0] / cold[2] < 0.75 * red / blue


def test_jpeg_errs_more_the_lower_its_quality() -> None:
    photo = drawn(height=96, width=96)
    errors = [error(disguised(f"jpeg-{quality}", photo), photo) for quality in (90, 50, 30, 10)]
    assert errors == sorted(errors)
    assert errors[-1] > 2 * errors[0] > 0


@pytest.mark.parametrize("names", [("blur-0.03", "blur-0.08"), ("down-up-2", "down-up-3", "down-up-4")])
def test_blurs_lose_detail_and_keep_the_light(names: tuple[str, ...]) -> None:
    photo = textured(120, 144)
    detail = [fine_detail(photo), *(fine_detail(disguised(name, photo)) for name in names)]
    assert detail == sorted(detail, reverse=True)
    assert detail[1] < 0.5 * detail[0]
    for name in names:
        assert disguised(name, photo).mean() == pytest.approx(photo.mean(), abs=1.5)


@pytest.mark.parametrize("quality", [90, 50, 30, 10])
def test_jpeg_is_saved_at_its_quality(quality: int) -> None:
    photo, file = drawn(), io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality)
    np.testing.assert_array_equal(disguised(f"jpeg-{quality}", photo), np.asarray(Image.open(file)))


@pytest.mark.parametrize("width", [0.03, 0.08])
def test_a_point_blurs_to_its_share_of_the_face(width: float) -> None:
    line = np.zeros((300, 300, 3), np.uint8)
    line[:, 150] = 255
    across = disguised(f"blur-{width}", line)[150, :, 0].astype(np.float64)
    spread = np.sqrt((across * (np.arange(300) - 150) ** 2).sum() / across.sum())
    # In ArcFace's template the mouth lies 0.3632 of the picture's height below the eyes, more than the eyes are apart.
    assert spread == pytest.approx(width * 0.3632 * 300, rel=0.06)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_down_up_drops_what_fits_into_one_smaller_pixel(factor: int) -> None:
    def kept(period: float) -> float:
        wave = np.cos(2 * np.pi * np.arange(240) / period) * 100 + 128
        photo = np.broadcast_to(wave[None, :, None], (96, 240, 3)).round().astype(np.uint8)
        return float(disguised(f"down-up-{factor}", photo)[:, 20:-20].std() / photo[:, 20:-20].std())

    assert kept(factor) < 0.02
    assert kept(4 * factor) > 0.85


@pytest.mark.parametrize("deviation", [10, 25])
@pytest.mark.parametrize("side", [96, 448])
def test_noise_has_its_deviation_and_differs_from_photo_to_photo(deviation: int, side: int) -> None:
    flat = np.full((side, side, 3), 128, np.uint8)
    noise, second = (disguised(f"noise-{deviation}", image).astype(float) - image for image in (flat, flat + 1))
    assert noise.std() == pytest.approx(deviation, rel=0.05)
    assert abs(np.corrcoef(noise.ravel(), second.ravel())[0, 1]) < 0.05
    # An encoder that reads 224 pixels sees the noise too, however large the photo.
    seen = noise if side < 224 else cv2.resize(noise, (224, 224), interpolation=cv2.INTER_AREA)
    assert seen.std() > 0.9 * deviation


@pytest.mark.parametrize(
    ("name", "covers", "leaves"),
    [
        ("glasses", EYES, NOSE + MOUTH),
        ("eye-bar", EYES, NOSE + MOUTH),
        ("mask", NOSE + MOUTH, EYES),
        ("nose-square", NOSE, EYES + MOUTH),
    ],
)
@settings(max_examples=20, deadline=None)
@given(turn=st.floats(-60, 60), size=st.floats(0.6, 1), height=st.integers(64, 400), width=st.integers(64, 400))
def test_occlusions_cover_their_part_of_the_face(
    name: str, covers: list[int], leaves: list[int], turn: float, size: float, height: int, width: int
) -> None:
    photo = np.full((height, width, 3), (255, 0, 255), np.uint8)
    # An upright face of the template, turned and scaled about the middle of a picture of any shape.
    face = (np.asarray(ARCFACE_LANDMARKS).reshape(5, 2) - 0.5) * min(height, width) * size * 0.8
    angle = np.radians(turn)
    rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = face @ rotation + np.array([width / 2, height / 2])
    mask = changed(name, photo, points)
    assert at(mask, points[covers]) == [True] * len(covers)
    assert at(mask, points[leaves]) == [False] * len(leaves)
    assert not mask[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    unit = np.linalg.norm(face[3:].mean(0) - face[:2].mean(0))
    assert 0.2 < mask.sum() / unit**2 < 3


def test_occlusions_cover_what_shows_round_the_landmarks() -> None:
    photo = np.full((224, 224, 3), 200, np.uint8)
    points, eye = landmarks(photo), np.linalg.norm(np.diff(landmarks(photo)[:2], axis=0))
    for name, parts, radius in (("glasses", EYES, 0.25), ("eye-bar", EYES, 0.25), ("mask", MOUTH, 0.3)):
        mask = changed(name, photo, points)
        for x, y in points[parts]:
            disc = cv2.circle(np.zeros(mask.shape, np.uint8), (round(x), round(y)), round(radius * eye), 1, -1) > 0
            assert mask[disc].all(), name


def test_mixes_lie_between_the_photos() -> None:
    photo, same, other = textured(80, 64), textured(80, 64, seed=1), textured(80, 64, seed=2)
    made = {
        name: disguise(name).apply(photo, landmarks(photo), same, other)
        for name in ("mix-same", "mix-other-0.25", "mix-other-0.5")
    }
    a = photo.astype(np.float64)
    np.testing.assert_allclose(made["mix-same"], (a + same) / 2, atol=0.51)
    np.testing.assert_allclose(made["mix-other-0.25"], 0.75 * a + 0.25 * other, atol=0.51)
    np.testing.assert_allclose(made["mix-other-0.5"], (a + other) / 2, atol=0.51)


def test_mixing_lays_faces_of_different_sizes_on_each_other() -> None:
    photo = np.zeros((120, 96, 3), np.uint8)
    other = dots(np.array([[60.0, 80], [140, 80]]), 240, 200)
    made = disguise("mix-other-0.5").apply(photo, landmarks(photo), photo, other)
    brighter = np.minimum(made.astype(int) * 2, 255).astype(np.uint8)
    np.testing.assert_allclose(centres(brighter), np.array([[60.0, 80], [140, 80]]) * [96 / 200, 0.5], atol=1)
