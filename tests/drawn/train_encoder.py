"""Train the small encoder of the tests, on drawn people only.

    python -m tests.drawn.train_encoder --out tests/drawn/encoder

Who somebody is comes from a cosine classifier over the training people, how the photo turned out from a regression of
the circumstances; both from the pooled output. People of the tests are never among the training people (other seed).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from tests.drawn.people import CIRCUMSTANCE_SIZE, draw_photo, person_numbers, photo_numbers

SEED = 1
PEOPLE, PHOTOS, BATCH = 600, 16, 128
SIDE = 56
SETTINGS: dict[str, Any] = {
    "hidden_size": 96,
    "intermediate_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "patch_size": 8,
    "image_size": SIDE,
    "projection_dim": 96,
    "hidden_act": "gelu",
}
PREPROCESSING = {
    "image_processor_type": "CLIPImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": SIDE},
    "resample": 3,
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "do_convert_rgb": True,
}


def main() -> None:
    """Draw, train, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2500)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    photos, circumstances = draw_everybody()
    model = CLIPVisionModelWithProjection(CLIPVisionConfig(**SETTINGS))
    with torch.no_grad():
        # As in published encoders, the projection is a rotation away from the pooled output.
        nn.init.orthogonal_(model.visual_projection.weight)
    train(model, photos, circumstances, options.steps)
    options.out.mkdir(parents=True, exist_ok=True)
    save_file(
        {k: v.contiguous() for k, v in sorted(model.state_dict().items())},
        options.out / "model.safetensors",
        {"format": "pt"},
    )
    config = {
        "architectures": ["CLIPVisionModelWithProjection"],
        "model_type": "clip_vision_model",
        "dtype": "float32",
        **SETTINGS,
    }
    (options.out / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (options.out / "preprocessor_config.json").write_text(json.dumps(PREPROCESSING, indent=2, sort_keys=True) + "\n")


def draw_everybody() -> tuple[Tensor, Tensor]:
    """All photos, uint8 (people, photos, 3, 112, 112), and their circumstances, float32 (people, photos, n)."""
    images, numbers = [], []
    for number in range(PEOPLE):
        person = person_numbers(SEED, number)
        rolls = [photo_numbers(SEED, number, photo) for photo in range(PHOTOS)]
        images.append(np.stack([draw_photo(person, roll) for roll in rolls]))
        numbers.append(np.stack(rolls))
    stacked = torch.from_numpy(np.stack(images)).permute(0, 1, 4, 2, 3).contiguous()
    return stacked, torch.from_numpy(np.stack(numbers)).float()


def train(model: CLIPVisionModelWithProjection, photos: Tensor, circumstances: Tensor, steps: int) -> None:
    """Cosine classification of people plus regression of circumstances, AdamW with a linear decay."""
    centres, regress = (
        nn.Parameter(torch.randn(PEOPLE, SETTINGS["hidden_size"])),
        nn.Linear(SETTINGS["hidden_size"], CIRCUMSTANCE_SIZE),
    )
    weights = [*model.parameters(), centres, *regress.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=1.5e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, step / 100) * (1 - step / (steps + 1))
    )
    for step in range(steps):
        people, shots = torch.randint(PEOPLE, (BATCH,)), torch.randint(PHOTOS, (BATCH,))
        pixels = nn.functional.interpolate(
            photos[people, shots].float() / 127.5 - 1, SIDE, mode="bicubic", antialias=True
        )
        pooled = model.vision_model(pixels).pooler_output
        cosine = nn.functional.normalize(pooled, dim=1) @ nn.functional.normalize(centres, dim=1).T
        identity = nn.functional.cross_entropy(12 * cosine, people)
        rest = nn.functional.mse_loss(regress(pooled), circumstances[people, shots])
        loss = identity + 10 * rest
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(
                json.dumps({"step": step, "identity": round(float(identity), 3), "rest": round(float(rest), 4)}),
                flush=True,
            )


if __name__ == "__main__":
    main()
