"""Put the trained models together: ``assemble.py --out DIR --to FOLDER``, in the layout that the package reads.

Weights are stored in half precision, except those of ONNX files.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from captions import BASES
from card import card
from diffusers import AutoencoderTiny
from faces import SIDE, write_atomically
from generator import build_scheduler
from safetensors.torch import load_file, save_file
from train_generator import GUIDANCE, STEPS
from transformers import CLIPTextModel, CLIPVisionModelWithProjection

from ireu_cli.maths.edits import EDITS

# Medians over the photos of `train`, in their own frame: eyes, nose, mouth corners.
LANDMARKS = (59.3, 67.8, 102.3, 67.1, 80.7, 92.6, 62.0, 114.3, 100.4, 113.3)
TAPS = {"a": "image_embeds", "b": "penultimate", "c": "normed_embedding"}


def halve(source: Path, target: Path) -> None:
    """Copy a safetensors file in half precision; batch statistics stay as they are."""
    held = load_file(source)
    wide = ("running_mean", "running_var")
    half = {n: x.half() if x.is_floating_point() and not n.endswith(wide) else x for n, x in held.items()}
    target.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: x.contiguous() for name, x in half.items()}, target)


def copy_network(source: Path, target: Path) -> None:
    """The recogniser or the face check: weights and sizes."""
    halve(source / "model.safetensors", target / "model.safetensors")
    shutil.copyfile(source / "config.json", target / "config.json")


def generator_entry(name: str, unet: str) -> dict[str, Any]:
    """A generator as ``portrait.json`` lists it."""
    return {
        "name": name.upper(),
        "tap": TAPS[name],
        "unet": f"{unet}/unet",
        "adapter": f"{name}/ip_adapter.safetensors",
        "steps": STEPS,
        "guidance": GUIDANCE,
        "scale": 1.0,
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--to", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--image-encoder", type=Path, required=True, help="exported folder")
    parser.add_argument("--face-encoder", type=Path, help="exported file")
    parser.add_argument("--generators", default="abc", help="which of them are trained")
    for name, run in (("a", "a"), ("b", "b"), ("c", "c"), ("vae", "vae")):
        parser.add_argument(f"--{name}", default=run, help=f"folder of the run under --out (default {run})")
    parser.add_argument("--recogniser", default="recogniser")
    parser.add_argument("--face-check", default="face_check")
    parser.add_argument("--evaluation", type=Path, help="what evaluate.py wrote")
    args = parser.parse_args()
    to: Path = args.to
    to.mkdir(parents=True, exist_ok=True)
    encoder = CLIPVisionModelWithProjection.from_pretrained(args.image_encoder, dtype=torch.float16)
    encoder.save_pretrained(to / "image_encoder")
    shutil.copyfile(args.image_encoder / "preprocessor_config.json", to / "image_encoder" / "preprocessor_config.json")
    AutoencoderTiny.from_pretrained(args.out / args.vae / "vae").half().save_pretrained(to / "vae")
    text = CLIPTextModel.from_pretrained(args.out / "text" / "text_encoder", dtype=torch.float16)
    text.save_pretrained(to / "text_encoder")
    shutil.copytree(args.out / "text" / "tokenizer", to / "tokenizer", dirs_exist_ok=True)
    build_scheduler().save_pretrained(to / "scheduler")
    copy_network(args.out / args.recogniser / "recogniser", to / "recogniser")
    copy_network(args.out / args.face_check / "face_check", to / "face_check")
    for name in args.generators:
        run = args.out / getattr(args, name)
        if name != "c":
            shutil.copytree(run / "unet", to / name / "unet", dirs_exist_ok=True)
        (to / name).mkdir(exist_ok=True)
        shutil.copyfile(run / "ip_adapter.safetensors", to / name / "ip_adapter.safetensors")
    if args.face_encoder is not None:
        shutil.copyfile(args.face_encoder, to / "face_encoder.onnx")
    people = {"people": "people"} if (to / "people").is_dir() else {}
    index = people | {
        "schema_version": 1,
        "image_encoder": "image_encoder",
        "recogniser": "recogniser",
        "face_check": "face_check",
        "landmarks": [round(x / SIDE, 4) for x in LANDMARKS],
        "generators": [generator_entry(name, "a" if name == "c" else name) for name in args.generators],
        "prompt": BASES[0],
        "edits": EDITS,
    }
    runs = {"vae": args.vae, "a": args.a, "b": args.b, "c": args.c}
    runs |= {
        "recogniser": args.recogniser,
        "face_check": args.face_check,
        "image_encoder": args.image_encoder.parent.name,
    }
    for name, run in runs.items():
        if (args.out / run / "curve.jsonl").exists():
            (to / "curves").mkdir(exist_ok=True)
            shutil.copyfile(args.out / run / "curve.jsonl", to / "curves" / f"{name}.jsonl")
    write_atomically(to / "README.md", card(args.out, runs, args.evaluation, args.generators))
    write_atomically(to / "portrait.json", json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
