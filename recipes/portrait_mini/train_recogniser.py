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
import onnxruntime
import torch
from faces import Photos, data_folder, load_photos, split_validation
from muon import optimisers
from runs import identity_figures, identity_losses, train, training_arguments
from safetensors.torch import save_file
from torch.nn import functional
from views import ALIGNED, SHARD, Sampler, aligned_frame, plain, render

from ireu_cli.models.face_net import FaceNet

WIDTHS, BLOCKS, TAIL = (24, 40, 80, 160), (1, 2, 2, 1), 24
SEED = 11


class Taught:
    """The teacher's unit vectors (n, d) of photos; a mirrored photo shows the same person."""

    def __init__(self, file: Path, photos: Photos, cache: Path, threads: int) -> None:
        if not cache.exists():
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(file.read_bytes(), options, ["CPUExecutionProvider"])
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
    """The teacher's vector of the unchanged photo from any view of it, and a contrast against other people."""

    def __init__(self, photos: Photos, taught: Taught, held_out: Photos, batch: int, bf16: bool) -> None:
        self.photos, self.taught, self.held_out, self.batch, self.bf16 = photos, taught, held_out, batch, bf16
        allowed, self.validation = split_validation(photos.person)
        self.sampler = Sampler(photos.person, allowed, SEED)
        self.weights = {"cosine": 1.0, "contrast": 0.3}
        self.shard = -1

    def losses(self, net: FaceNet, step: int) -> dict[str, torch.Tensor]:
        """Views as the encoders see them, but never blended."""
        number, row = divmod(step * self.batch, SHARD)
        if number != self.shard:
            self.shard, self.views = number, self.sampler.shard(number)
        views = self.views[row : row + self.batch]
        views.other.copy_(views.photo)
        faces = render(self.photos, views, aligned_frame(), ALIGNED).mul_(2).sub_(1)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            found = net(faces.contiguous(memory_format=torch.channels_last))
        person = self.photos.person[views.photo]
        cosine, contrast = identity_losses(found, self.taught.vectors[views.photo], person)
        return {"cosine": cosine, "contrast": contrast}

    @torch.no_grad()
    def measure(self, net: FaceNet) -> dict[str, Any]:
        """Pairwise figures on both groups of people who are not trained on."""
        figures = {}
        everybody = torch.arange(len(self.held_out.person))
        for group, photos, index in (("validation", self.photos, self.validation), ("eval", self.held_out, everybody)):
            parts = []
            for chunk in torch.split(index, 128):
                faces = plain(photos, chunk, aligned_frame(), ALIGNED).mul_(2).sub_(1)
                with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                    parts.append(net(faces.contiguous(memory_format=torch.channels_last)).float())
            figures[group] = identity_figures(torch.cat(parts), photos.person[index])
        return figures

    def export(self, net: FaceNet, folder: Path) -> None:
        """``recogniser/``."""
        out = folder / "recogniser"
        out.mkdir(exist_ok=True)
        save_file({name: x.contiguous() for name, x in net.state_dict().items()}, out / "model.safetensors")
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
    photos, held_out = load_photos(data, "train", cache), load_photos(data, "eval", cache)
    teacher = data / "models" / "recogniser_b.onnx"
    taught = Taught(teacher, photos, cache / "taught_b.npy", args.threads)
    net = FaceNet(WIDTHS, BLOCKS, TAIL, taught.vectors.shape[1])
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    recipe = RecogniserRecipe(photos, taught, held_out, args.batch, args.precision == "bf16")
    facts = {
        "data_sha256": {"train": photos.digest, "eval": held_out.digest},
        "teacher_sha256": hashlib.sha256(teacher.read_bytes()).hexdigest(),
    }
    train(args, facts, net, optimisers(net, args.rate, 0.05), recipe)


if __name__ == "__main__":
    main()
