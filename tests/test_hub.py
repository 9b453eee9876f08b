"""Models of the hub: how they are named, found in the hub's cache, and what is said where there is no network."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ireu_cli.encoders.clip import load_encoder
from ireu_cli.encoders.files.hub import HubAddress, address_of
from ireu_cli.errors import ModelError
from ireu_cli.params import EncoderParams
from tests.conftest import run_ireu
from tests.tiny_layouts import write_layout

ENCODER = "models/image_encoder"


@pytest.mark.parametrize(
    ("source", "address"),
    [
        ("h94/IP-Adapter", HubAddress("h94/IP-Adapter")),
        (f"h94/IP-Adapter:{ENCODER}", HubAddress("h94/IP-Adapter", None, ENCODER)),
        (f"h94/IP-Adapter:{ENCODER}/", HubAddress("h94/IP-Adapter", None, ENCODER)),
        (f"h94/IP-Adapter@v1/x:{ENCODER}", HubAddress("h94/IP-Adapter", "v1/x", ENCODER)),
        (f"hf://h94/IP-Adapter/{ENCODER}", HubAddress("h94/IP-Adapter", None, ENCODER)),
        (f"hf://h94/IP-Adapter@v1/{ENCODER}", HubAddress("h94/IP-Adapter", "v1", ENCODER)),
        ("hf://h94/IP-Adapter", HubAddress("h94/IP-Adapter")),
        ("gpt2", HubAddress("gpt2")),
    ],
)
def test_addresses(source: str, address: HubAddress) -> None:
    assert address_of(source) == address


@pytest.mark.parametrize(
    "source",
    ["", "./x", "/abs/x", "a/b/c", "a/b:../x", "a/b:x/../../y", "a/b:x//y", "a/b:x:y", "a b/c", "../b", "a/b@", "hf://a",
     "hf://a/b/../c", "a/b:x\\y"],
)  # fmt: skip
def test_what_is_no_address(source: str) -> None:
    assert address_of(source) is None


def test_a_revision_is_named_once() -> None:
    assert address_of("a/b", "v2") == HubAddress("a/b", "v2")
    assert address_of("a/b@v2", "v2") == HubAddress("a/b", "v2")
    with pytest.raises(ModelError, match=r"names the revision v1, and encoder\.revision names v2"):
        address_of("a/b@v1", "v2")


def test_the_command_that_downloads() -> None:
    assert HubAddress("a/b", None, "x y").download == "hf download a/b --include 'x y/*'"
    assert HubAddress("a/b", "v1", "x.bin").download == "hf download a/b --include x.bin --revision v1"
    assert HubAddress("a/b").download == "hf download a/b"


_LOAD = """
import sys
from ireu_cli.encoders.clip import load_encoder
from ireu_cli.params import EncoderParams
for source in sys.argv[2:]:
    assert load_encoder(EncoderParams(source=source), "cpu").fingerprint == sys.argv[1], source
"""


def test_a_folder_and_a_file_of_a_repository_are_read_from_the_cache(tiny_folder: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / "abc"
    (snapshot.parent.parent / "refs").mkdir(parents=True)
    for revision in ("main", "v1"):
        (snapshot.parent.parent / "refs" / revision).write_text("abc")
    (snapshot / ENCODER).parent.mkdir(parents=True)
    # The root holds another model's settings.
    (snapshot / "config.json").write_text("{}")
    write_layout("folder", tiny_folder, snapshot / ENCODER)
    fingerprint = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu").fingerprint
    sources = [
        f"org/name:{ENCODER}",
        f"org/name@v1:{ENCODER}",
        f"hf://org/name/{ENCODER}",
        f"org/name:{ENCODER}/model.safetensors",
    ]
    where = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", _LOAD, fingerprint, *sources]
    done = subprocess.run(command, env=where, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def drawn(samples: Path, tmp_path: Path) -> Path:
    """A copy of the job on drawn people: also a refused command starts a run folder."""
    return Path(shutil.copytree(samples, tmp_path / "demo"))


@pytest.mark.parametrize("command", ["locate", "inspect"])
def test_without_a_network_you_are_told_what_to_type(drawn: Path, command: str) -> None:
    source = "nobody-has/this:models/image_encoder"
    given = ("locate", "--encoder", source) if command == "locate" else ("inspect", source)
    refused = run_ireu(*given, cwd=drawn)
    assert refused.code == 3
    assert "`hf download nobody-has/this --include 'models/image_encoder/*'`" in refused.err


def test_a_source_that_is_nothing_at_all(drawn: Path) -> None:
    refused = run_ireu("locate", "--encoder", "a/b/c", cwd=drawn)
    assert refused.code == 3
    assert "owner/model:folder" in refused.err
