"""Every layout through all commands, and into its real consumer; the table of docs/encoders.md is what is seen here."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from insightface.model_zoo import get_model
from onnx import numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPVisionModel, CLIPVisionModelWithProjection, Dinov2Model, SiglipVisionModel

from ireu_cli.encoders.face_encoder import load_face_encoder
from ireu_cli.encoders.files.checkpoint import open_checkpoint
from ireu_cli.params import ARCFACE_LANDMARKS
from ireu_cli.store.artifacts import read_delta
from tests import tiny_bare
from tests import tiny_dinov2 as dinov2
from tests.conftest import run_ireu
from tests.drawn.face_network import write_face_network
from tests.test_facefusion import accepts, write_with_input
from tests.test_ir_se import loaded
from tests.tiny_eva import FILE as EVA_FILE
from tests.tiny_eva import as_eva_clip, write_eva
from tests.tiny_generator import adapter_weights, draw, tiny_pipeline
from tests.tiny_ir_se import as_facexlib, write_ir_se
from tests.tiny_layouts import LAYOUTS, write_layout
from tests.tiny_siglip import write_siglip
from tests.tiny_wan import WanClip

PAGE = Path(__file__).parent.parent / "docs" / "encoders.md"
START, END = "<!-- layouts: written by the tests -->", "<!-- end of layouts -->"
GATED = ("--method", "gated", "--set", "gated.people=1", "--set", "gated.max_false_alarm=0.2")
"""Few and coarsely drawn people allow no rate that they cannot show."""
TRAINED = ("--method", "ireu", "--steps", "2")
PREFIXES = {"SigLIP with its text encoder": "vision_model.", "SigLIP alone": ""}
"""What the names of SigLIP's tensors begin with."""
"""Rows that any of the processes that share the tests has seen, a file each."""
"""What was seen of each layout, as rows of the table."""


@dataclass(frozen=True)
class Seen:
    """What a consumer computes of the same pixels before and after, and every tensor of the files before and after."""

    consumer: str
    before: Tensor
    after: Tensor
    tensors: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]
    others: int = 0
    """Files beside the weights that were compared."""


def chain(samples: Path, work: Path, source: Path, tap: str, *more: str) -> tuple[dict[str, Any], Path, set[str]]:
    """Inspect, locate, unlearn, export; returns the card, the export, and the names of the edited weights.

    Tokens of so small an encoder have no room for `gated`, so they are reached by training.
    """
    method = TRAINED if tap == "penultimate" else GATED
    shutil.copytree(samples, work)
    card = run_ireu("inspect", source, "--json", cwd=work)
    assert card.code == 0, card.err
    for command in (
        ("locate", "--encoder", source, "--tap", tap, "--method", "all"),
        ("unlearn", "--mask", "mask.pt", *method),
        ("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out", *more),
    ):
        done = run_ireu(*command, cwd=work)
        assert done.code == 0, done.err
    edited = {name for name, change in read_delta(work / "delta.safetensors").tensors.items() if bool(change.any())}
    return card.json, work / "out", edited


def features(state: Mapping[str, Tensor], folder: Path) -> Tensor:
    """What a transformer computes that a consumer built from these tensors; all of them have to be there."""
    model = CLIPVisionModelWithProjection(CLIPVisionModelWithProjection.config_class.from_pretrained(folder))
    missing = model.load_state_dict(state, strict=False).missing_keys
    assert [name for name in missing if "position_ids" not in name] == []
    side = model.config.image_size
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found: Tensor = model.eval()(pixels).image_embeds
    return found


def from_folder(place: Path, _config: Path) -> tuple[Tensor, dict[str, Tensor]]:
    model, info = CLIPVisionModelWithProjection.from_pretrained(place, output_loading_info=True)
    assert not info["missing_keys"]
    state = model.state_dict()
    return features(state, place), state


def from_file(place: Path, config: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """As ComfyUI and sd-webui do."""
    path = next(path for path in files_in(place) if path.suffix in {".safetensors", ".pth", ".bin"})
    state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    return features(state, config), state


def from_photomaker(place: Path, config: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """As `load_photomaker_adapter` does, which asks for these keys in this order."""
    path = next(path for path in files_in(place) if path.suffix in {".safetensors", ".bin"})
    if path.suffix == ".safetensors":
        flat = load_file(path)
        parts = ("id_encoder", "lora_weights")
        tree = {part: {k.removeprefix(f"{part}."): t for k, t in flat.items() if k.startswith(part)} for part in parts}
        assert sum(len(part) for part in tree.values()) == len(flat)
    else:
        tree = torch.load(path, weights_only=True)
    assert [*tree] == ["id_encoder", "lora_weights"]
    named = {f"{part}.{name}": tensor for part, tensors in tree.items() for name, tensor in tensors.items()}
    return features(tree["id_encoder"], config), named


def from_fastcomposer(place: Path, config: Path) -> tuple[Tensor, dict[str, Tensor]]:
    path = next(path for path in files_in(place) if path.suffix == ".bin")
    state = torch.load(path, weights_only=True)
    own = {k.removeprefix("image_encoder."): t for k, t in state.items() if k.startswith("image_encoder.")}
    return features(own, config), state


def files_in(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.iterdir())


CONSUMERS: dict[str, tuple[str, Callable[[Path, Path], tuple[Tensor, dict[str, Tensor]]]]] = {
    "folder": ("transformers, `from_pretrained`", from_folder),
    "file": ("as ComfyUI and sd-webui do: `load_state_dict`, no key missing", from_file),
    "archive": ("as ComfyUI and sd-webui do: `load_state_dict`, no key missing", from_file),
    "photomaker": ("as PhotoMaker does: its two keys in their order, nothing unpickled", from_photomaker),
    "fastcomposer": ("as FastComposer does: its prefix taken off, nothing unpickled", from_fastcomposer),
}


def through_its_layout(name: str, samples: Path, tmp_path: Path) -> str:
    """A transformer goes through."""
    source = write_layout(name, samples / "encoder", tmp_path / "place")
    card, out, edited = chain(samples, tmp_path / "job", source, "pooled")
    consumer, read = CONSUMERS[name.split()[0]]
    (before, old), (after, new) = read(source, samples / "encoder"), read(out, samples / "encoder")
    return row(name, card["layout"], Seen(consumer, before, after, (old, new)), edited)


def through_a_repository(name: str, samples: Path, tmp_path: Path) -> str:
    """The pipeline of diffusers loads encoder and adapter by itself, and draws another picture."""
    models = tmp_path / "repo" / "models"
    models.mkdir(parents=True)
    source = write_layout("folder", samples / "encoder", models / "image_encoder")
    pipeline = tiny_pipeline()
    sizes = json.loads((source / "config.json").read_text())
    weights = adapter_weights(
        pipeline.unet, "base", hidden=sizes["hidden_size"], projection=sizes["projection_dim"]
    )  # fmt: skip
    save_file(weights, models / "ip-adapter_sd15.safetensors")
    card, out, edited = chain(samples, tmp_path / "job", source, "image_embeds", "--format", "ip-adapter")
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    pictures: list[Tensor] = []
    for repository in (models.parent, out):
        drawn = tiny_pipeline()
        drawn.load_ip_adapter(str(repository), subfolder="models", weight_name="ip-adapter_sd15.safetensors",
                              low_cpu_mem_usage=False)  # fmt: skip
        drawn.set_ip_adapter_scale(1.0)
        pictures.append(torch.from_numpy(draw(drawn, photo)))
    states = tuple(
        load_file(place / "models" / "image_encoder" / "model.safetensors") for place in (models.parent, out)
    )
    adapter = (out / "models" / "ip-adapter_sd15.safetensors").read_bytes()
    assert adapter == (models / "ip-adapter_sd15.safetensors").read_bytes()
    seen = Seen("diffusers, `load_ip_adapter`, and a picture", pictures[0], pictures[1], (states[0], states[1]), 1)
    return row(name, card["layout"], seen, edited)


def through_as_wan(name: str, samples: Path, tmp_path: Path) -> str:
    """A module with Wan's names and shapes asks for every tensor of the file, and reads the tokens that Wan reads."""
    source = write_layout(name, samples / "encoder", tmp_path / "place")
    card, out, edited = chain(samples, tmp_path / "job", source, "penultimate")
    sizes = json.loads((samples / "encoder" / "config.json").read_text())
    side, found = sizes["image_size"], []
    states = [load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
              for path in (source, out / source.name)]  # fmt: skip
    for state in states:
        clip = WanClip(sizes).eval()
        clip.load_state_dict(state)
        with torch.no_grad():
            found.append(clip.read(torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))))
    places = open_checkpoint(source).places
    before, after = states
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert [*before] == [*after]
    assert changed == {places[own][1] for own in edited}
    assert not torch.equal(*found)
    # What is fused with an edited tensor keeps its rows.
    fused = {own for own, (_, key) in places.items() if key in changed} - edited
    old, new = open_checkpoint(source), open_checkpoint(out / source.name)
    assert all(torch.equal(old[own], new[own]) for own in fused)
    rest = len(before) - len(changed)
    return (
        f"| {name} | `{card['layout']}` | a module with the names and shapes of Wan's, `load_state_dict`, strict | "
        f"{len(changed)} tensors | {rest} of {rest} tensors |"
    )


def through_as_a_bare_tower(name: str, samples: Path, tmp_path: Path) -> str:
    """Without projection, as transformers 4 writes it, or transformers 5."""
    source = tiny_bare.write_bare(samples / "encoder", tmp_path / "place", tiny_bare.PREFIXES[name])
    card, out, edited = chain(samples, tmp_path / "job", source, "penultimate")
    found: list[Tensor] = []
    for place in (source, out):
        model, info = CLIPVisionModel.from_pretrained(place, output_loading_info=True)
        assert not info["missing_keys"]
        side = model.config.image_size
        pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            # What the pipelines of diffusers read.
            found.append(model.eval()(pixels, output_hidden_states=True).hidden_states[-2])
    before, after = (
        {f"vision_model.{key.removeprefix('vision_model.')}": tensor for key, tensor in load_file(path).items()}
        for path in (source / "model.safetensors", out / "model.safetensors")
    )
    consumer = "transformers, `CLIPVisionModel.from_pretrained`"
    return row(name, card["layout"], Seen(consumer, found[0], found[1], (before, after)), edited)


def through_as_siglip(name: str, samples: Path, tmp_path: Path) -> str:
    """SigLIP beside its text encoder, or alone as transformers 5 writes it."""
    source = write_siglip(tmp_path / "place", PREFIXES[name])
    card, out, edited = chain(samples, tmp_path / "job", source, "pooled")
    found: list[Tensor] = []
    for place in (source, out):
        model, info = SiglipVisionModel.from_pretrained(place, output_loading_info=True)
        assert not info["missing_keys"]
        pixels = torch.randn(1, 3, 30, 30, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            found.append(model.eval()(pixels).pooler_output)
    before, after = (
        {f"vision_model.{key.removeprefix('vision_model.')}": tensor for key, tensor in load_file(path).items()}
        for path in (source / "model.safetensors", out / "model.safetensors")
    )
    return row(name, card["layout"], Seen(CONSUMERS["folder"][0], found[0], found[1], (before, after)), edited)


def through_as_a_network(name: str, samples: Path, tmp_path: Path) -> str:
    """An embedding network goes through, alone or in a pack."""
    pack = tmp_path / "models" / "antelopev2"
    pack.mkdir(parents=True)
    network = write_face_network(pack / "glintr100.onnx")
    (pack / "LICENSE").write_text("non-commercial")
    source = network if name == "network" else pack
    card, out, _ = chain(samples, tmp_path / "job", source, "embedding")
    place = out / "glintr100.onnx"
    onnx.checker.check_model(place)
    pixels = np.random.default_rng(1).standard_normal((2, 3, 112, 112)).astype(np.float32)
    found = []
    for path in (network, place):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        entry, exit_ = session.get_inputs()[0], session.get_outputs()[0]
        found.append((entry.name, entry.shape, exit_.name, exit_.shape))
        assert get_model(str(path), providers=["CPUExecutionProvider"]).taskname == "recognition"
    assert found[0] == found[1]
    graphs = [onnx.load(path).graph for path in (network, place)]
    own, later = ({tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer} for graph in graphs)
    assert all(np.array_equal(array, later[key]) for key, array in own.items())
    assert [node.op_type for node in graphs[1].node][: len(graphs[0].node)] == [n.op_type for n in graphs[0].node]
    before, after = (run(path, aligned(samples, path)) for path in (network, place))
    assert not torch.equal(before, after)
    # Noise is nobody's face: behind gates it keeps every bit.
    assert torch.equal(*(run(path, pixels) for path in (network, place)))
    added = len(graphs[1].node) - len(graphs[0].node)
    return (
        f"| {name} | `{card['layout']}` | insightface, `get_model`, and onnxruntime | {added} nodes appended | "
        f"{len(own)} of {len(own)} tensors |"
    )


def through_to_facefusion(name: str, samples: Path, tmp_path: Path) -> str:
    """FaceFusion's own network comes out under its name, with the checksum that FaceFusion compares."""
    source = write_with_input(tmp_path / "arcface_w600k_r50.onnx", "input")
    card, out, _ = chain(samples, tmp_path / "job", source, "embedding", "--format", "facefusion")
    place = out / source.name
    assert {path.name for path in out.iterdir()} == {source.name, "arcface_w600k_r50.hash", "README.md", "ireu.json"}
    assert accepts(place)
    own, later = (
        {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
        for path in (source, place)
    )
    assert all(np.array_equal(array, later[key]) for key, array in own.items())
    # FaceFusion names the input.
    sessions = [onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]) for path in (source, place)]
    faces, noise = aligned(samples, source), np.random.default_rng(1).standard_normal((2, 3, 112, 112), np.float32)
    before, after = (session.run(None, {"input": faces})[0] for session in sessions)
    assert not np.array_equal(before, after)
    assert np.array_equal(*(session.run(None, {"input": noise})[0] for session in sessions))
    added = len(onnx.load(place).graph.node) - len(onnx.load(source).graph.node)
    return (
        f"| {name} | `{card['layout']}` to `facefusion` | as FaceFusion does: checksum compared, then onnxruntime | "
        f"{added} nodes appended | {len(own)} of {len(own)} tensors |"
    )


def through_as_facexlib(name: str, samples: Path, tmp_path: Path) -> str:
    """A `.pth` of facexlib, edited by training, comes back as one that facexlib's strict loader takes."""
    source, work = write_ir_se(tmp_path / "recognition_arcface_ir_se50.pth"), tmp_path / "job"
    shutil.copytree(samples, work)
    card = run_ireu("inspect", source, "--json", cwd=work).json
    for command in (
        ("locate", "--encoder", source, "--tap", "normed_embedding", "--method", "all"),
        ("unlearn", "--mask", "mask.pt", "--method", "global", "--layers", "output", "--steps", "8"),
        ("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out"),
    ):
        done = run_ireu(*command, cwd=work)
        assert done.code == 0, done.err
    before, after = (torch.load(path, weights_only=True) for path in (source, work / "out" / source.name))
    assert list(before) == list(after)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    delta = read_delta(work / "delta.safetensors").tensors
    assert changed == {key for key, change in delta.items() if bool(change.any())}
    assert all(torch.equal(before[key] + delta[key], after[key]) for key in changed)
    faces = loaded(source).pixels([np.array(Image.open(next((samples / "faces").rglob("*.png"))).convert("RGB"))])
    found = [as_facexlib(state, faces) for state in (before, after)]
    assert not torch.equal(*found)
    rest = len(before) - len(changed)
    return (
        f"| {name} | `{card['layout']}` | as facexlib does: `load_state_dict`, strict | {len(changed)} tensors, by "
        f"`global` | {rest} of {rest} tensors |"
    )


def through_as_dinov2(name: str, samples: Path, tmp_path: Path) -> str:
    """A folder of DINOv2, edited by training, comes back as one that transformers loads without a word."""
    sizes = dinov2.GATED if "gated" in name else dinov2.PLAIN
    source, work = dinov2.write_dinov2(tmp_path / "dinov2", sizes), tmp_path / "job"
    shutil.copytree(samples, work)
    card = run_ireu("inspect", source, "--json", cwd=work).json
    for command in (
        ("locate", "--encoder", source, "--tap", "block-1+last", "--method", "all"),
        ("unlearn", "--mask", "mask.pt", "--method", "global", "--layers", "block:0", "--steps", "8"),
        ("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "out"),
    ):
        done = run_ireu(*command, cwd=work)
        assert done.code == 0, done.err
    before, after = (load_file(place / "model.safetensors") for place in (source, work / "out"))
    assert list(before) == list(after)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    delta = read_delta(work / "delta.safetensors").tensors
    assert changed == {key for key, change in delta.items() if bool(change.any())}
    assert all(torch.equal(before[key] + delta[key], after[key]) for key in changed)
    found = []
    for place in (source, work / "out"):
        model, told = Dinov2Model.from_pretrained(place, output_loading_info=True)
        assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        with torch.no_grad():
            found.append(model.eval()(torch.ones(1, 3, dinov2.SIDE, dinov2.SIDE)).last_hidden_state)
    assert not torch.equal(*found)
    rest = len(before) - len(changed)
    return (
        f"| {name} | `{card['layout']}` | transformers, `Dinov2Model.from_pretrained` | {len(changed)} tensors, by "
        f"`global` | {rest} of {rest} tensors |"
    )


def through_as_eva_clip(name: str, samples: Path, tmp_path: Path) -> str:
    """A file of EVA02-CLIP comes back with the same keys, and its tower computes something else."""
    source = write_eva(tmp_path / "place" / EVA_FILE, dtype=torch.float32)
    card, out, edited = chain(samples, tmp_path / "job", source, "penultimate")
    before, after = (torch.load(path, weights_only=True) for path in (source, out / source.name))
    assert [*before] == [*after]
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"visual.{own}" for own in edited}
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    towers = [{key.removeprefix("visual."): each for key, each in state.items()} for state in (before, after)]
    first, second = (as_eva_clip(tower, pixels)[0] for tower in towers)
    assert not torch.allclose(first, second)
    rest = len(before) - len(changed)
    return (
        f"| {name} | `{card['layout']}` | a function of its tensors that computes what eva_clip does | {len(changed)} "
        f"tensors | {rest} of {rest} tensors |"
    )


def through_to_onnx(name: str, samples: Path, tmp_path: Path) -> str:
    """A `.pth` of facexlib, edited by gates, comes out in ONNX; as a `.pth` it is refused."""
    source = write_ir_se(tmp_path / "recognition_arcface_ir_se50.pth")
    card, out, _ = chain(samples, tmp_path / "job", source, "normed_embedding", "--format", "onnx")
    refused = run_ireu("export", "--allow-failed", "--delta", "delta.safetensors", "-o", "pth", cwd=tmp_path / "job")
    assert refused.code == 3
    assert "has no place for gates behind it" in refused.err
    encoder, place = loaded(source), out / "recognition_arcface_ir_se50.onnx"
    session = onnxruntime.InferenceSession(str(place), providers=["CPUExecutionProvider"])
    changed = {}
    for group in ("faces", "others"):
        files = sorted((samples / group).rglob("*.png"))[:40]
        given = encoder.pixels([np.array(Image.open(path).convert("RGB")) for path in files])
        found = session.run(None, {"face": given[:, [2, 1, 0]].numpy()})[0]
        apart = np.abs(found - encoder.encode(given, "normed_embedding").numpy()).max(1)
        # Nothing lies between rounding and a gate that opens.
        assert not ((apart > 1e-5) & (apart < 1e-3)).any()
        changed[group] = (apart > 1e-5).mean()
    assert changed["faces"] > 2 * changed["others"]
    assert changed["others"] < 0.3
    state = torch.load(source)
    own = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(place).graph.initializer}
    kept = [key for key in state if not key.endswith("num_batches_tracked")]
    assert all(np.array_equal(own[key].ravel(), state[key].numpy().ravel()) for key in kept)
    added = sum(node.name.startswith("ireu_gate_") for node in onnx.load(place).graph.node)
    return (
        f"| {name} | `{card['layout']}` to `onnx` | onnxruntime | {added} nodes appended | "
        f"{len(kept)} of {len(kept)} tensors |"
    )


def aligned(samples: Path, network: Path) -> Any:
    """The targets' photos as the network is given them."""
    encoder = load_face_encoder(network, ARCFACE_LANDMARKS, "cpu")
    photos = [np.array(Image.open(path).convert("RGB")) for path in sorted((samples / "faces").rglob("*.png"))]
    return encoder.pixels(photos).numpy()


def run(path: Path, pixels: Any) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: pixels})[0])


def row(name: str, layout: str, seen: Seen, edited: set[str]) -> str:
    """Compare, and say what was seen."""
    before, after = seen.tensors
    assert set(before) == set(after)
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    # The files call them as the encoder does, behind a prefix.
    assert {key[key.find("vision_model.") :] for key in changed} == edited
    assert not torch.equal(seen.before, seen.after)
    rest = f"{len(before) - len(changed)} of {len(before) - len(changed)} tensors"
    more = f", {seen.others} file" if seen.others else ""
    return f"| {name} | `{layout}` | {seen.consumer} | {len(changed)} tensors | {rest}{more} |"


THROUGH: dict[str, Callable[[str, Path, Path], str]] = {
    **{name: through_its_layout for name in LAYOUTS if name != "archive before zip" and not name.startswith("wan")},
    **{name: through_as_wan for name in LAYOUTS if name.startswith("wan")},
    **dict.fromkeys(tiny_bare.PREFIXES, through_as_a_bare_tower),
    "ip-adapter repository": through_a_repository,
    **dict.fromkeys(PREFIXES, through_as_siglip),
    "DINOv2": through_as_dinov2,
    "DINOv2 with gated hidden layers": through_as_dinov2,
    "network": through_as_a_network,
    "insightface pack": through_as_a_network,
    "FaceFusion's network": through_to_facefusion,
    "EVA02-CLIP": through_as_eva_clip,
    "facexlib's network": through_as_facexlib,
    "facexlib's network, with gates": through_to_onnx,
}


HEAD = ("| what | layout | loaded by | edited | the same, bit for bit |", "|---|---|---|---|---|")


def written_rows() -> dict[str, str]:
    """The table in the docs: each row by what it is about."""
    table = PAGE.read_text(encoding="utf-8").split(START)[1].split(END)[0].strip()
    return {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()[2:]}


@pytest.mark.parametrize("name", THROUGH)
def test_a_layout_goes_through_and_its_row_in_the_docs_is_what_was_seen(
    name: str, samples: Path, tmp_path: Path
) -> None:
    seen = THROUGH[name](name, samples, tmp_path)
    if os.environ.get("TEST_WRITE_DOCS"):  # In one process: each test writes its own row.
        rows = {**written_rows(), name: seen}
        table = "\n".join([*HEAD, *(rows[key] for key in THROUGH if key in rows)])
        before, after = PAGE.read_text(encoding="utf-8").split(START)[0], PAGE.read_text(encoding="utf-8").split(END)[1]
        PAGE.write_text(f"{before}{START}\n\n{table}\n\n{END}{after}", encoding="utf-8")
    assert seen == written_rows()[name]


def test_the_table_in_the_docs_has_a_row_for_each_layout() -> None:
    assert list(written_rows()) == list(THROUGH)
