"""The teachers: face recognisers in ONNX, run on each shard of faces once and kept for every run on the same faces."""

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
from views import ALIGNED, SHARD, VERSION, Sampler, Views, aligned_frame, plain, render, spots

# The map that leaves the third stage of EdgeFace: 100 channels, 7 x 7, each place a part of the face. Teaching places
# and not only the final vector is what lets a transformer without built-in locality learn from a few thousand photos.
MAP = "/m/model/stages/stages.2/blocks/blocks.8/Add_3_output_0"
CHUNK = 64
# After so many shards (seven faces of each photo) the faces come round again, changed anew for the student.
SHARDS = 48
VISITS = 4  # of a shard before the next one


@dataclass(frozen=True)
class Lesson:
    """What the teachers say about n faces."""

    identity: torch.Tensor  # (n, 512) unit vectors of the first
    second: torch.Tensor  # (n, 512) unit vectors of the second
    places: torch.Tensor  # (n, 100, 7, 7) map of the first over the aligned face


def open_network(model: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A network of so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])


class Teacher:
    """EdgeFace, with its map, and a MobileFaceNet, in onnxruntime; pixels in, lesson out."""

    def __init__(self, models: Path, threads: int) -> None:
        files = [models / "recogniser_e.onnx", models / "recogniser_a.onnx"]
        first = onnx.load(files[0])
        first.graph.output.append(onnx.helper.make_tensor_value_info(MAP, onnx.TensorProto.FLOAT, None))
        self.digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        self.first, self.second = (
            open_network(model, threads) for model in (first.SerializeToString(), files[1].read_bytes())
        )

    def __call__(self, faces: torch.Tensor) -> Lesson:
        """Aligned faces (n, 3, 112, 112) in [0, 1] -> lesson."""
        pixels = faces.mul(255)
        identity, places = (
            torch.from_numpy(x) for x in self.first.run(None, {self.first.get_inputs()[0].name: pixels.numpy()})
        )
        # This one wants blue first.
        blue_first = pixels.flip(1).sub(127).div(128).contiguous()
        (second,) = self.second.run(None, {self.second.get_inputs()[0].name: blue_first.numpy()})
        return Lesson(
            functional.normalize(identity.flatten(1), dim=1),
            functional.normalize(torch.from_numpy(second).flatten(1), dim=1),
            functional.layer_norm(places.movedim(1, -1), [100]).movedim(-1, 1),
        )


class Bank:
    """Shards of faces with the teachers' lessons, computed on the first visit.

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
        """Faces and lesson of the batch of ``size`` that belongs to ``step``; ``size`` must divide the shard.

        A shard is visited several times in a row, each time in another order of its groups of eight (which keeps the
        pairs together), so that what one answer of the teachers serves is changed several times.
        """
        visit, row = divmod(step * size, SHARD)
        number = visit // VISITS % SHARDS
        if self._held is None or self._held[0] != number:
            self._held = (number, *self._shard(number))
        _, views, lesson = self._held
        groups = torch.randperm(SHARD // 8, generator=torch.Generator().manual_seed(visit))
        rows = (groups[:, None] * 8 + torch.arange(8)).flatten()[row : row + size]
        places = (lesson.places[rows].float() - self.mean) / self.deviation
        return views[rows], Lesson(lesson.identity[rows].float(), lesson.second[rows].float(), places.clamp(-4, 4))

    def _shard(self, number: int) -> tuple[Views, Lesson]:
        views, file = self.sampler.shard(number), self.folder / f"{number:06d}.npz"
        if not file.exists():
            self._learn(views, file)
        with np.load(file) as held:
            return views, Lesson(*(torch.from_numpy(held[name]) for name in ("identity", "second", "places")))

    def _learn(self, views: Views, file: Path) -> None:
        where = spots(aligned_frame(), None, CHUNK, ALIGNED)
        lessons = [self.teacher(render(self.photos, views[i : i + CHUNK], where)) for i in range(0, SHARD, CHUNK)]
        part = file.with_name(f"{file.stem}.{os.getpid()}.part.npz")
        held = {
            name: torch.cat([getattr(lesson, name) for lesson in lessons]).half().numpy()
            for name in ("identity", "second", "places")
        }
        np.savez(part, **held)
        part.replace(file)


def teach_plain(teacher: Teacher, photos: Photos, index: torch.Tensor, cache: Path) -> torch.Tensor:
    """The teacher's unit vectors (n, 512) of photos without augmentation, kept in ``cache``."""
    if not cache.exists():
        parts = [teacher(plain(photos, i, aligned_frame(), ALIGNED)).identity for i in torch.split(index, CHUNK)]
        part = cache.with_name(f"{cache.stem}.{os.getpid()}.part.npy")
        np.save(part, torch.cat(parts).numpy())
        part.replace(cache)
    return torch.from_numpy(np.load(cache))
