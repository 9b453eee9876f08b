"""Put the trained models together: ``assemble.py --out DIR --to FOLDER``, in the layout that the package reads.

Parts whose runs lie under ``--out`` are written, others stay as the folder has them. Weights are stored in half
precision, except the last layer of the face encoder.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from captions import BASES
from card import card
from conditions import depth_blocks
from diffusers import AutoencoderTiny
from faces import SIDE, write_atomically
from generator import build_scheduler
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from train_generator import GUIDANCE, STEPS
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from ireu_cli.maths.images.edits import EDITS

# Medians over the photos of `train`, in their own frame: eyes, nose, mouth corners.
LANDMARKS = (59.3, 67.8, 102.3, 67.1, 80.7, 92.6, 62.0, 114.3, 100.4, 113.3)
TAPS = {"a": "image_embeds", "b": "penultimate", "c": "normed_embedding"}  # that of d depends on the encoder's depth


def halve(source: Path, target: Path) -> None:
    """Copy a safetensors file in half precision; batch statistics stay as they are."""
    held = load_file(source)
    wide = ("running_mean", "running_var")
    half = {n: x.half() if x.is_floating_point() and not n.endswith(wide) else x for n, x in held.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: x.contiguous() for name, x in half.items()}, target)


def halve_convolutions(source: Path, target: Path) -> None:
    """Copy an ONNX file; convolutions are stored in half precision and cast as they are read.

    The last layer stays as it is: it is where a face encoder can be edited.
    """
    model = onnx.load(source)
    graph = model.graph
    casts = []
    for weight in graph.initializer:
        if len(weight.dims) == 4:
            full, half = weight.name, f"{weight.name}_half"
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), half))
            casts.append(helper.make_node("Cast", [half], [full], f"Cast_{full}", to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)


def copy_network(source: Path, target: Path) -> None:
    """The recogniser or the face check: weights and sizes."""
    halve(source / "model.safetensors", target / "model.safetensors")
    shutil.copyfile(source / "config.json", target / "config.json")


def deep_tap(blocks: int) -> str:
    """What generator D reads: the inputs of five blocks, and the pooled vector."""
    return "+".join([*(f"block-{block}" for block in depth_blocks(blocks)), "pooled"])


def generator_entry(name: str, tap: str, unet: str) -> dict[str, Any]:
    """A generator as ``portrait.json`` lists it."""
    return {
        "name": name.upper(),
        "tap": tap,
        "unet": f"{unet}/unet",
        "adapter": f"{name}/ip_adapter.safetensors",
        "steps": STEPS,
        "guidance": GUIDANCE,
        "scale": 1.0,
    }


def write_image_encoder(run: Path, to: Path) -> None:
    """An exported ``CLIPVisionModelWithProjection`` with its preprocessing."""
    encoder = CLIPVisionModelWithProjection.from_pretrained(run / "export", dtype=torch.float16)
    encoder.save_pretrained(to / "image_encoder")
    preprocessing = "preprocessor_config.json"
    shutil.copyfile(run / "export" / preprocessing, to / "image_encoder" / preprocessing)


def write_vae(run: Path, to: Path) -> None:
    """An ``AutoencoderTiny``."""
    AutoencoderTiny.from_pretrained(run / "vae").half().save_pretrained(to / "vae")
    _forget_place(to / "vae" / "config.json")


def _forget_place(config: Path) -> None:
    """Diffusers notes the folder that a model was read from, which is nobody's business."""
    held = json.loads(config.read_text())
    held.pop("_name_or_path", None)
    write_atomically(config, json.dumps(held, indent=2) + "\n")


def write_text(run: Path, to: Path) -> None:
    """The text encoder, its tokenizer, and the scheduler that every generator shares."""
    CLIPTextModel.from_pretrained(run / "text_encoder", dtype=torch.float16).save_pretrained(to / "text_encoder")
    shutil.copytree(run / "tokenizer", to / "tokenizer", dirs_exist_ok=True)
    build_scheduler().save_pretrained(to / "scheduler")


def write_generator(run: Path, to: Path) -> None:
    """A UNet, where the run has one of its own, and its adapter."""
    if json.loads((run / "run.json").read_text())["settings"]["kind"] != "faceid":
        shutil.copytree(run / "unet", to / run.name / "unet", dirs_exist_ok=True)
    (to / run.name).mkdir(exist_ok=True)
    shutil.copyfile(run / "ip_adapter.safetensors", to / run.name / "ip_adapter.safetensors")


PARTS: dict[str, Callable[[Path, Path], Any]] = {
    "image_encoder": write_image_encoder,
    "face_encoder": lambda run, to: halve_convolutions(run / "face_encoder.onnx", to / "face_encoder.onnx"),
    "vae": write_vae,
    "decoder": write_vae,  # the same autoencoder, later
    "text": write_text,
    "a": write_generator,
    "b": write_generator,
    "c": write_generator,
    "d": write_generator,
    "recogniser": lambda run, to: copy_network(run / "recogniser", to / "recogniser"),
    "face_check": lambda run, to: copy_network(run / "face_check", to / "face_check"),
}


def keep_curve(run: Path, to: Path) -> None:
    """What the card says about a run, and its curve; a run that went on from the bundle's keeps what that one said."""
    curves = to / "curves"
    curves.mkdir(exist_ok=True)
    told = json.loads((run / "run.json").read_text())
    settings = told.get("settings", {})
    facts = {
        "seed": settings.get("seed", 0),
        "steps": told.get("step", told.get("steps")),
        "batch": settings.get("batch"),
        "hours": told.get("hours"),
        "data_sha256": told.get("data_sha256", {}),
    }
    if settings.get("start") or settings.get("keep"):
        facts["earlier"] = _earlier(curves / f"{run.name}.json", facts["seed"])
    write_atomically(curves / f"{run.name}.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")
    if (run / "curve.jsonl").exists():
        shutil.copyfile(run / "curve.jsonl", curves / f"{run.name}.jsonl")


def _earlier(file: Path, seed: int) -> list[dict[str, Any]]:
    """The runs before this one, oldest first; another assembly of the same run (its seed tells) adds nothing."""
    if not file.exists():
        return []
    held = json.loads(file.read_text())
    before: list[dict[str, Any]] = held.pop("earlier", [])
    return before if held["seed"] == seed else [*before, {k: held.get(k) for k in ("seed", "steps", "batch", "hours")}]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--to", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--parts", nargs="*", choices=list(PARTS), help="write these (default: all that --out holds)")
    parser.add_argument("--evaluation", type=Path, help="what evaluate.py wrote")
    args = parser.parse_args()
    to: Path = args.to
    to.mkdir(parents=True, exist_ok=True)
    # A folder without run.json was copied from a bundle for other runs to read: it is no run.
    wanted = [name for name in PARTS if (args.out / name / "run.json").is_file()] if args.parts is None else args.parts
    for name in wanted:
        PARTS[name](args.out / name, to)
        keep_curve(args.out / name, to)
    if args.evaluation is not None:
        shutil.copyfile(args.evaluation, to / "curves" / "evaluation.json")
    blocks = json.loads((to / "image_encoder" / "config.json").read_text())["num_hidden_layers"]
    taps = TAPS | {"d": deep_tap(blocks)}
    generators = [name for name in taps if (to / name / "ip_adapter.safetensors").exists()]
    people = {"people": "people"} if (to / "people").is_dir() else {}
    index = people | {
        "schema_version": 1,
        "image_encoder": "image_encoder",
        "recogniser": "recogniser",
        "face_encoder": "face_encoder.onnx",
        "face_check": "face_check",
        "landmarks": [round(x / SIDE, 4) for x in LANDMARKS],
        "generators": [generator_entry(name, taps[name], "a" if name == "c" else name) for name in generators],
        "prompt": BASES[0],
        "edits": EDITS,
    }
    write_atomically(to / "README.md", card(to))
    write_atomically(to / "portrait.json", json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
