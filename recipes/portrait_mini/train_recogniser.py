"""Train the small recogniser: ``train_recogniser.py --data DIR --out DIR``. Started again, it goes on.

Its teacher is another network than the one that taught the encoders, asked about unchanged photos only; the views, the
network's size and the seed differ too. Shared with the encoders are the photos, and the form of the network with the
face encoder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from changes import ALIGNED_FACE, change, places, strength
from face_encoder import SLOPE, activations
from faces import Photos, data_folder, load_photos, split_validation
from muon import optimisers
from runs import (
    VALIDATION_SHOWN,
    few_each,
    identity_losses,
    shown,
    step_generator,
    train,
    training_arguments,
    verification,
)
from safetensors.torch import save_file
from teacher import open_network
from torch.nn import functional
from views import ALIGNED, SHARD, Sampler, aligned_frame, plain, render, spots

from ireu_cli.judges.face_net import FaceNet

WIDTHS, BLOCKS, TAIL = (24, 40, 80, 160), (1, 2, 2, 1), 24
SEED = 11


class Taught:
    """The teacher's unit vectors (n, d) of photos; a mirrored photo shows the same person."""

    def __init__(self, file: Path, photos: Photos, cache: Path, threads: int) -> None:
        if not cache.exists():
            session = open_network(file.read_bytes(), threads)
            name = session.get_inputs()[0].name
            rows = []
            for index in torch.split(torch.arange(len(photos.person)), 64):
                faces = plain(photos, index, aligned_frame(), ALIGNED).mul(255).sub(127.5).div(128)
                rows.append(session.run(None, {name: faces.numpy()})[0].reshape(len(index), -1))
            part = cache.with_name(f"{cache.stem}.part.npy")
            np.save(part, np.concatenate(rows).astype(np.float16))
            part.replace(cache)
        self.vectors = functional.normalize(torch.from_numpy(np.load(cache)).float(), dim=1)


class RecogniserRecipe:
    """The teacher's vector of the unchanged photo from what is left of it, and a contrast against other people."""

    def __init__(self, photos: Photos, taught: Taught, batch: int, bf16: bool) -> None:
        self.photos, self.taught, self.batch, self.bf16 = photos, taught, batch, bf16
        allowed, validation = split_validation(photos.person)
        self.validation = few_each(photos.person, validation, VALIDATION_SHOWN)
        self.sampler = Sampler(photos.person, allowed, SEED)
        self.weights = {"cosine": 1.0, "contrast": 0.3}
        self.shard = -1

    def losses(self, net: FaceNet, step: int) -> dict[str, torch.Tensor]:
        """Faces as the encoders see them, but never blended."""
        number, row = divmod(step * self.batch, SHARD)
        if number != self.shard:
            self.shard, self.views = number, self.sampler.shard(number)
        views = self.views[slice(row, row + self.batch)]
        views.other.copy_(views.photo)
        g = step_generator(SEED, step)
        far = strength(step * self.batch)
        where = spots(aligned_frame(), places(self.batch, ALIGNED_FACE, g, far), self.batch, ALIGNED)
        faces = change(render(self.photos, views, where), where, views.flip, g, far)
        cosine, contrast = identity_losses(
            self._embed(net, faces), self.taught.vectors[views.photo], self.photos.person[views.photo]
        )
        return {"cosine": cosine, "contrast": contrast}

    def _embed(self, net: FaceNet, faces: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            found: torch.Tensor = net(faces.mul_(2).sub_(1).contiguous(memory_format=torch.channels_last))
        return found

    @torch.no_grad()
    def measure(self, net: FaceNet) -> dict[str, Any]:
        """Pairwise figures on the people who are not trained on, of photos as they are and changed."""
        found = []
        for reach in (None, ALIGNED_FACE):
            parts = [
                self._embed(net, shown(self.photos, chunk, aligned_frame(), ALIGNED, reach)).float()
                for chunk in torch.split(self.validation, 128)
            ]
            found.append(torch.cat(parts))
        taught = self.taught.vectors[self.validation]
        return {"identity": verification(found[0], found[1], self.photos.person[self.validation], taught)}

    def export(self, net: FaceNet, folder: Path) -> None:
        """``recogniser/``."""
        out = folder / "recogniser"
        out.mkdir(exist_ok=True)
        # It is trained with fixed slopes, which are quicker; the network that is used states them channel by channel.
        written = FaceNet(WIDTHS, BLOCKS, TAIL, net.fc.out_features)
        slopes = {name: torch.full_like(x, SLOPE) for name, x in written.state_dict().items()}
        save_file({name: x.contiguous() for name, x in (slopes | net.state_dict()).items()}, out / "model.safetensors")
        config = {
            "name": "portrait-mini",
            "widths": WIDTHS,
            "blocks": BLOCKS,
            "tail": TAIL,
            "embedding": net.fc.out_features,
        }
        (out / "config.json").write_text(json.dumps(config) + "\n")


def main() -> None:
    """The command."""
    parser = training_arguments(__doc__, "recogniser", 2e-3)
    parser.set_defaults(seed=SEED)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    data, cache = data_folder(args.data), args.out / "cache"
    photos = load_photos(data, "train", cache)
    teacher = data / "models" / "recogniser_b.onnx"
    taught = Taught(teacher, photos, cache / "taught_b.npy", args.threads)
    net = FaceNet(WIDTHS, BLOCKS, TAIL, taught.vectors.shape[1])
    activations(net, learnt=False)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = RecogniserRecipe(photos, taught, args.batch, args.precision == "bf16")
    facts = {
        "data_sha256": {"train": photos.digest},
        "teacher_sha256": hashlib.sha256(teacher.read_bytes()).hexdigest(),
    }
    train(args, facts, net, optimisers(net, args.rate, 0.05), recipe)


if __name__ == "__main__":
    main()
