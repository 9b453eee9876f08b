"""A family of encoders: patches and a head in torch, whose weights lie in one file of safetensors."""

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.families import register
from ireu_cli.encoders.family import Family, Trainable
from ireu_cli.encoders.files.fingerprint import fingerprint_of
from ireu_cli.encoders.reach import Reach
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.params import EncoderParams, Tap
from ireu_cli.values import RgbImage, WeightDelta

SUFFIX = ".toy.safetensors"
NAME = f"encoder{SUFFIX}"
"""What the file in an export is called."""
TAPS: tuple[Tap, ...] = ("toy_map", "toy_embeds")
PARTS = ("patches", "head")
_SIDE, _PATCH, _CHANNELS, _WIDTH = 32, 8, 16, 24


class ToyNetwork(nn.Module):
    """Patches of a picture, and a linear function of all of them."""

    def __init__(self) -> None:
        """Build it with random weights."""
        super().__init__()
        self.patches = nn.Conv2d(3, _CHANNELS, _PATCH, _PATCH)
        self.head = nn.Linear(_CHANNELS * (_SIDE // _PATCH) ** 2, _WIDTH)


@dataclass(frozen=True)
class ToyEncoder(Trainable):
    """A loaded one."""

    model: Any
    fingerprint: str

    noun = "a toy network"
    blocks = len(PARTS)
    whole_tap = None
    settings = None
    architecture = f"toy {_SIDE} px to {_WIDTH}"
    preprocessing = hashlib.sha256(b"toy").hexdigest()[:16]
    scaling = ((0.5,) * 3, (0.5,) * 3)

    @staticmethod
    def read(model: Any, pixels: Tensor, tap: Tap) -> Tensor:
        """The map is (n, patches, channels), the embeds are (n, width)."""
        seen = torch.relu(model.patches(pixels)).flatten(2).transpose(1, 2)
        found: Tensor = seen if tap == "toy_map" else model.head(seen.flatten(1))
        return found

    def pixels(self, images: Sequence[RgbImage]) -> Tensor:
        """Shrink and scale."""
        small = [
            interpolate(torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float(), (_SIDE, _SIDE), mode="area")
            for image in images
        ]
        return torch.cat(small) / 127.5 - 1 if small else torch.empty(0, 3, _SIDE, _SIDE)

    def null_pixels(self) -> Tensor:
        """Grey and black."""
        black = self.pixels([np.zeros((_SIDE, _SIDE, 3), np.uint8)])
        return torch.cat([torch.zeros_like(black), black])

    def edited(self, delta: WeightDelta, dtype: str = "float32") -> "ToyEncoder":
        """With the delta added."""
        model = copy.deepcopy(self.model).float()
        state = model.state_dict()
        for name, change in delta.tensors.items():
            if name not in state or state[name].shape != change.shape:
                raise ArtifactError(f"A toy network has no {name}", "Name a delta that was made for one")
            state[name] += change.to(state[name].device)
        return ToyEncoder(model.to(getattr(torch, dtype)), fingerprint_of(state))

    def reach(self, names: Iterable[str], *, class_token_only: bool = False) -> Reach:
        """What changes patches changes both taps."""
        del class_token_only
        first = min((PARTS.index(name.partition(".")[0]) for name in names), default=len(TAPS))
        return Reach(TAPS[first:], TAPS[:first])

    def weights_for(self, layers: str, tap: Tap) -> list[str]:
        """All, patches, or the head."""
        if layers not in {"all", *PARTS}:
            raise ConfigError(f"A toy network has no part {layers}", f"Use all, {', '.join(PARTS)}")
        names = sorted(name for name in self.model.state_dict() if layers == "all" or name.startswith(layers))
        return [name for name in names if tap in self.reach([name]).taps]

    def whole_files(self) -> Mapping[str, bytes]:
        """One."""
        return {NAME: save({name: each.contiguous() for name, each in self.model.state_dict().items()})}


def place(source: str) -> Path | None:
    """A file of such a name, or the one in an export."""
    if source.endswith(SUFFIX):
        return Path(source)
    inside = Path(source) / NAME
    return inside if inside.is_file() else None


def load(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> ToyEncoder:
    """Read the file."""
    del landmarks
    model = ToyNetwork()
    try:
        model.load_state_dict(load_file(place(params.source) or params.source))
    except (OSError, SafetensorError, RuntimeError):
        raise ModelError(f"{params.source} holds no toy network", "Name one that does") from None
    model = model.eval().requires_grad_(False).to(device, getattr(torch, params.dtype))
    return ToyEncoder(model, fingerprint_of(model.state_dict()))


def card(source: str) -> Card:
    """What `ireu inspect` says."""
    found = load(EncoderParams(source=source), (), "cpu")
    state = found.model.state_dict()
    count = sum(each.numel() for each in state.values())
    sites = {part: found.reach([part]).taps for part in PARTS}
    return Card("toy network", "toy", found.architecture, "float32", count, found.fingerprint, (), TAPS, sites)


def write_toy(path: Path, seed: int = 0) -> Path:
    """Write one with random weights."""
    torch.manual_seed(seed)
    path.write_bytes(save(ToyNetwork().state_dict()))
    return path


register(Family("toy network", TAPS, f"a {SUFFIX} file", place, load, card, library="toys"))
