"""An insightface pack before and after its export, looked at through insightface's own `FaceAnalysis`.

    python benchmarks/pack_table.py --work DIR [--people 1 10] [--draws 3] [--root IREU_DATA/models/insightface]

`locate`, `unlearn` and `export` edit the pack; `FaceAnalysis` finds, aligns and embeds every photo of `eval` with the
pack and with its export. Changed: an embedding that has not the same bits. Matches: share of unseen photos of the
targets whose embedding is nearer to the mean of the given photos' original embeddings than a hundredth of other
people's photos are. Norm: length after over length before. Needs IREU_DATA.
"""

import argparse
import contextlib
import io
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from insightface.app import FaceAnalysis
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from target_draws import LANDMARKS, Draws, ireu, link_photos

RATE = 0.01


def main() -> None:
    """Edit, look, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--people", type=int, nargs="+", default=[1, 10])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--pack", default="mini")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--retained", type=int, default=1000)
    chosen = parser.parse_args()
    data = Path(os.environ["IREU_DATA"])
    root = chosen.root or data / "models" / "insightface"
    pack = root / "models" / chosen.pack
    draws = Draws(data, chosen.work, str(pack), "embedding", "auto", chosen.retained)
    draws.link_retained()
    photos = sorted((data / "faces" / "eval").rglob("*.jpg"))
    before = _look(root, chosen.pack, photos)
    print(f"{pack.name}: {len(photos)} photos of {len({p.parent for p in photos})} people; a face in "
          f"{sum(bool(torch.isfinite(row).all()) for row in before)}\n")  # fmt: skip
    print("| people, draw | targets' unseen photos: changed | cosine | matches before | after | norm "
          "| others: same bits | others' photos changed |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    for count in chosen.people:
        for draw in range(chosen.draws):
            print(_row(draws, pack, photos, before, count, draw), flush=True)


def _row(draws: Draws, pack: Path, photos: list[Path], before: Tensor, count: int, draw: int) -> str:
    targets, given = _request(draws, pack, count, draw)
    edited = draws.folder(count, draw) / "edited"
    after = _look(edited, pack.name, photos)
    there = torch.isfinite(before).all(1) & torch.isfinite(after).all(1)
    mine = torch.tensor([photo.parent.name in targets for photo in photos])
    unseen = torch.tensor([photo.parent.name in targets and _key(photo) not in given for photo in photos]) & there
    changed = (before != after).any(1)
    units = normalize(before, dim=1), normalize(after, dim=1)
    matches: list[list[bool]] = [[], []]
    for target in targets:
        own = torch.tensor([photo.parent.name == target for photo in photos])
        seen = torch.tensor([photo.parent.name == target and _key(photo) in given for photo in photos]) & there
        gallery = normalize(units[0][seen].mean(0), dim=0)
        others = units[0][there & ~own] @ gallery
        threshold = others.sort().values[-max(1, int(RATE * len(others)))]
        for state in (0, 1):
            matches[state] += (units[state][unseen & own] @ gallery > threshold).tolist()
    cosine = (units[0][unseen] * units[1][unseen]).sum(1)
    others_there = there & ~mine
    norm = (after[unseen].norm(dim=1) / before[unseen].norm(dim=1)).mean()
    same = int((~changed[others_there]).sum())
    return (
        f"| {count}, {draw} | {float(changed[unseen].double().mean()):.2f} of {int(unseen.sum())} "
        f"| {float(cosine.mean()):.2f} | {np.mean(matches[0]):.2f} | {np.mean(matches[1]):.2f} | {norm:.4f} "
        f"| {same} of {int(others_there.sum())} | {float(changed[others_there].double().mean()):.4f} |"
    )


def _request(draws: Draws, pack: Path, count: int, draw: int) -> tuple[list[str], set[str]]:
    """Edit the pack as a user does; returns the targets, and the photos that were given."""
    folder = draws.folder(count, draw)
    everybody = sorted(path.name for path in (draws.data / "faces" / "eval").iterdir())
    targets = random.Random(draw).sample(everybody, count)
    for target in targets:
        photos = sorted((draws.data / "faces" / "eval" / target).iterdir())
        link_photos(folder / "targets" / target, random.Random(draw).sample(photos, 5))
    given = {_key(photo) for photo in (folder / "targets").rglob("*.jpg")}
    people = ["--targets", str(folder / "targets"), "--retain", str(draws.work / "retain")]
    encoder = ["--encoder", str(pack), "--tap", "embedding", "--method", "all", "--seed", str(draw)]
    sets = ["--set", f"data.landmarks={LANDMARKS}", "--set", "data.retain_holdout=0"]
    mask, delta = folder / "mask.pt", folder / "delta.safetensors"
    out = folder / "edited" / "models" / pack.name
    ireu("locate", *draws.run, *people, *encoder, *sets, "--force", "-o", str(mask))
    ireu(
        "unlearn",
        *draws.run,
        "--mask",
        str(mask),
        "--set",
        f"gated.people={max(count, 5)}",
        "--force",
        "-o",
        str(delta),
    )
    shutil.rmtree(out, ignore_errors=True)
    ireu("export", "--allow-failed", *draws.run, "--delta", str(delta), "--encoder", str(pack), "-o", str(out))
    return targets, given


def _key(photo: Path) -> str:
    return f"{photo.parent.name}/{photo.name}"


def _look(root: Path, name: str, photos: list[Path]) -> Tensor:
    """Raw embeddings of the first face of each photo (n, d); NaN where none is found."""
    with contextlib.redirect_stdout(io.StringIO()):
        analysis: Any = FaceAnalysis(name=name, root=str(root), providers=["CPUExecutionProvider"])
        analysis.prepare(ctx_id=-1, det_size=(320, 320))
    found = [
        analysis.get(np.ascontiguousarray(np.array(Image.open(p, formats=("JPEG",)).convert("RGB"))[:, :, ::-1]))
        for p in photos
    ]
    width = next(faces[0].embedding.shape[0] for faces in found if faces)
    rows = [torch.from_numpy(faces[0].embedding) if faces else torch.full((width,), torch.nan) for faces in found]
    return torch.stack(rows)


if __name__ == "__main__":
    main()
