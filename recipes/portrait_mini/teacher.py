"""The teacher: a face recogniser in ONNX, run on each shard of views once and kept for every run on the same views."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from faces import Photos
from torch.nn import functional
from views import ALIGNED, SHARD, VERSION, Sampler, Views, aligned_frame, plain, render

# The map that leaves the third stage of EdgeFace: 100 channels, 7 x 7, each place a part of the face. Teaching places
# and not only the final vector is what lets a transformer without built-in locality learn from a few thousand photos.
MAP = "/m/model/stages/stages.2/blocks/blocks.8/Add_3_output_0"
CHUNK = 64
# After so many shards (six views of each photo) the views come round again: asking the teacher is a third of the work.
SHARDS = 48


@dataclass(frozen=True)
class Lesson:
    """What the teacher says about n views."""

    identity: torch.Tensor  # (n, 512) unit vectors
    places: torch.Tensor  # (n, 100, 7, 7) map over the aligned face


class Teacher:
    """EdgeFace in onnxruntime; pixels in, identity and map out."""

    def __init__(self, file: Path, threads: int) -> None:
        model = onnx.load(file)
        model.graph.output.append(onnx.helper.make_tensor_value_info(MAP, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self.digest = hashlib.sha256(file.read_bytes()).hexdigest()
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def __call__(self, faces: torch.Tensor) -> Lesson:
        """Aligned faces (n, 3, 112, 112) in [0, 1] -> lesson."""
        identity, places = (torch.from_numpy(x) for x in self.session.run(None, {self.input: faces.mul(255).numpy()}))
        return Lesson(
            functional.normalize(identity.flatten(1), dim=1),
            functional.layer_norm(places.movedim(1, -1), [100]).movedim(-1, 1),
        )


class Bank:
    """Shards of views with the teacher's lessons, computed on the first visit.

    Two runs that reach an unknown shard together both compute it: the bytes agree and the last rename wins, so no lock.
    """

    def __init__(self, folder: Path, photos: Photos, sampler: Sampler, teacher: Teacher) -> None:
        key = hashlib.sha256(
            f"{photos.digest} {teacher.digest} {sampler.seed} {len(sampler.allowed)} {VERSION}".encode()
        ).hexdigest()[:12]
        self.folder, self.photos, self.sampler, self.teacher = folder / key, photos, sampler, teacher
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held: tuple[int, Views, Lesson] | None = None
        # Most of the map is the same for every face. Without that part the map is about this face, and worth learning.
        usual = self._shard(0)[1].places.float()
        self.mean, self.deviation = usual.mean(0), usual.std(0).clamp_min(0.01)

    def batch(self, step: int, size: int) -> tuple[Views, Lesson]:
        """Views and lesson of the batch of ``size`` that belongs to ``step``; ``size`` must divide the shard."""
        number, row = divmod(step * size % (SHARDS * SHARD), SHARD)
        if self._held is None or self._held[0] != number:
            self._held = (number, *self._shard(number))
        _, views, lesson = self._held
        rows = slice(row, row + size)
        places = (lesson.places[rows].float() - self.mean) / self.deviation
        return views[rows], Lesson(lesson.identity[rows].float(), places.clamp(-4, 4))

    def _shard(self, number: int) -> tuple[Views, Lesson]:
        views, file = self.sampler.shard(number), self.folder / f"{number:06d}.npz"
        if not file.exists():
            self._learn(views, file)
        with np.load(file) as held:
            return views, Lesson(torch.from_numpy(held["identity"]), torch.from_numpy(held["places"]))

    def _learn(self, views: Views, file: Path) -> None:
        frame = aligned_frame()
        lessons = [
            self.teacher(render(self.photos, views[i : i + CHUNK], frame, ALIGNED)) for i in range(0, SHARD, CHUNK)
        ]
        part = file.with_name(f"{file.stem}.{os.getpid()}.part.npz")
        identity = torch.cat([x.identity for x in lessons]).half().numpy()
        np.savez(part, identity=identity, places=torch.cat([x.places for x in lessons]).half().numpy())
        part.replace(file)


def teach_plain(teacher: Teacher, photos: Photos, index: torch.Tensor, cache: Path) -> torch.Tensor:
    """The teacher's unit vectors (n, 512) of photos without augmentation, kept in ``cache``."""
    if not cache.exists():
        parts = [teacher(plain(photos, i, aligned_frame(), ALIGNED)).identity for i in torch.split(index, CHUNK)]
        part = cache.with_name(f"{cache.stem}.{os.getpid()}.part.npy")
        np.save(part, torch.cat(parts).numpy())
        part.replace(cache)
    return torch.from_numpy(np.load(cache))
