"""Original, `global` and `ireu` in drawn portraits: the paper's table, generators A and B of one edited encoder.

    python benchmarks/portrait_table.py --work DIR [--encoder portrait-mini] [--people 1 5 20 50] [--draws 10]

The four commands do the work; `verify --keep-images` leaves the pictures, and recognisers that are no part of the
package and taught no encoder judge them here (b and d of IREU_DATA/models). Each draw of targets is one folder; a
second run goes on where the first stopped. Needs IREU_DATA, a folder with `faces/eval`, `faces/train` and `models`.

Found: share of the targets' photos that a detector of the delta finds, for methods that have detectors. Refused: by a
face-match gate in front of the generator, which is what `verify` sets beside the edit.
ID^o: similarity of a picture and the photo it was drawn from. ID^g: of the pictures drawn before and after.
Delta ID: ID^g of others less that of the targets; `reachable.py` says what it could be at most. Matches: share of
pictures nearer to their photo than a hundredth of other people's photos are. Matches others: share of pairs of a
target's picture and a retained person's photo that are as near; one other: the same of the retained person of each
draw who is matched most, which chance alone makes more than that. KID: between the retained people's pictures and
their photos, on MobileNetV2's ImageNet features (IREU_DATA/models), after less before.
"""

import argparse
import csv
import functools
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
from torch.nn.functional import interpolate, normalize
from torchmetrics.image.kid import KernelInceptionDistance

from ireu_cli.encoders import families as encoders
from ireu_cli.encoders.clip import Encoder, load_encoder, read_tap
from ireu_cli.encoders.face_encoder import FaceEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.mlp_site import detectors_reading
from ireu_cli.faces.align import crop_face
from ireu_cli.judges.face_check import FaceCheck, load_face_check
from ireu_cli.maths.stats import estimate
from ireu_cli.params import EncoderParams
from ireu_cli.store.artifacts import read_delta
from ireu_cli.support.runtime import generator
from ireu_cli.values import AnyLedger, GateLedger, RgbImage
from target_draws import LANDMARKS, PHOTOS, Draws, options, run

RECOGNISERS = ("b", "d")
ALIGNED = 112
FALSE_MATCHES = 0.01
KID_SUBSET = 50
PLAIN = ("pictures.seeds=1", "pictures.edits_per_photo=0", "attacks.suite=none")
ROWS = ("ID^o target seen", "ID^o target unseen", "matches seen", "matches unseen", "found seen", "found unseen",
        "matches unseen, found", "matches unseen, missed", "matches others", "matches one other", "refused unseen",
        "others refused", "ID^g target seen", "ID^g target unseen", "ID^o other", "ID^g other", "delta ID seen",
        "delta ID unseen", "PSNR retained", "SSIM retained", "KID retained, after less before", "face found, target",
        "face found, retained")  # fmt: skip


@dataclass(frozen=True)
class Look:
    """The pictures of one report in one state: unit vectors (n, d), NaN without a face."""

    role: list[str]
    photos: list[Path]  # behind each picture
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
            self.kept[file] = self.look(read(file))
        return self.kept[file]

    def look(self, image: RgbImage) -> Tensor:
        """The unit vector of the face in an image; NaN where none is found."""
        face = self.check.look([image])[0]
        crop, _ = crop_face(image, face.landmarks.astype(np.float64), ALIGNED, 0.0)
        pixels = (crop.transpose(2, 0, 1)[None].astype(np.float32) - 127.5) / 128
        found = normalize(torch.from_numpy(self.session.run(None, {self.entry: pixels})[0]).flatten(), dim=0)
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
            large = interpolate(picture[None].float(), (224, 224), mode="bilinear", antialias=True)
            entry = self.session.get_inputs()[0]
            if entry.shape[-1] == 3:
                large = large.permute(0, 2, 3, 1)
            self.kept[key] = torch.from_numpy(self.session.run(None, {entry.name: large.numpy()})[0]).flatten()
        return self.kept[key]


def few(count: int) -> list[str]:
    """Flags of `verify` that say which pictures a draw of `count` targets gets, with each generator and state.

    About a hundred of targets and 20 of retained people, of whom few are left beside many targets.
    """
    targets = {1: 5, 5: 5, 20: 2}.get(count, 1)
    photos = 1 if count <= 20 else 4
    chosen = (*PLAIN, f"pictures.target_photos={targets}", "pictures.people=15", "pictures.look_alikes=5",
              f"pictures.photos={photos}")  # fmt: skip
    return ["--keep-images", *(part for text in chosen for part in ("--set", text))]


def read(file: Path) -> RgbImage:
    """A picture's pixels."""
    with Image.open(file, formats=("JPEG", "PNG")) as image:
        return np.array(image.convert("RGB"))


def main() -> None:
    """Run what is missing, then print the tables."""
    chosen = options(__doc__)
    data = Path(os.environ["IREU_DATA"])
    draws = run(chosen, data, few)
    if draws is None:
        return
    bundle = find_bundle(chosen.encoder)
    if bundle is None:
        raise SystemExit(f"{chosen.encoder} is no bundle with generators")
    check = load_face_check(bundle.folder / bundle.face_check)
    features = Features(data)
    judges = {name: Judge(data, check, name) for name in RECOGNISERS}
    for count in chosen.people:
        for name in (entry.name for entry in bundle.entries(encoders.family_of(chosen.encoder, chosen.tap).reads)):
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
            figures[f"ID^o target {words}"] = finite_mean(rows)
            figures[f"matches {words}"] = finite_mean((rows > threshold).double())
        figures["matches others"], figures["matches one other"] = _as_others(look, threshold)
        figures["ID^o other"] = finite_mean(own[_rows(look, _others(look))])
        for words, roles in (("target", ("target-seen", "target-unseen")), ("retained", ("retained", "look-alike"))):
            found = torch.isfinite(look.vectors[_rows(look, *roles)]).all(1)
            figures[f"face found, {words}"] = finite_mean(found.double())
    second["ID^g other"] = finite_mean(kept[_rows(after, _others(after))])
    for words in ("seen", "unseen"):
        second[f"ID^g target {words}"] = finite_mean(kept[_rows(after, f"target-{words}")])
        second[f"delta ID {words}"] = second["ID^g other"] - second[f"ID^g target {words}"]
    told = json.loads((report / "report.json").read_text())["figures"]
    for figure in ("psnr", "ssim"):
        second[f"{figure.upper()} retained"] = next(
            f["value"] for f in told if (f["name"], f["role"], f["generator"]) == (figure, _others(after), name)
        )
    for row, figure, role in (("refused unseen", "gate_caught", "target-unseen"),
                              ("others refused", "gate_false_refusal", "retained")):  # fmt: skip
        rates = [f["value"] for f in told if (f["name"], f["role"]) == (figure, role)]
        second[row] = float(np.mean(rates)) if rates else float("nan")
    second |= _explained(draws, count, draw, report, after, threshold)
    second["KID retained, after less before"] = _kid(draws, count, draw, before, after, features)
    return first, second


def _look(draws: Draws, count: int, draw: int, report: Path, name: str, judge: Judge, state: str) -> Look:
    role, files, vectors, own, pictures = [], [], [], [], []
    people = {kind: sorted((draws.folder(count, draw) / kind).iterdir()) for kind in ("targets", "others")}
    with (report / "images" / "index.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if (row["generator"], row["state"]) == (name, state)]
    for row in rows:
        person = people["targets" if row["role"].startswith("target") else "others"][int(row["person"]) - 1]
        role.append(row["role"])
        files.append(sorted(person.iterdir())[int(row["photo"]) - 1])
        vectors.append(judge(report / "images" / row["file"]))
        own.append(judge(files[-1]))
        pictures.append(read(report / "images" / row["file"]))
    return Look(role, files, torch.stack(vectors), torch.stack(own), pictures)


def _impostors(before: Look) -> tuple[float, float]:
    """Similarity that a hundredth of retained pictures reach with other people's photos, and the mean."""
    rows = _rows(before, "retained", "look-alike")
    similarity = before.vectors[rows] @ before.own[rows].T
    people = [before.photos[i].parent for i in rows]
    others = similarity[torch.tensor([[one != other for other in people] for one in people])]
    others = others[torch.isfinite(others)]
    if not len(others):
        return float("nan"), float("nan")
    return float(others.quantile(1 - FALSE_MATCHES)), float(others.mean())


def _as_others(look: Look, threshold: float) -> tuple[float, float]:
    """How often the targets' pictures match photos of retained people, and the one of them who is matched most."""
    photos = _rows(look, "retained", "look-alike")
    similarity = look.vectors[_rows(look, "target-seen", "target-unseen")] @ look.own[photos].T
    matched = torch.where(torch.isfinite(similarity), (similarity > threshold).double(), torch.nan)
    people = [look.photos[i].parent for i in photos]
    rates = [finite_mean(matched[:, [p == one for p in people]]) for one in dict.fromkeys(people)]
    return finite_mean(matched), max((rate for rate in rates if np.isfinite(rate)), default=float("nan"))


def _explained(draws: Draws, count: int, draw: int, report: Path, after: Look, threshold: float) -> dict[str, float]:
    """What detectors find of the targets' photos, and how much of what still matches was found or missed."""
    method = report.name.removeprefix(f"{draws.kind}-").removesuffix(f"-{draws.steps}")
    ledger = read_delta(draws.delta(count, draw, method)).ledger
    if ledger is None:
        return {}
    figures = {}
    own = (after.vectors * after.own).sum(1)
    for words in ("seen", "unseen"):
        rows = _rows(after, f"target-{words}")
        found = found_by(ledger, draws.encoder, [after.photos[i] for i in rows])
        matched = (own[rows] > threshold).double()
        figures[f"found {words}"] = finite_mean(found.double())
        if words == "unseen":
            figures |= {
                "matches unseen, found": finite_mean(matched[found]),
                "matches unseen, missed": finite_mean(matched[~found]),
            }
    return figures


def found_by(ledger: AnyLedger, source: str, photos: Sequence[Path]) -> Tensor:
    """Which photos a detector of the ledger finds: bool (n,)."""
    if isinstance(ledger, GateLedger):
        network = _face_encoder(source)
        pixels = network.pixels([read(photo) for photo in photos])
        return (network.embed(pixels, "normed_embedding") @ ledger.weights.T > ledger.thresholds).any(1)
    encoder = _encoder(source)
    weights, offsets = ledger.scores
    found = []
    for photo in photos:
        seen = detectors_reading(encoder.model, ledger.block, pooled=ledger.pooled)
        with seen as inputs, torch.inference_mode():
            read_tap(encoder.model, encoder.pixels([read(photo)]), "last")
        found.append(bool((inputs() @ weights.T + offsets > 0).any()))
    return torch.tensor(found, dtype=torch.bool)


@functools.cache
def _face_encoder(source: str) -> FaceEncoder:
    marks = tuple(float(part) for part in LANDMARKS.split(","))
    encoder = encoders.load_encoder(EncoderParams(source=source, tap="normed_embedding"), marks, "cpu")
    if not isinstance(encoder, FaceEncoder):
        raise SystemExit(f"{source} has no face-embedding network")
    return encoder


@functools.cache
def _encoder(source: str) -> Encoder:
    return load_encoder(EncoderParams(source=source), "cpu")


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
    framed = interpolate(pixels, (ALIGNED, ALIGNED), mode="bilinear", antialias=True)
    return framed[0].round().clamp(0, 255).byte()


def _rows(look: Look, *roles: str) -> list[int]:
    return [i for i, role in enumerate(look.role) if role in roles]


def _others(look: Look) -> str:
    """The role of people who are not targets; beside very many targets only look-alikes are left."""
    return "retained" if "retained" in look.role else "look-alike"


def finite_mean(values: Tensor) -> float:
    """The mean of what is finite; NaN of nothing."""
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
