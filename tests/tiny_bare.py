"""A CLIP vision transformer without projection, in the folder that transformers writes for it."""

import json
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

PREFIXES = {"CLIP without projection": "vision_model.", "CLIP without projection, of transformers 5": ""}
"""What the names of its tensors begin with."""


def write_bare(folder: Path, place: Path, prefix: str = "vision_model.") -> Path:
    """Write a folder of `CLIPVisionModel`.

    Args:
        folder: config.json and model.safetensors of a tiny `CLIPVisionModelWithProjection`.
        place: the folder to write.
        prefix: `vision_model.` as transformers 4 writes it, or nothing as transformers 5 does.
    """
    place.mkdir()
    told = json.loads((folder / "config.json").read_text()) | {"architectures": ["CLIPVisionModel"]}
    (place / "config.json").write_text(json.dumps(told))
    for beside in folder.glob("preprocessor_config.json"):
        shutil.copyfile(beside, place / beside.name)
    state = load_file(folder / "model.safetensors")
    own = {name: tensor for name, tensor in state.items() if name.startswith("vision_model.")}
    named = {f"{prefix}{name.removeprefix('vision_model.')}": tensor for name, tensor in own.items()}
    save_file(named, place / "model.safetensors", {"format": "pt"})
    return place
