"""The edits in portrait-mini's prompts, and a computed check whether a picture shows the edit in its prompt.

Tone and framing are compared with the picture drawn from the same photo and noise without the edit, so that a dark
photo does not count as an edit to dark.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ireu_cli.values import RgbImage

Landmarks = npt.NDArray[np.floating] | None
"""(5, 2) in pixels: eyes, nose, mouth corners, the viewer's left first; None if no face was found."""

EDITS: dict[str, str] = {
    "dark": "dark",
    "bright": "bright",
    "black and white": "black and white",
    "sepia": "sepia",
    "blurred": "blurred",
    "close-up": "close-up",
    "wide": "wide",
    "facing left": "facing left",
    "facing right": "facing right",
    "blue background": "blue background",
    "green background": "green background",
    "red background": "red background",
}
"""The words in the prompt for each edit."""

FACING = 0.12
"""The yaw from which a face looks aside; see `yaw`."""

_LUMA = np.array([0.299, 0.587, 0.114])
_COLOURS = {"red": 0, "green": 1, "blue": 2}


def adheres(
    edit: str, edited: RgbImage, plain: RgbImage, edited_landmarks: Landmarks = None, plain_landmarks: Landmarks = None
) -> bool | None:
    """Tell whether `edited` shows the edit.

    Args:
        edit: a key of `EDITS`.
        edited: the picture drawn with the edit.
        plain: the picture drawn from the same photo and noise without it.
        edited_landmarks: landmarks of the face in `edited`; only framing and facing need them.
        plain_landmarks: landmarks of the face in `plain`; only framing needs them.

    Returns:
        None if it cannot be measured, because an edit of the face shows no face.
    """
    if edit in _TONES:
        return _TONES[edit](edited / 255.0, plain / 255.0)
    if edit.endswith(" background"):
        return _background(edited / 255.0, _COLOURS[edit.split()[0]])
    if edited_landmarks is None:
        return None
    if edit in {"facing left", "facing right"}:
        aside = yaw(edited_landmarks) * (-1 if edit == "facing left" else 1)
        return bool(aside > FACING / 2)
    if plain_landmarks is None:
        return None
    scale = _eye_distance(edited_landmarks) / max(_eye_distance(plain_landmarks), 1e-6)
    return bool(scale > 1.12) if edit == "close-up" else bool(scale < 0.94)


def yaw(landmarks: npt.NDArray[np.floating]) -> float:
    """The sideways distance of the nose from the line between eyes and mouth, in eye distances; left is negative."""
    eyes = landmarks[:2].mean(0)
    mouth = landmarks[3:].mean(0)
    down = mouth - eyes
    # The point of that line at the height of the nose: a crooked mouth alone does not turn the head.
    share = float((landmarks[2] - eyes) @ down / max(down @ down, 1e-6))
    across = (landmarks[2] - eyes - share * down) @ (landmarks[1] - landmarks[0])
    return float(across / max(_eye_distance(landmarks) ** 2, 1e-6))


def _eye_distance(landmarks: npt.NDArray[np.floating]) -> float:
    return float(np.linalg.norm(landmarks[1] - landmarks[0]))


Picture = npt.NDArray[np.floating]


def _light(picture: Picture) -> float:
    return float((picture @ _LUMA).mean())


def _chroma(picture: Picture) -> float:
    return float((picture.max(2) - picture.min(2)).mean())


def _fine_detail(picture: Picture) -> float:
    grey = picture @ _LUMA
    edges = 4 * grey[1:-1, 1:-1] - grey[:-2, 1:-1] - grey[2:, 1:-1] - grey[1:-1, :-2] - grey[1:-1, 2:]
    return float(edges.std())


def _is_sepia(picture: Picture, _plain: Picture) -> bool:
    grey = (picture @ _LUMA)[..., None]
    tint = ((picture - grey) / (grey + 0.05))[grey[..., 0] > 0.1]
    if not len(tint):
        return False
    red, _, blue = tint.mean(0)
    # The picture is brown everywhere: warm on average, with hardly any other colour.
    return bool(red > 0.03 and blue < -0.1 and tint.std(0).max() < 0.07)


def _background(picture: Picture, channel: int) -> bool:
    height, width = picture.shape[:2]
    rows, columns = int(height * 0.6), max(1, width // 12)
    edge = np.concatenate([picture[:rows, :columns].reshape(-1, 3), picture[:rows, -columns:].reshape(-1, 3)]).mean(0)
    others = [edge[other] for other in range(3) if other != channel]
    return bool(edge[channel] > max(others) + 0.15)


_TONES: dict[str, Callable[[Picture, Picture], bool]] = {
    "dark": lambda edited, plain: _light(edited) < 0.75 * _light(plain),
    "bright": lambda edited, plain: 1 - _light(edited) < 0.8 * (1 - _light(plain)),
    "black and white": lambda edited, _plain: _chroma(edited) < 0.05,
    "sepia": _is_sepia,
    "blurred": lambda edited, plain: _fine_detail(edited) < 0.6 * _fine_detail(plain),
}
