"""What the training runs share: figures, losses, the schedule, checkpoints, the curve and the run's own description."""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from faces import Photos, add_arguments, load_photos, split_validation, write_atomically
from teacher import Bank, Teacher, teach_plain
from torch import nn
from torch.nn import functional
from views import UNLABELLED, Sampler

TEMPERATURE = 0.07
EMA_DECAY = 0.998

M = TypeVar("M", bound=nn.Module)
M_contra = TypeVar("M_contra", bound=nn.Module, contravariant=True)


def identity_figures(found: torch.Tensor, person: torch.Tensor, taught: torch.Tensor | None = None) -> dict[str, float]:
    """Pairwise verification of embeddings (n, d) of people (n,), and the mean cosine to the teacher's (n, d)."""
    unit = functional.normalize(found.float(), dim=1)
    first, second = torch.triu_indices(len(unit), len(unit), 1)
    similarity, same = (unit @ unit.T)[first, second], person[first] == person[second]
    genuine, impostor = similarity[same], similarity[~same].sort().values
    figures = {"same": float(genuine.mean()), "different": float(impostor.mean())}
    for name, rate in (("tar_1e-2", 1e-2), ("tar_1e-3", 1e-3)):
        threshold = impostor[-max(1, round(rate * len(impostor)))]
        figures[name] = float((genuine > threshold).float().mean())
    if taught is not None:
        figures["cosine"] = float((unit * taught).sum(1).mean())
    return {name: round(value, 4) for name, value in figures.items()}


def identity_losses(
    found: torch.Tensor, taught: torch.Tensor, label: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance to the teacher's vector, and a contrast against the batch's other people, both over (n, 512).

    The contrast asks that a view lies nearer to the teacher's vectors of the same person than to all others: plain
    cosine is content with a blurred average, which is what makes look-alikes.
    """
    unit = functional.normalize(found.float(), dim=1)
    cosine = 1 - (unit * taught).sum(1).mean()
    same = (label[:, None] == label[None]) & (label != UNLABELLED)[:, None]
    same |= torch.eye(len(label), dtype=torch.bool)
    likely = (unit @ taught.T / TEMPERATURE).log_softmax(1)
    return cosine, -(likely * same).sum(1).div(same.sum(1)).mean()


def learning_rate_share(step: int, warmup: int, cooldown_from: int | None, cooldown: int) -> float:
    """Warm-up, then constant, then, only where a cool-down was asked for, linear to zero."""
    share = min(1.0, (step + 1) / warmup)
    if cooldown_from is not None and step >= cooldown_from:
        share *= max(0.0, 1 - (step - cooldown_from) / cooldown)
    return share


class Average(Generic[M]):
    """Running average of a module's weights; what is measured and exported. Buffers (batch statistics) are copied."""

    def __init__(self, module: M) -> None:
        self.module: M = copy.deepcopy(module).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, module: M, step: int) -> None:
        """Move towards ``module``; quickly at first, so that the average does not remember the random start."""
        share = max(1 - EMA_DECAY, 10 / (step + 10))
        averages: list[torch.Tensor] = list(self.module.parameters())
        weights: list[torch.Tensor] = list(module.parameters())
        torch._foreach_lerp_(averages, weights, share)
        for kept, fresh in zip(self.module.buffers(), module.buffers(), strict=True):
            kept.copy_(fresh)


@dataclass
class Material:
    """Everything a run reads."""

    train: Photos
    held_out: Photos  # the people of ``eval``
    validation: torch.Tensor  # photo numbers within ``train``
    bank: Bank
    validation_taught: torch.Tensor  # (n, 512)
    held_out_taught: torch.Tensor  # (m, 512)
    facts: dict[str, Any]

    def measure(self, embed: Callable[[Photos, torch.Tensor], dict[str, torch.Tensor]]) -> dict[str, Any]:
        """Figures of each read-out of ``embed(photos, index) -> {name: (n, d)}``, on both groups of people."""
        everybody = torch.arange(len(self.held_out.person))
        people = {
            "validation": (self.train, self.validation, self.validation_taught),
            "eval": (self.held_out, everybody, self.held_out_taught),
        }
        figures: dict[str, Any] = {}
        for group, (photos, index, taught) in people.items():
            parts = [embed(photos, chunk) for chunk in torch.split(index, 128)]
            for name in parts[0]:
                found = torch.cat([part[name].float() for part in parts])
                figures.setdefault(name, {})[group] = identity_figures(found, photos.person[index], taught)
        return figures


def load_material(data: Path, out: Path, seed: int, threads: int) -> Material:
    """Photos, teacher and view bank under ``out/cache``."""
    cache = out / "cache"
    train, held_out = load_photos(data, "train", cache), load_photos(data, "eval", cache)
    allowed, validation = split_validation(train.person)
    teacher = Teacher(data / "models" / "recogniser_e.onnx", threads)
    bank = Bank(cache / "bank", train, Sampler(train.person, allowed, seed), teacher)
    validation_taught = teach_plain(teacher, train, validation, cache / "taught_validation.npy")
    held_out_taught = teach_plain(teacher, held_out, torch.arange(len(held_out.person)), cache / "taught_eval.npy")
    facts = {
        "data_sha256": {"train": train.digest, "eval": held_out.digest},
        "teacher_sha256": teacher.digest,
        "photos": {"training": len(allowed), "validation": len(validation), "eval": len(held_out.person)},
        "teacher_figures": {
            "validation": identity_figures(validation_taught, train.person[validation]),
            "eval": identity_figures(held_out_taught, held_out.person),
        },
    }
    return Material(train, held_out, validation, bank, validation_taught, held_out_taught, facts)


class Run:
    """A run's folder: ``run.json``, ``curve.jsonl`` and ``last.pt``."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.facts = folder, facts
        self.seconds, self.step = 0.0, 0
        self._since = time.monotonic()

    def hours(self) -> float:
        """Wall-clock hours spent in this run, over all its starts."""
        return (self.seconds + time.monotonic() - self._since) / 3600

    def describe(self) -> None:
        """Write ``run.json``."""
        facts = {**self.facts, "step": self.step, "hours": round(self.hours(), 3), "torch": torch.__version__}
        write_atomically(self.folder / "run.json", json.dumps(facts, indent=1, sort_keys=True) + "\n")

    def record(self, **row: Any) -> None:
        """Append a row to the curve."""
        with (self.folder / "curve.jsonl").open("a") as curve:
            curve.write(json.dumps({"step": self.step, "hours": round(self.hours(), 3), **row}) + "\n")

    def save(self, state: dict[str, Any]) -> None:
        """Write the checkpoint, atomically."""
        part = self.folder / "last.part.pt"
        torch.save({**state, "step": self.step, "seconds": self.hours() * 3600}, part)
        part.replace(self.folder / "last.pt")
        self.describe()

    def load(self, branch: Path | None) -> dict[str, Any] | None:
        """The checkpoint to go on from: this run's own, else the one to branch from, else none."""
        own = self.folder / "last.pt"
        file = own if own.exists() else branch
        if file is None:
            return None
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        self.step, self.seconds, self._since = state["step"], state["seconds"], time.monotonic()
        self._forget_later_rows()
        return state

    def _forget_later_rows(self) -> None:
        """Rows written after the checkpoint will be written again."""
        curve = self.folder / "curve.jsonl"
        if curve.exists():
            rows = [line for line in curve.read_text().splitlines() if json.loads(line)["step"] <= self.step]
            write_atomically(curve, "".join(row + "\n" for row in rows))


class Recipe(Protocol[M_contra]):
    """What one model adds to the common training loop."""

    weights: dict[str, float]  # of the losses

    def losses(self, student: M_contra, step: int) -> dict[str, torch.Tensor]:
        """All losses of the batch that belongs to ``step``, unweighted."""

    def measure(self, student: M_contra) -> dict[str, Any]:
        """Figures on people who are not trained on."""

    def export(self, student: M_contra, folder: Path) -> None:
        """Write the model as it will be used."""


def faster_precision() -> str:
    """What this processor convolves faster in; that it names bfloat16 among its instructions does not say."""
    seconds = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        x, weight = torch.ones(16, 96, 14, 14, dtype=dtype), torch.ones(96, 96, 3, 3, dtype=dtype)
        for _ in range(5):  # the first call is slow for reasons of its own
            start = time.perf_counter()
            functional.conv2d(x, weight, padding=1)
            spent = time.perf_counter() - start
            seconds[name] = min(seconds.get(name, spent), spent)
    return min(seconds, key=seconds.__getitem__)


def training_arguments(description: str | None, name: str, rate: float) -> argparse.ArgumentParser:
    """The flags of a training command."""
    parser = argparse.ArgumentParser(description=description)
    add_arguments(parser)
    parser.add_argument("--name", default=name, help="folder of this run under --out")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--steps", type=int, default=1_000_000, help="stop after this step, counted from the very first"
    )
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--warmup", type=int, default=200)
    parser.add_argument("--branch", type=Path, help="checkpoint to start from where this run has none")
    parser.add_argument(
        "--cooldown", type=int, default=0, help="let the rate fall to zero over so many steps, then stop"
    )
    parser.add_argument("--measure-every", type=int, default=500)
    parser.add_argument("--save-minutes", type=float, default=5)
    parser.add_argument(
        "--precision",
        choices=["bf16", "fp32"],
        default=faster_precision(),
        help="of the arithmetic; weights stay fp32; the default is what this machine was just seen to be faster in",
    )
    return parser


def train(
    args: argparse.Namespace,
    facts: dict[str, Any],
    student: M,
    optimisers: list[torch.optim.Optimizer],
    recipe: Recipe[M],
) -> None:
    """Train until ``--steps`` or the end of the cool-down.

    Whatever a recipe draws at random follows from the step alone, so a checkpoint needs no generator state.
    """
    average = Average(student)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items() if k not in ("data", "out")}
    parameters = sum(p.numel() for p in student.parameters())
    facts = {**facts, "settings": settings, "weights": recipe.weights, "parameters": parameters}
    run = Run(args.out / args.name, facts)
    cooldown_from: int | None = None
    state = run.load(args.branch)
    if state is not None:
        student.load_state_dict(state["student"])
        average.module.load_state_dict(state["average"])
        for optimiser, held in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(held)
        cooldown_from = state["cooldown_from"]
    if args.cooldown and cooldown_from is None:
        cooldown_from = run.step
    last = args.steps if cooldown_from is None else cooldown_from + args.cooldown
    meter, saved = Meter(args.batch), time.monotonic()
    while run.step < last:
        parts = recipe.losses(student, run.step)
        torch.stack([recipe.weights[name] * value for name, value in parts.items()]).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        share = learning_rate_share(run.step, args.warmup, cooldown_from, args.cooldown)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = args.rate * share * group.get("times", 1.0)
            optimiser.step()
            optimiser.zero_grad()
        average.update(student, run.step)
        run.step += 1
        meter.add(parts)
        if run.step % 50 == 0:
            run.record(**meter.read())
        if run.step % args.measure_every == 0 or run.step == last:
            run.record(**recipe.measure(average.module))
            recipe.export(average.module, run.folder)
            meter.restart()
        if time.monotonic() - saved > 60 * args.save_minutes or run.step == last:
            held_now = [optimiser.state_dict() for optimiser in optimisers]
            weights = {"student": student.state_dict(), "average": average.module.state_dict()}
            run.save({**weights, "optimisers": held_now, "cooldown_from": cooldown_from})
            saved = time.monotonic()


class Meter:
    """Mean losses and speed since the last reading."""

    def __init__(self, batch: int) -> None:
        self.batch = batch
        self.restart()

    def restart(self) -> None:
        """Forget what was counted."""
        self.count, self.since = 0, time.monotonic()
        self.sums: dict[str, float] = {}

    def add(self, parts: dict[str, torch.Tensor]) -> None:
        """Count one step."""
        self.count += 1
        for name, value in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value.detach())

    def read(self) -> dict[str, Any]:
        """Means and views a second; starts anew."""
        means = {name: round(total / self.count, 4) for name, total in self.sums.items()}
        speed = round(self.count * self.batch / (time.monotonic() - self.since), 1)
        self.restart()
        return {"train": means, "per_second": speed}
