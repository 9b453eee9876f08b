"""What a file states and the rest does not bear out: each was found by changing files at random."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from ireu_cli.config import load_config
from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.encoders.face_encoder import load_face_encoder, with_gates
from ireu_cli.encoders.families import card_of
from ireu_cli.encoders.files.tensor_file import open_file
from ireu_cli.encoders.onnx_gates import Gates
from ireu_cli.errors import ArtifactError, ConfigError, ModelError
from ireu_cli.judges.recogniser import load_recogniser
from ireu_cli.manifest import EncoderRecord
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams
from ireu_cli.store.artifacts import read_delta, write_delta
from ireu_cli.unlearning.gated.method import join_ledgers, withdraw_cases
from ireu_cli.values import GateLedger, Ledger, Room, WeightDelta
from tests.conftest import manifest, run_ireu
from tests.tiny_portrait import write_face_encoder

Change = Callable[[torch.Tensor], torch.Tensor]


def ledger() -> Ledger:
    room = Room(torch.arange(28, 32), torch.arange(28), torch.randn(29, 4, dtype=torch.float64))
    return Ledger(2, room, ("A",), (1,), torch.randn(1, 2, 16), torch.randn(1, 2), torch.randn(1, 16, 2), {},
                  torch.empty(0))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("slots", lambda slots: slots[None]),
        ("slots", lambda slots: slots.float()),
        ("cases", lambda cases: cases.long()),
        ("cases", lambda cases: cases[None]),
        ("block", lambda block: block.float()),
        ("block", lambda block: block.repeat(2)),
        ("rows", lambda rows: rows[0]),
        ("rows", lambda rows: rows / 0),
        ("biases", lambda biases: biases.to(torch.complex64)),
        ("columns", lambda columns: columns[:, :, :1]),
        ("units", lambda units: units * 0),
        ("units", lambda units: units + 1),
        ("kept", lambda kept: kept.double()),
        ("stand_in", lambda matrix: matrix[1:]),
        ("flag", lambda flag: torch.ones(3)),
    ],
)
def test_parts_of_a_ledger_that_do_not_fit(tiny: Encoder, tmp_path: Path, name: str, change: Change) -> None:
    path = tmp_path / "d.safetensors"
    write_delta(path, join_ledgers(tiny, [ledger()]))
    assert isinstance(read_delta(path).ledger, Ledger)
    _change(path, f"ledger.{name}", change)
    with pytest.raises(ArtifactError, match=r"The ledger of the delta .* is damaged"):
        read_delta(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("rise", lambda rise: rise.to(torch.complex64)),
        ("rise", lambda rise: -rise),
        ("capacity", lambda capacity: capacity.double()),
        ("weights", lambda weights: weights[:1]),
        ("changes", lambda changes: changes[:, :3]),
        ("thresholds", lambda thresholds: thresholds[:, None]),
    ],
)
def test_parts_of_a_ledger_of_gates_that_do_not_fit(tmp_path: Path, name: str, change: Change) -> None:
    path = tmp_path / "d.safetensors"
    entries = GateLedger(4, ("A", "B"), (2, 0), torch.randn(2, 5), torch.randn(2), torch.randn(2, 5), 0.3)
    write_delta(path, WeightDelta({"gates.rise": torch.ones(1)}, entries))
    assert isinstance(read_delta(path).ledger, GateLedger)
    _change(path, f"ledger.{name}", change)
    with pytest.raises(ArtifactError, match=r"The ledger of the delta .* is damaged"):
        read_delta(path)


def _change(path: Path, name: str, change: Change) -> None:
    tensors = load_file(path)
    tensors[name] = change(tensors[name]).contiguous()
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize("changes", [{"block": 99}, {"block": -1}, {"block": -2}, {"block": 2**62},
                                     {"rows": torch.randn(1, 2, 8)}, {"columns": torch.randn(1, 8, 2)},
                                     {"apparatus": {"nowhere": torch.zeros(1)}}])  # fmt: skip
def test_a_ledger_of_another_encoder(tiny: Encoder, changes: dict[str, Any]) -> None:
    other = replace(ledger(), **changes)
    with pytest.raises(ArtifactError, match="is for another encoder"):
        withdraw_cases(tiny, other, ["A"])
    with pytest.raises(ArtifactError, match="is for another encoder"):
        join_ledgers(tiny, [other])


def test_a_ledger_of_another_kind_of_encoder(tiny: Encoder, tmp_path: Path) -> None:
    gates = GateLedger(1, ("A",), (0,), torch.zeros(1, 8), torch.zeros(1), torch.zeros(1, 8), 0.1)
    network = load_face_encoder(write_face_encoder(tmp_path / "w.onnx", 5), ARCFACE_LANDMARKS, "cpu")
    for encoder, other in ((tiny, gates), (network, ledger())):
        with pytest.raises(ArtifactError, match="are for another kind of encoder"):
            withdraw_cases(encoder, other, ["A"])
        with pytest.raises(ArtifactError, match="are for another kind of encoder"):
            join_ledgers(encoder, [other])


def test_gates_beyond_the_networks_precision(tmp_path: Path) -> None:
    network = load_face_encoder(write_face_encoder(tmp_path / "w.onnx", 5), ARCFACE_LANDMARKS, "cpu")
    gates = Gates(torch.eye(8)[:1] * 1e30, torch.tensor([0.5]), torch.eye(8)[:1], 1e-30)
    with pytest.raises(ModelError, match="too large for the network, which computes in float32"):
        with_gates(network, WeightDelta(gates.tensors()))


def test_stages_without_a_number_of_blocks(portrait: Path, tmp_path: Path) -> None:
    place = shutil.copytree(portrait / "recogniser", tmp_path / "recogniser")
    told = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(told | {"blocks": told["blocks"][:1]}))
    with pytest.raises(ModelError, match=r"config\.json of .* is wrong"):
        load_recogniser(place)


def test_complex_numbers_in_a_small_network(portrait: Path, tmp_path: Path) -> None:
    place = shutil.copytree(portrait / "recogniser", tmp_path / "recogniser")
    name = next(name for name in load_file(place / "model.safetensors") if name.endswith("num_batches_tracked"))
    _change(place / "model.safetensors", name, lambda tensor: tensor.to(torch.complex64))
    with pytest.raises(ModelError, match="complex numbers"):
        load_recogniser(place)


def test_a_network_that_names_no_opset(tmp_path: Path) -> None:
    path = write_face_encoder(tmp_path / "w.onnx", 5)
    network = onnx.load(path)
    del network.opset_import[:]
    onnx.save(network, path)
    assert card_of(str(path)).architecture.endswith("opset unknown")


@pytest.mark.parametrize("room", [True, False])
def test_an_archive_that_asks_for_more_memory_than_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: bool
) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "x.bin")

    def fails(*_: object, **_named: object) -> None:
        raise MemoryError

    monkeypatch.setattr(torch, "load", fails)
    if not room:
        monkeypatch.setattr(np, "empty", fails)
    with pytest.raises(ModelError if room else MemoryError) as refused:
        open_file(tmp_path / "x.bin")
    # What stands behind an error decides what the command line says.
    assert not room or refused.value.__context__ is None


def test_mistakes_of_settings_are_told_in_a_bounded_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text("".join(f"k{number}{'x' * 5000} = 1\n" for number in range(100)))
    with pytest.raises(ConfigError, match="and 60 more") as refused:
        load_config(tmp_path / "x.toml", {}, {})
    assert len(str(refused.value)) < 8000


class TestHowAnEncoderComputes:
    @pytest.mark.parametrize("values", [{"hidden_act": "quick_gelu"}, {"num_attention_heads": 4},
                                        {"layer_norm_eps": 0.1}])  # fmt: skip
    def test_is_part_of_what_names_it(self, tiny_folder: Path, tiny: Encoder, values: dict[str, Any]) -> None:
        told = json.loads((tiny_folder / "config.json").read_text())
        (tiny_folder / "config.json").write_text(json.dumps(told | values))
        other = load_encoder(EncoderParams(source=str(tiny_folder)), "cpu")
        assert other.fingerprint == tiny.fingerprint
        assert other.settings != tiny.settings

    def test_records_without_it_stay_as_they_were(self) -> None:
        known = {"fingerprint": "f" * 64, "architecture": "a", "tap": "pooled", "layers": 1}
        record = EncoderRecord.model_validate(known)
        assert record.model_dump(mode="json") == known
        assert record.fits("0" * 64)
        assert not record.model_copy(update={"settings": "1" * 64}).fits("0" * 64)

    def test_may_not_change_between_steps(self, fresh: Path) -> None:
        assert len(manifest(fresh, "delta.safetensors")["encoder"]["settings"]) == 64
        config = fresh / "encoder" / "config.json"
        told = json.loads(config.read_text())
        other = "quick_gelu" if told.get("hidden_act", "quick_gelu") == "gelu" else "gelu"
        config.write_text(json.dumps(told | {"hidden_act": other}))
        for command in (("verify", "--delta", "delta.safetensors"), ("unlearn", "--mask", "mask.pt")):
            # In this folder, and not in the one that it is a copy of.
            found = run_ireu(*command, "--encoder", "encoder", "-o", "new", cwd=fresh)
            assert found.code == 3
            assert "but its config.json states another activation" in found.err
        assert "was made with another encoder" in run_ireu("locate", cwd=fresh).err
