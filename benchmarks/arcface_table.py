"""Face-embedding networks in ONNX with gates: who is found, and whether everybody else keeps every bit.

    python benchmarks/arcface_table.py [--photos 5] [--rate 1e-3] [--every 2]

The face encoder of portrait-mini, and two published recognisers (d, e of IREU_DATA/models) treated as encoders. The
55 people of `eval` are removed one by one, in detectors of a few photos each; whitening comes from three quarters of
the people of `train`, thresholds from the others. TAR: share of a person's other photos that are found. Others
found: share of other `eval` people's photos. Moved: cosine of the edited and the original embedding of photos found.
Needs IREU_DATA.
"""

import argparse
import os
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import Tensor
from torch.nn import functional

from detector_table import quarter_held
from ireu_cli.faces.align import crop_face, template_points
from ireu_cli.maths.detector import direction, threshold_at
from ireu_cli.models.onnx_gates import Gates, append_gates
from ireu_cli.models.onnx_session import open_session
from ireu_cli.models.portrait import embedded_folder
from ireu_cli.params import GatedParams
from portrait_table import read
from target_draws import LANDMARKS

PREPARED = {"face encoder": (127.5, 127.5), "d": (127.5, 128.0), "e": (0.0, 1.0)}
"""What is taken from pixels 0 to 255, and what they are divided by; all in RGB."""


def main() -> None:
    """Embed, find, edit, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=5)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--every", type=int, default=1, help="take every n-th person of train")
    parser.add_argument("--compared", type=int, default=400, help="eval photos that go through the edited network")
    chosen = parser.parse_args()
    data = Path(os.environ["IREU_DATA"])
    files = {"face encoder": embedded_folder() / "face_encoder.onnx"}
    files |= {name: data / "models" / f"recogniser_{name}.onnx" for name in ("d", "e")}
    people = [sorted(p.iterdir()) for p in sorted((data / "faces" / "train").iterdir())[:: chosen.every]]
    eval_people = [sorted(p.iterdir()) for p in sorted((data / "faces" / "eval").iterdir())]
    print(f"{chosen.photos} photos given, false-alarm rate {chosen.rate:g}\n")
    print("| network | TAR | others found | moved, found photos | others below the threshold with the same bits |")
    print("|---|---|---|---|---|")
    for name, file in files.items():
        print(f"| {name} | {_row(name, file, people, eval_people, chosen)} |", flush=True)


def _row(
    name: str, file: Path, people: list[list[Path]], eval_people: list[list[Path]], chosen: argparse.Namespace
) -> str:
    train, who = _embed(name, file, people)
    test, whose = _embed(name, file, eval_people)
    sums, held = quarter_held(train, who)
    whitener, rng = sums.whitener(GatedParams().shrinkage), random.Random(0)
    hits, alarms, weights, thresholds, changes = [], [], [], [], []
    for person in range(len(eval_people)):
        mine: list[int] = (whose == person).nonzero().flatten().tolist()
        rng.shuffle(mine)
        given = test[mine[: chosen.photos]].double().mean(0)
        weight = direction(given, sums.mean(), whitener, held[:0])
        threshold = threshold_at(held @ weight, chosen.rate).value
        scores = test.double() @ weight
        hits.append(float((scores[mine[chosen.photos :]] > threshold).double().mean()))
        alarms.append(float((scores[whose != person] > threshold).double().mean()))
        weights.append(weight)
        thresholds.append(threshold)
        changes.append(GatedParams().gain * (sums.mean() - given))
    network = onnx.load(file)
    picked = random.Random(1).sample(range(len(test)), chosen.compared)
    photos = [path for person in eval_people for path in person]
    moved, same, below = [], 0, 0
    for person in range(0, len(eval_people), 11):
        gates = Gates(weights[person][None], torch.tensor([thresholds[person]]), changes[person][None], 0.25)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "edited.onnx"
            onnx.save(append_gates(network, gates), path)
            mine = (whose == person).nonzero().flatten().tolist()[:30]
            before = _raw(name, file, [photos[i] for i in picked + mine])
            after = _raw(name, path, [photos[i] for i in picked + mine])
        scores = functional.normalize(before).double() @ weights[person]
        shut = scores < thresholds[person] - 1e-4
        same += sum(bool(torch.equal(a, b)) for a, b in zip(before[shut], after[shut], strict=True))
        below += int(shut.sum())
        found = scores > thresholds[person] + 0.25
        moved.append(functional.cosine_similarity(before[found], after[found]).mean())
    share = f"{same} of {below}"
    return f"{np.mean(hits):.3f} | {np.mean(alarms):.5f} | {float(torch.stack(moved).mean()):.2f} | {share}"


def _embed(name: str, file: Path, people: Sequence[Sequence[Path]]) -> tuple[Tensor, Tensor]:
    """Unit vectors (n, d), and whose they are."""
    raw = _raw(name, file, [path for person in people for path in person])
    return functional.normalize(raw), torch.tensor([i for i, person in enumerate(people) for _ in person])


def _raw(name: str, file: Path, photos: Sequence[Path]) -> Tensor:
    session = open_session(file, "cpu")
    entry, (mean, std) = session.get_inputs()[0].name, PREPARED[name]
    marks = tuple(float(part) for part in LANDMARKS.split(","))
    found = []
    for path in photos:
        image = read(path)
        face, _ = crop_face(image, template_points(marks, image), 112, 0.0)
        pixels = (face.transpose(2, 0, 1)[None].astype(np.float32) - mean) / std
        # One at a time: in a batch the last bits depend on the neighbours.
        found.append(torch.from_numpy(session.run(None, {entry: pixels.astype(np.float32)})[0]).flatten())
    return torch.stack(found)


if __name__ == "__main__":
    main()
