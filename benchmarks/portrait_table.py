"""Original, `global` and `ireu` in drawn portraits: the paper's table, generators A and B of one edited encoder.

    python benchmarks/portrait_table.py --work DIR [--encoder portrait-mini] [--people 1 5] [--draws 10] [--steps auto]

The four commands do the work; `verify --keep-images` leaves the pictures, and recognisers that are no part of the
package and taught no encoder judge them here (b and d of IREU_DATA/models). Each draw of targets is one folder; a
second run goes on where the first stopped. Needs IREU_DATA, a folder with `faces/eval`, `faces/train` and `models`.

ID^o: similarity of a picture and the photo it was drawn from. ID^g: of the pictures drawn before and after.
Delta ID: ID^g of others less that of the targets. Matches: share of pictures nearer to their photo than a hundredth of
other people's photos are. KID: between the retained people's pictures and their photos, on MobileNetV2's ImageNet
features (IREU_DATA/models), after less before.
"""

import argparse
import csv
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchmetrics.image.kid import KernelInceptionDistance

from ireu_cli.faces.align import crop_face
from ireu_cli.maths.stats import estimate
from ireu_cli.models.face_check import FaceCheck, load_face_check
from ireu_cli.models.portrait import find_bundle
from ireu_cli.runtime import generator
from ireu_cli.values import RgbImage
from target_draws import PHOTOS, Draws, options, run

RECOGNISERS = ("b", "d")
ALIGNED = 112
FALSE_MATCHES = 0.01
KID_SUBSET = 50
FEW = (
    "pictures.target_photos=5",
    "pictures.people=15",
    "pictures.look_alikes=5",
    "pictures.photos=1",
    "pictures.seeds=1",
    "pictures.edits_per_photo=0",
    "attacks.suite=none",
)
"""Pictures of each draw: up to ten of each target, one of each of 20 retained people, with each generator and state."""
ROWS = ("ID^o target seen", "ID^o target unseen", "matches seen", "matches unseen", "ID^g target seen",
        "ID^g target unseen", "ID^o other", "ID^g other", "delta ID seen", "delta ID unseen", "PSNR retained",
        "SSIM retained", "KID retained, after less before", "face found, target", "face found, retained")  # fmt: skip


@dataclass(frozen=True)
class Look:
    """The pictures of one report in one state: unit vectors (n, d), NaN without a face."""

    role: list[str]
    vectors: Tensor
    own: Tensor  # of the photo behind each picture
    pictures: list[RgbImage]


class Judge:
    """The face check of the bundle finds and aligns; a recogniser of IREU_DATA compares."""

    def __init__(self, data: Path, check: FaceCheck, name: str) -> None:
        self.check = check
        self.session = onnxruntime.InferenceSession(
            str(data / "models" / f"recogniser_{name}.onnx"), providers=["CPUExecutionProvider"]
        )
        self.entry = self.session.get_inputs()[0].name
        self.kept: dict[Path, Tensor] = {}

    def __call__(self, file: Path) -> Tensor:
        """The unit vector of the face in a picture."""
        if file not in self.kept:
            self.kept[file] = self._look(read(file))
        return self.kept[file]

    def _look(self, image: RgbImage) -> Tensor:
        face = self.check.look([image])[0]
        crop, _ = crop_face(image, face.landmarks.astype(np.float64), ALIGNED, 0.0)
        pixels = (crop.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 128
        found = functional.normalize(torch.from_numpy(self.session.run(None, {self.entry: pixels})[0]).flatten(), dim=0)
        return found if face.score >= self.check.threshold else torch.full_like(found, torch.nan)


class Features(torch.nn.Module):
    """ImageNet features for KID: pictures uint8 (n, 3, h, w) -> (n, 1280)."""

    num_features = 1280

    def __init__(self, data: Path) -> None:
        super().__init__()
        self.session = onnxruntime.InferenceSession(
            str(data / "models" / "mobilenet_v2_imagenet.onnx"), providers=["CPUExecutionProvider"]
        )
        self.kept: dict[bytes, Tensor] = {}  # photos and pictures before come again with each method

    def forward(self, pictures: Tensor) -> Tensor:
        """-> (n, 1280)."""
        return torch.stack([self._look(picture) for picture in pictures])

    def _look(self, picture: Tensor) -> Tensor:
        key = hashlib.sha256(picture.numpy().tobytes()).digest()
        if key not in self.kept:
            large = functional.interpolate(picture[None].float(), (224, 224), mode="bilinear", antialias=True)
            entry = self.session.get_inputs()[0]
            if entry.shape[-1] == 3:
                large = large.permute(0, 2, 3, 1)
            self.kept[key] = torch.from_numpy(self.session.run(None, {entry.name: large.numpy()})[0]).flatten()
        return self.kept[key]


def read(file: Path) -> RgbImage:
    """A picture's pixels."""
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


def main() -> None:
    """Run what is missing, then print the tables."""
    chosen = options(__doc__)
    data = Path(os.environ["IREU_DATA"])
    draws = run(chosen, data, ["--keep-images", *(part for text in FEW for part in ("--set", text))])
    if draws is None:
        return
    bundle = find_bundle(chosen.encoder)
    if bundle is None:
        raise SystemExit(f"{chosen.encoder} is no bundle with generators")
    check = load_face_check(bundle.folder / bundle.face_check)
    features = Features(data)
    judges = {name: Judge(data, check, name) for name in RECOGNISERS}
    for count in chosen.people:
        for name in (entry.name for entry, _ in bundle.entries()):
            for recogniser, judge in judges.items():
                print(_table(draws, count, chosen, name, recogniser, judge, features))


def _table(
    draws: Draws, count: int, chosen: argparse.Namespace, name: str, recogniser: str, judge: Judge, features: Features
) -> str:
    """One generator, one recogniser; a row a figure, a column a method; intervals over draws."""
    columns: dict[str, list[dict[str, float]]] = {}
    for method in chosen.methods:
        for draw in range(chosen.draws):
            report = draws.report(count, draw, method)
            if (report / "report.json").exists():
                before, after = _figures(draws, count, draw, report, name, judge, features)
                columns.setdefault(method, []).append(after)
                if method == chosen.methods[0]:
                    columns.setdefault("original", []).append(before)
    heads = ["original", *chosen.methods]
    number = "/".join(str(len(columns.get(head, ()))) for head in heads)
    lines = [
        f"\nGenerator {name}, recogniser {recogniser}, {count} target(s), {PHOTOS} photos each, steps {draws.steps}, "
        f"{number} draws; mean [95 % over draws]\n",
        f"| figure | {' | '.join(heads)} |",
        "|---|" + "---|" * len(heads),
    ]
    for row in (*ROWS, "ID^o impostor"):
        cells = [_cell([figures[row] for figures in columns.get(head, ()) if row in figures], row) for head in heads]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(
    draws: Draws, count: int, draw: int, report: Path, name: str, judge: Judge, features: Features
) -> tuple[dict[str, float], dict[str, float]]:
    """Figures of the original and of the edited encoder."""
    before, after = (_look(draws, count, draw, report, name, judge, state) for state in ("original", "edited"))
    kept = (before.vectors * after.vectors).sum(1)
    threshold, impostor = _impostors(before)
    first: dict[str, float] = {"ID^o impostor": impostor}
    second: dict[str, float] = {}
    for look, figures in ((before, first), (after, second)):
        own = (look.vectors * look.own).sum(1)
        for role, words in (("target-seen", "seen"), ("target-unseen", "unseen")):
            rows = own[_rows(look, role)]
            figures[f"ID^o target {words}"] = _mean(rows)
            figures[f"matches {words}"] = _mean((rows > threshold).double())
        figures["ID^o other"] = _mean(own[_rows(look, "retained")])
        for words, roles in (("target", ("target-seen", "target-unseen")), ("retained", ("retained", "look-alike"))):
            found = torch.isfinite(look.vectors[_rows(look, *roles)]).all(1)
            figures[f"face found, {words}"] = _mean(found.double())
    second["ID^g other"] = _mean(kept[_rows(after, "retained")])
    for words in ("seen", "unseen"):
        second[f"ID^g target {words}"] = _mean(kept[_rows(after, f"target-{words}")])
        second[f"delta ID {words}"] = second["ID^g other"] - second[f"ID^g target {words}"]
    told = json.loads((report / "report.json").read_text())["figures"]
    for figure in ("psnr", "ssim"):
        second[f"{figure.upper()} retained"] = next(
            f["value"] for f in told if (f["name"], f["role"], f["generator"]) == (figure, "retained", name)
        )
    second["KID retained, after less before"] = _kid(draws, count, draw, before, after, features)
    return first, second


def _look(draws: Draws, count: int, draw: int, report: Path, name: str, judge: Judge, state: str) -> Look:
    role, vectors, own, pictures = [], [], [], []
    people = {kind: sorted((draws.folder(count, draw) / kind).iterdir()) for kind in ("targets", "others")}
    with (report / "images" / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["generator"], row["state"]) == (name, state)]
    for row in rows:
        person = people["targets" if row["role"].startswith("target") else "others"][int(row["person"]) - 1]
        role.append(row["role"])
        vectors.append(judge(report / "images" / row["file"]))
        own.append(judge(sorted(person.iterdir())[int(row["photo"]) - 1]))
        pictures.append(read(report / "images" / row["file"]))
    return Look(role, torch.stack(vectors), torch.stack(own), pictures)


def _impostors(before: Look) -> tuple[float, float]:
    """Similarity that a hundredth of retained pictures reach with other people's photos, and the mean."""
    rows = _rows(before, "retained", "look-alike")
    similarity = before.vectors[rows] @ before.own[rows].T
    others = similarity[~torch.eye(len(similarity), dtype=torch.bool)]
    others = others[torch.isfinite(others)]
    if not len(others):
        return float("nan"), float("nan")
    return float(others.quantile(1 - FALSE_MATCHES)), float(others.mean())


def _kid(draws: Draws, count: int, draw: int, before: Look, after: Look, features: Features) -> float:
    """What the edit adds to the distance from photos: the same photos and features for both."""
    photos = sorted((draws.folder(count, draw) / "others").glob("*/*"))
    real = [read(file) for file in photos[:: max(1, len(photos) // 300)]]
    found = []
    for look in (before, after):
        drawn = [look.pictures[i] for i in _rows(look, "retained", "look-alike")]
        torch.manual_seed(0)
        metric = KernelInceptionDistance(features, subset_size=min(KID_SUBSET, len(drawn)), normalize=False)
        for group, is_real in ((real, True), (drawn, False)):
            # One size and one place for both: the centre of a photo is what the plain prompt draws.
            metric.update(torch.stack([_framed(image, is_real) for image in group]), real=is_real)
        found.append(float(metric.compute()[0]))
    return found[1] - found[0]


def _framed(image: RgbImage, is_photo: bool) -> Tensor:
    side = image.shape[0]
    edge = round(side * 12 / 160) if is_photo else 0
    pixels = torch.from_numpy(image[edge : side - edge, edge : side - edge]).permute(2, 0, 1)[None].float()
    framed = functional.interpolate(pixels, (ALIGNED, ALIGNED), mode="bilinear", antialias=True)
    return framed[0].round().clamp(0, 255).byte()


def _rows(look: Look, *roles: str) -> list[int]:
    return [i for i, role in enumerate(look.role) if role in roles]


def _mean(values: Tensor) -> float:
    finite = values[torch.isfinite(values)]
    return float(finite.mean()) if len(finite) else float("nan")


def _cell(values: Sequence[float], name: str) -> str:
    found = estimate([torch.tensor([v]) for v in values if np.isfinite(v)], 2000, generator(0, "table", name))
    if found is None:
        return "–"
    digits = 1 if name.startswith("PSNR") else 4 if name.startswith("KID") else 3
    low, high = found.low, found.high
    span = f" [{low:.{digits}f}, {high:.{digits}f}]" if low is not None and high is not None else ""
    return f"{found.value:.{digits}f}{span}"


if __name__ == "__main__":
    main()
