"""Small valid files of models, changed at random: whatever comes of them is read, or refused in a sentence, soon.

`TEST_MUTANTS` says how many mutants there are of each kind, by default some that take seconds.
"""

import copy
import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ireu_cli.errors import IreuError
from ireu_cli.models.card import card_of
from ireu_cli.models.clip import load_encoder
from ireu_cli.models.face_check import load_face_check
from ireu_cli.models.face_encoder import load_face_encoder
from ireu_cli.models.generator import load_generators
from ireu_cli.models.onnx_recogniser import load_onnx
from ireu_cli.models.portrait import find_bundle
from ireu_cli.models.recogniser import load_recogniser
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams, RecogniserParams

MUTANTS = int(os.environ.get("TEST_MUTANTS", "25"))
SECONDS = 20
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 1e308, -1e-308, 0.5, 10**6, 10**9, 2**31, 2**63, 10**38),
    *("", "x", "../../x", "/etc/passwd", "\x1b[2J", "a\0b", "\u202e", "gelu", "os.system", "x" * 5000, "9" * 50),
    *([], {}, [[]], [1, 2], {"a": {}}, [None], ["a", "b"], {"shortest_edge": 10**9}, {"height": 1}),
]


def bytes_of(data: bytes, draw: random.Random) -> bytes:
    """Flip, cut, repeat or overwrite; the head, where lengths and shapes stand, most of all."""
    found = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 8])):
        at = draw.randrange(max(len(found), 1)) if draw.random() < 0.4 else draw.randrange(min(len(found), 600) or 1)
        kind = draw.randrange(6)
        if kind == 0 and found:
            found[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            found = found[:at]
        elif kind == 2:
            found[at:at] = found[at : at + draw.randrange(1, 64)] * draw.choice([1, 3])
        elif kind == 3:
            found[at : at + 8] = draw.choice([b"\xff" * 8, b"\0" * 8, (2**40).to_bytes(8, "little")])
        elif kind == 4:
            del found[at : at + draw.randrange(1, 16)]
        else:
            found[at : at + 1] = bytes([draw.randrange(256)])
    return bytes(found)


def places_in(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places_in(each, (*path, key))


def json_of(data: bytes, draw: random.Random) -> bytes:
    """Another value somewhere, a key less or more; or other bytes."""
    if draw.random() < 0.2:
        return bytes_of(data, draw)
    told = copy.deepcopy(json.loads(data))
    for _ in range(draw.choice([1, 1, 2])):
        *path, last = draw.choice([place for place in places_in(told) if place])
        spot = told
        for key in path:
            spot = spot[key]
        if draw.random() < 0.15 and isinstance(spot, dict):
            del spot[last]
        elif draw.random() < 0.15 and isinstance(spot, dict):
            spot[draw.choice(["auto_map", "__class__", "vision_config", "to_dict", "x"])] = draw.choice(VALUES)
        else:
            spot[last] = copy.deepcopy(draw.choice(VALUES))
        if not [place for place in places_in(told) if place]:
            break
    return json.dumps(told).encode()


def encoder(place: Path) -> None:
    load_encoder(EncoderParams(source=str(place)), "cpu")


def card(place: Path) -> None:
    card_of(str(place))


def network(place: Path) -> None:
    for read in (
        lambda: card_of(str(place)),
        lambda: load_face_encoder(place, ARCFACE_LANDMARKS, "cpu"),
        lambda: load_onnx(RecogniserParams(name="x", kind="onnx", model=place)),
    ):
        try:
            read()
        except IreuError:
            continue


def drawn(place: Path) -> None:
    load_generators(str(place), ["image_embeds"], "cpu")


Read = Callable[[Path], object]
KINDS: dict[str, tuple[str, str, Read]] = {
    "safetensors": ("tiny", "model.safetensors", encoder),
    "safetensors, inspected": ("tiny", "model.safetensors", card),
    "archive": ("archive", "pytorch_model.bin", encoder),
    "archive of old": ("old", "pytorch_model.bin", card),
    "config": ("tiny", "config.json", encoder),
    "config, inspected": ("tiny", "config.json", card),
    "preprocessing": ("tiny", "preprocessor_config.json", encoder),
    "index of shards": ("shards", "model.safetensors.index.json", encoder),
    "network": ("network", "w.onnx", network),
    "index of a bundle": ("bundle", "portrait.json", lambda place: find_bundle(str(place))),
    "recogniser": ("bundle", "recogniser/config.json", lambda place: load_recogniser(place / "recogniser")),
    "face check": ("bundle", "face_check/config.json", lambda place: load_face_check(place / "face_check")),
    "unet": ("bundle", "a/unet/config.json", drawn),
    "text encoder": ("bundle", "text_encoder/config.json", drawn),
    "scheduler": ("bundle", "scheduler/scheduler_config.json", drawn),
    "tokenizer": ("bundle", "tokenizer/tokenizer_config.json", drawn),
    "adapter": ("bundle", "a/ip_adapter.safetensors", drawn),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, portrait: Path) -> Path:
    """Good files of every kind."""
    from tests.conftest import tiny_model
    from tests.tiny_portrait import write_face_encoder

    folder = tmp_path_factory.mktemp("sound")
    tiny = folder / "tiny"
    tiny_model().save_pretrained(tiny)
    usual = {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}, "image_mean": [0.5] * 3}
    (tiny / "preprocessor_config.json").write_text(json.dumps(usual))
    state = load_file(tiny / "model.safetensors")
    for name, new in (("archive", True), ("old", False)):
        (folder / name).mkdir()
        shutil.copyfile(tiny / "config.json", folder / name / "config.json")
        torch.save(state, folder / name / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    tiny_model().save_pretrained(folder / "shards", max_shard_size="8KB")
    (folder / "network").mkdir()
    write_face_encoder(folder / "network" / "w.onnx", 5)
    shutil.copytree(portrait, folder / "bundle")
    return folder


@pytest.fixture
def in_time() -> Iterator[None]:
    """Ends a test that hangs, with what it was doing."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no answer in {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.usefixtures("in_time")
def test_nothing_but_errors_of_ours(kind: str, sound: Path, tmp_path: Path) -> None:
    folder, name, read = KINDS[kind]
    place = tmp_path / "here" / folder
    shutil.copytree(sound / folder, place)
    named = place / name if folder == "network" else place
    read(named)
    whole = (place / name).read_bytes()
    before = sorted(tmp_path.rglob("*"))
    for seed in range(MUTANTS):
        draw = random.Random(f"{kind} {seed}")
        mutant = json_of(whole, draw) if name.endswith(".json") else bytes_of(whole, draw)
        (place / name).write_bytes(mutant)
        signal.alarm(SECONDS)
        said = ""
        try:
            read(named)
        except IreuError as error:
            said = str(error)
        except Exception as error:
            raise AssertionError(f"{kind}, mutant {seed}: {type(error).__name__}") from error
        signal.alarm(0)
        assert said.isprintable() or not said, f"{kind} {seed}"
    assert sorted(tmp_path.rglob("*")) == before
