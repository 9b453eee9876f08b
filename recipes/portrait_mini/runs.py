"""What the training runs share: figures, losses, the schedule, checkpoints, the curve and the run's own description."""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from changes import Reach, change, places
from faces import Photos, add_arguments, load_photos, split_validation, write_atomically
from keep import read_kept
from teacher import Bank, Lesson, Teacher, teach_plain
from torch import nn
from torch.nn import functional
from views import UNLABELLED, Sampler, sample, spots

TEMPERATURE = 0.07
EMA_DECAY = 0.998
_WARM = 50  # steps in which a run that begins with kept weights comes up to its rate
VALIDATION_SHOWN = 12  # photos of each person that a curve is measured on

T = TypeVar("T")
M = TypeVar("M", bound=nn.Module)
M_contra = TypeVar("M_contra", bound=nn.Module, contravariant=True)


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


def taught_losses(found: torch.Tensor, lesson: Lesson, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The identity losses of an output (n, 1024) that says half of it to each teacher, averaged over both."""
    first, second = found.chunk(2, 1)
    one, two = identity_losses(first, lesson.identity, label), identity_losses(second, lesson.second, label)
    return (one[0] + two[0]) / 2, (one[1] + two[1]) / 2


def step_generator(seed: int, step: int) -> torch.Generator:
    """What is drawn at random for a step follows from its number."""
    return torch.Generator().manual_seed(seed * 1_000_003 + 17 + 1009 * step)


def shown(photos: Photos, index: torch.Tensor, frame: torch.Tensor, size: int, reach: Reach | None) -> torch.Tensor:
    """Photos of a frame, as they are or changed within ``reach``, always in the same way -> (n, 3, size, size)."""
    g = step_generator(int(index[0]), 1)
    place = None if reach is None else places(len(index), reach, g)
    where = spots(frame, place, len(index), size)
    faces = sample(photos.batch(index), where)
    return faces if reach is None else change(faces, where, torch.ones(len(index)), g)


Embed = Callable[[Photos, torch.Tensor, bool], dict[str, torch.Tensor]]


@dataclass
class Material:
    """Everything a run reads. People of ``eval`` are no part of it: they are looked at once, when all is done."""

    train: Photos
    validation: torch.Tensor  # photo numbers within ``train``, a few of each person
    bank: Bank
    validation_taught: torch.Tensor  # (n, 512)
    seed: int
    facts: dict[str, Any]

    def measure(self, embed: Embed) -> dict[str, Any]:
        """Figures of each read-out of ``embed(photos, index, changed) -> {name: (n, d)}`` on the validation people."""
        outputs: dict[str, dict[bool, torch.Tensor]] = {}
        for changed in (False, True):
            parts = [embed(self.train, chunk, changed) for chunk in torch.split(self.validation, 128)]
            for name in parts[0]:
                outputs.setdefault(name, {})[changed] = torch.cat([part[name].float() for part in parts])
        person = self.train.person[self.validation]
        figures = {}
        for name, found in outputs.items():
            middle = found[False].mean(0)
            taught = self.validation_taught if name.endswith("identity") else None
            figures[name] = verification(found[False] - middle, found[True] - middle, person, taught)
        return figures


def verification(
    found: torch.Tensor, changed: torch.Tensor, person: torch.Tensor, taught: torch.Tensor | None
) -> dict[str, float]:
    """Pairs of photos, of photos and changed ones at the same thresholds; people count alike, whatever their photos.

    ``found`` and ``changed`` are (n, d) of the same photos of people (n,), ``taught`` (n, 512) what a teacher says,
    to be compared with the first 512 numbers.
    """
    unit, moved = (functional.normalize(x, dim=1) for x in (found, changed))
    same = person[:, None] == person[None]
    different = (unit @ unit.T)[~same].sort().values
    same.fill_diagonal_(False)
    weight = same.double() / same.sum(1, keepdim=True)
    _, number, photos = person.unique(return_inverse=True, return_counts=True)
    weight /= photos[number][:, None] * len(photos)
    figures: dict[str, float] = {}
    for kind, similarity in (("", unit @ unit.T), ("changed_", moved @ unit.T)):
        for name, rate in (("tar_1e-2", 1e-2), ("tar_1e-3", 1e-3)):
            threshold = different[-max(1, round(rate * len(different)))]
            figures[kind + name] = float((weight * (similarity > threshold)).sum())
    if taught is not None:
        figures["cosine"] = float((functional.normalize(found[:, : taught.shape[1]], dim=1) * taught).sum(1).mean())
    return {name: round(value, 4) for name, value in figures.items()}


def few_each(person: torch.Tensor, index: torch.Tensor, most: int) -> torch.Tensor:
    """At most ``most`` photos of each person out of ``index``, spread evenly over what there is."""
    rows = []
    for number in person[index].unique():
        mine = index[person[index] == number]
        rows.append(mine[torch.linspace(0, len(mine) - 1, min(most, len(mine))).round().long()])
    return torch.cat(rows)


def load_material(data: Path, out: Path, seed: int, threads: int) -> Material:
    """Photos, teachers and the bank of faces under ``out/cache``."""
    cache = out / "cache"
    photos = load_photos(data, "train", cache)
    allowed, validation = split_validation(photos.person)
    shown = few_each(photos.person, validation, VALIDATION_SHOWN)
    teacher = Teacher(data / "models", threads)
    bank = Bank(cache / "bank", photos, Sampler(photos.person, allowed, seed), teacher)
    taught = teach_plain(teacher, photos, shown, cache / f"taught_validation_{len(shown)}.npy")
    facts = {
        "data_sha256": {"train": photos.digest},
        "teacher_sha256": teacher.digest,
        "photos": {"training": len(allowed), "validation": len(validation)},
        "teacher_figures": {"validation": verification(taught, taught, photos.person[shown], None)},
    }
    return Material(photos, shown, bank, taught, seed, facts)


class Run:
    """A run's folder: ``run.json``, ``curve.jsonl`` and ``last.pt``."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.facts = folder, facts
        self.seconds, self.step = 0.0, 0
        self._since = time.process_time()

    def hours(self) -> float:
        """Core-hours spent in this run, over all its starts: other work on the machine does not count."""
        return (self.seconds + time.process_time() - self._since) / 3600

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
        self.step, self.seconds, self._since = state["step"], state["seconds"], time.process_time()
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
    parser.add_argument("--begin", type=Path, help="what keep.py kept of a run, to begin with in place of chance")
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
    begun = -_WARM
    state = run.load(args.branch)
    if state is not None:
        student.load_state_dict(state["student"])
        average.module.load_state_dict(state["average"])
        for optimiser, held in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(held)
        cooldown_from = state["cooldown_from"]
    elif args.begin is not None:
        run.step, kept = read_kept(args.begin)
        student.load_state_dict(kept)
        average.module.load_state_dict(kept)
        begun = run.step
    if args.cooldown and cooldown_from is None:
        cooldown_from = run.step
    last = args.steps if cooldown_from is None else cooldown_from + args.cooldown
    meter, saved = Meter(args.batch), time.monotonic()
    while run.step < last:
        parts = recipe.losses(student, run.step)
        torch.stack([recipe.weights[name] * value for name, value in parts.items()]).sum().backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        share = learning_rate_share(run.step, args.warmup, cooldown_from, args.cooldown)
        # A new optimiser knows nothing of the slopes yet.
        share *= min(1.0, (run.step - begun + 1) / _WARM)
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


class Ahead(Generic[T]):
    """What each step sees, drawn beside the step before it: it follows from the number of the step alone."""

    def __init__(self, draw: Callable[[int], T]) -> None:
        self._draw, self._threads = draw, ThreadPoolExecutor(1)
        self._waiting: tuple[int, Future[T]] | None = None

    def __call__(self, step: int) -> T:
        """What a step sees."""
        step_ahead, future = self._waiting or (None, None)
        if future is None or step_ahead != step:
            future = self._threads.submit(self._draw, step)
        found = future.result()
        self._waiting = step + 1, self._threads.submit(self._draw, step + 1)
        return found


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
