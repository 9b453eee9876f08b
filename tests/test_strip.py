"""Taking an edit out of the edited weights: what an attacker with the file finds, and what they leave alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

from ireu_cli.attacks.stripped.units import silent_on_others, unlike_others, without
from ireu_cli.encoders.clip import Encoder
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.encoders.mlp_site import MlpSite, watching
from ireu_cli.encoders.onnx_cut import cut_back
from ireu_cli.encoders.onnx_gates import Gates, append_gates
from ireu_cli.report import Report
from ireu_cli.values import WeightDelta
from tests.conftest import run_ireu
from tests.test_ir_se import loaded, pixels
from tests.test_onnx_gates import gates_for, inputs, run, small_network
from tests.tiny_ir_se import write_ir_se

SITE, UNITS = MlpSite(1), [5, 11]


def faces(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def planted(encoder: Encoder, target: Tensor) -> Encoder:
    """The encoder with two units that open on one photo alone, as `gated` writes them."""
    with watching(encoder.model, SITE) as seen:
        encoder.encode(torch.cat([target, faces(60)]), "pooled")
    tokens = seen[0]
    person, others = tokens[0, 0], tokens[1:].flatten(0, 1)
    weight = person - others.mean(0)
    scores = others @ weight
    middle, rise = (float(scores.max()) + float(person @ weight)) / 2, float(person @ weight - scores.max()) / 4
    assert rise > 0
    changes = {name: torch.zeros_like(value).float() for name, value in SITE.weights(encoder.model).items()}
    old = SITE.weights(encoder.model)
    for number, unit in enumerate(UNITS):
        changes[SITE.name("fc1.weight")][unit] = 8 / rise * weight - old[SITE.name("fc1.weight")][unit].float()
        bias = -8 / rise * middle - 8 * number
        changes[SITE.name("fc1.bias")][unit] = bias - old[SITE.name("fc1.bias")][unit].float()
        column = (-1) ** number * torch.full((16,), 2.0).cumsum(0) / 8
        changes[SITE.name("fc2.weight")][:, unit] = column - old[SITE.name("fc2.weight")][:, unit].float()
    return encoder.edited(WeightDelta(changes))


def gone(encoder: Encoder) -> Encoder:
    """The encoder without the two units' own work, which nobody can bring back."""
    units = torch.zeros(32, dtype=torch.bool)
    units[UNITS] = True
    found = without(encoder, {SITE: units})
    assert isinstance(found, Encoder)
    return found


@pytest.mark.parametrize("by", ["file", "photos"])
def test_planted_detectors_are_found_and_taken_out(tiny: Encoder, by: str) -> None:
    target, others = faces(1, seed=9), faces(60, seed=3)
    edited = planted(tiny, target)
    bits = {name: value.clone() for name, value in edited.model.state_dict().items()}
    units = unlike_others(edited) if by == "file" else silent_on_others(edited, others, "pooled")
    assert units[SITE].nonzero().flatten().tolist() == UNITS
    assert not any(bool(taken.any()) for site, taken in units.items() if site != SITE)
    stripped, original, bare = without(edited, units), tiny.encode(target, "pooled"), gone(tiny)
    torch.testing.assert_close(stripped.encode(target, "pooled"), bare.encode(target, "pooled"))
    moved = (edited.encode(target, "pooled") - original).norm()
    assert (stripped.encode(target, "pooled") - original).norm() < 0.3 * moved
    assert all(torch.equal(value, bits[name]) for name, value in edited.model.state_dict().items())


def test_an_encoder_that_nobody_edited_loses_nothing(tiny: Encoder) -> None:
    assert not any(bool(taken.any()) for taken in unlike_others(tiny).values())
    assert not any(bool(taken.any()) for taken in silent_on_others(tiny, faces(20), "pooled").values())


def test_a_detector_may_open_on_a_few_strangers(tiny: Encoder) -> None:
    target = faces(1, seed=9)
    edited = planted(tiny, target)
    photos = torch.cat([target, faces(20)])
    assert silent_on_others(edited, photos, "pooled")[SITE].nonzero().flatten().tolist() == UNITS
    crowd = torch.cat([target.expand(5, -1, -1, -1), faces(20)])
    assert not silent_on_others(edited, crowd, "pooled")[SITE].any()


def renamed(network: Any) -> Any:
    """The same network, with other names for every node and every tensor but input and output."""
    kept = {one.name for one in (*network.graph.input, *network.graph.output)}
    names: dict[str, str] = {}
    for part in network.graph.initializer:
        part.name = names.setdefault(part.name, f"t{len(names)}")
    for number, node in enumerate(network.graph.node):
        node.name = f"n{number}"
        for side in (node.input, node.output):
            for place, name in enumerate(side):
                side[place] = name if name in kept else names.setdefault(name, f"t{len(names)}")
    return network


@pytest.mark.parametrize("people", [1, 3])
def test_gates_are_cut_off_whatever_they_are_called(people: int) -> None:
    network = small_network(13)
    before = run(network, inputs(30))
    many = [gates_for(before[n:]) for n in range(people)]
    weights, thresholds, changes = (
        torch.cat([getattr(gates, name) for gates in many]) for name in ("weights", "thresholds", "changes")
    )
    edited = renamed(append_gates(network, Gates(weights, thresholds, changes, 0.05)))
    assert not np.array_equal(run(edited, inputs(30))[:people], before[:people])
    found = cut_back(edited.SerializeToString(), inputs(30))
    assert found is not None
    np.testing.assert_array_equal(found, before)


def test_real_networks_end_in_a_norm_that_a_cut_leaves_alone() -> None:
    network = onnx.load(embedded_folder() / "face_encoder.onnx")
    given = np.random.default_rng(0).normal(size=(3, 3, 112, 112)).astype(np.float32)
    before = run_each(network, given)
    edited = renamed(append_gates(network, gates_for(before)))
    found = cut_back(edited.SerializeToString(), given)
    assert found is not None
    np.testing.assert_array_equal(found, before)


def run_each(network: Any, given: Any) -> Any:
    return np.concatenate([run(network, row[None]) for row in given])


def test_facexlibs_network_is_stripped_in_onnx(tmp_path: Path) -> None:
    encoder, given = loaded(write_ir_se(tmp_path / "net.pth")), pixels(3)
    before = encoder.encode(given, "normed_embedding")
    edited = encoder.edited(WeightDelta(gates_for(before.numpy()).tensors()))
    assert not torch.allclose(edited.encode(given, "normed_embedding")[0], before[0], atol=0.1)
    found = cut_back(edited.in_onnx(), given.flip(1).numpy())
    assert found is not None
    torch.testing.assert_close(torch.from_numpy(found), before, rtol=1e-3, atol=1e-4)


def test_a_network_without_gates_has_nothing_to_cut() -> None:
    assert cut_back(small_network(13).SerializeToString(), inputs(2)) is None


def test_verify_reports_both_and_judges_neither(fresh: Path) -> None:
    told = run_ireu(
        "verify", "--delta", "delta.safetensors", "-o", "s", "--set", "attacks.suite=strip-file,strip-photos", cwd=fresh
    )
    assert told.code in {0, 4}
    report = Report.model_validate_json((fresh / "s" / "report.json").read_text())
    shown = {(f.attack, f.state) for f in report.figures if f.name == "attack_success"}
    assert shown >= {(f"strip-{by}", state) for by in ("file", "photos") for state in ("original", "edited")}
    assert report.unjudged == ("strip-file", "strip-photos")
    assert not [c for c in report.criteria if c.name == "attacks"]
