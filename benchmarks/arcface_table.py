"""Face-embedding networks in ONNX with gates: who is found, and whether everybody else keeps every bit.

    python benchmarks/arcface_table.py [--photos 5] [--rate 1e-3] [--every 2]

The face encoder of portrait-mini, and two published recognisers (d, e of IREU_DATA/models) treated as encoders. The
55 people of `eval` are removed one by one, by detectors of a few photos each; whitening and thresholds come from
`train`. TAR: share of a person's other photos that are found. Others
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

from detector_table import Strangers
from ireu_cli.encoders.files.onnx_session import open_session
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.encoders.onnx_gates import Gates, append_gates
from ireu_cli.faces.align import crop_face, template_points
from ireu_cli.params import GatedParams
from ireu_cli.unlearning.gated.solve_network import change_of_embedding
from portrait_table import read
from target_draws import LANDMARKS

RISE = GatedParams().rise
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
    strangers, rng = Strangers(train, who), random.Random(0)
    numbers = [(whose == person).nonzero().flatten().tolist() for person in range(len(eval_people))]
    for mine in numbers:
        rng.shuffle(mine)
    given = [test[mine[: chosen.photos]] for mine in numbers]
    detectors = strangers.find(given, [chosen.rate])[0]
    hits, alarms, changes = [], [], []
    for person, one in enumerate(detectors):
        taken = test.double() @ one.weight > one.threshold.value
        hits.append(float(taken[numbers[person][chosen.photos :]].double().mean()))
        alarms.append(float(taken[whose != person].double().mean()))
        average = strangers.people.every.mean()
        changes.append(change_of_embedding(given[person], average, torch.ones_like(average), GatedParams().gain))
    network = onnx.load(file)
    picked = random.Random(1).sample(range(len(test)), chosen.compared)
    photos = [path for person in eval_people for path in person]
    moved, same, below = [], 0, 0
    for person in range(0, len(eval_people), 11):
        weight, threshold = detectors[person].weight, detectors[person].threshold.value
        gates = Gates(weight[None], torch.tensor([threshold]), changes[person][None], RISE)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "edited.onnx"
            onnx.save(append_gates(network, gates), path)
            mine = (whose == person).nonzero().flatten().tolist()[:30]
            before = _raw(name, file, [photos[i] for i in picked + mine])
            after = _raw(name, path, [photos[i] for i in picked + mine])
        scores = functional.normalize(before).double() @ weight
        shut = scores < threshold - 1e-4
        same += sum(bool(torch.equal(a, b)) for a, b in zip(before[shut], after[shut], strict=True))
        below += int(shut.sum())
        found = scores > threshold + RISE
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
