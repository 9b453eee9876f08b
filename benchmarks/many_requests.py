"""Requests one after another: what each further person costs the others, and what is left when all are withdrawn.

    python benchmarks/many_requests.py [--people 200] [--retained 30] [--marks 0 1 5 20 50 100 200]

People of `train` with six photos or more ask one by one, five photos each, tap `image_embeds`; statistics and
thresholds come from other people of `train`, retained people are those of `eval`. Printed at each mark: the share of
the removed people's unseen photos that their detectors find, the share of retained photos that any detector takes
for somebody, the change of retained features over their spread, and PSNR of generator A's portraits of retained
photos. Then all are withdrawn in random order, and a joint request for the same people is compared bit by bit.
Needs IREU_DATA.
"""

import argparse
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector_table import rows_by_fold
from ireu_cli.maths.pictures import psnr
from ireu_cli.models.clip import Encoder, load_encoder, read_out, readout_inverse, with_delta
from ireu_cli.models.encoders import null_features
from ireu_cli.models.generator import load_generators
from ireu_cli.models.mlp_site import MlpSite, watching
from ireu_cli.params import EncoderParams, GatedParams
from ireu_cli.steps.gated import (
    Found,
    Readout,
    Wanted,
    change_of,
    compose,
    enter,
    find,
    open_ledger,
    rate_of,
)
from ireu_cli.steps.site_sums import SiteSums, summarise
from ireu_cli.steps.slots import leave
from ireu_cli.values import Ledger, RgbImage
from portrait_table import read

GIVEN = 5


@dataclass(frozen=True)
class SiteRows:
    """Photos as the site sees them: inputs and last states at the class token (n, d), and whose they are."""

    inputs: Tensor
    states: Tensor
    who: Tensor


def main() -> None:
    """Ask, print, withdraw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--retained", type=int, default=30)
    parser.add_argument("--false-alarms", type=float, default=GatedParams().false_alarms)
    parser.add_argument("--marks", type=int, nargs="+", default=[0, 1, 5, 20, 50, 100, 200])
    chosen = parser.parse_args()
    faces, encoder = Path(os.environ["IREU_DATA"]) / "faces", load_encoder(EncoderParams(), "cpu")
    site = MlpSite(encoder.blocks - 1)
    folders = sorted(path for path in (faces / "train").iterdir() if len(list(path.iterdir())) > GIVEN)
    asking = random.Random(0).sample(folders, chosen.people)
    others = [path for path in sorted((faces / "train").iterdir()) if path not in asking]
    theirs = site_rows(encoder, site, [sorted(path.iterdir()) for path in asking], None)
    sums = SiteSums()
    rest = site_rows(encoder, site, [sorted(path.iterdir()) for path in others], sums)
    kept = site_rows(encoder, site, [sorted(path.iterdir()) for path in sorted((faces / "eval").iterdir())], None)
    readout = Readout(
        lambda states: read_out(encoder.model, states, "image_embeds"), readout_inverse(encoder.model, "image_embeds")
    )
    split = torch.unique_consecutive(rest.who, return_counts=True)[1].tolist()
    people = zip(torch.split(rest.inputs, split), torch.split(rest.states, split), strict=True)
    with watching(encoder.model, site) as seen, torch.inference_mode():
        encoder.model.vision_model(encoder.null_pixels())
    statistics = summarise(sums, people, [], seen[0][:, 0], readout)
    params = GatedParams(people=chosen.people, false_alarms=chosen.false_alarms)
    weights = site.weights(encoder.model)
    empty = open_ledger(statistics, site, weights, chosen.people)
    everybody, changes = [], []
    for person in range(chosen.people):
        mine = (theirs.who == person).nonzero().flatten()[:GIVEN]
        states = theirs.states[mine]
        everybody.append(Wanted(theirs.inputs[mine], states, readout.read(states)))
        mask = torch.ones(len(statistics.average), dtype=torch.bool)
        changes.append(change_of(everybody[-1], readout, statistics.average, mask, params.gain))
    rate, set_on = rate_of(params, chosen.people), rows_by_fold(rest.inputs, rest.who)
    found = find(everybody, statistics, set_on, params.shrinkage, rate)
    photos = [read(sorted(path.iterdir())[0]) for path in sorted((faces / "eval").iterdir())[: chosen.retained]]
    print(f"rate each {rate:g}, {len(rest.inputs)} photos set the thresholds\n")
    print("| people | unseen photos found | retained photos taken for somebody | retained change | PSNR A |")
    print("|---|---|---|---|---|")
    ledger, drawer = empty, _Drawer(encoder, photos)
    for person in range(chosen.people + 1):
        if person in chosen.marks:
            print(_mark(person, ledger, found, theirs, kept, encoder, weights, drawer))
        if person < chosen.people:
            ledger = enter(ledger, [f"case {person}"], [found[person]], [changes[person]], params)
    joint = enter(empty, [f"case {i}" for i in range(chosen.people)], found, changes, params)
    print(f"\none after another and at once, equal bits: {_equal(ledger, joint, weights)}")
    order = random.Random(1).sample(range(chosen.people), chosen.people)
    for number, person in enumerate(order):
        ledger = leave(ledger, [f"case {person}"])
        if number + 1 == chosen.people // 2:
            half = enter(empty, [f"case {i}" for i in range(chosen.people)], found, changes, params)
            print(
                "half withdrawn, as if they had never asked:",
                _equal(ledger, leave(half, _names(order, number)), weights),
            )
    edited = with_delta(encoder, compose(ledger, weights))
    print("all withdrawn, the encoder's fingerprint is the original's:", edited.fingerprint == encoder.fingerprint)


def _names(order: Sequence[int], number: int) -> list[str]:
    return [f"case {person}" for person in order[: number + 1]]


def _equal(one: Ledger, other: Ledger, weights: dict[str, Tensor]) -> bool:
    first, second = compose(one, weights).tensors, compose(other, weights).tensors
    return all(torch.equal(first[name], second[name]) for name in first)


def site_rows(encoder: Encoder, site: MlpSite, people: Sequence[Sequence[Path]], sums: SiteSums | None) -> SiteRows:
    """Pass everybody's photos through the encoder; `sums` gets their tokens too."""
    inputs, states, who = [], [], [number for number, person in enumerate(people) for _ in person]
    files = [file for person in people for file in person]
    for start in range(0, len(files), 64):
        with watching(encoder.model, site) as seen, torch.inference_mode():
            output = encoder.model.vision_model(encoder.pixels([read(file) for file in files[start : start + 64]]))
        inputs.append(seen[0][:, 0])
        states.append(output.last_hidden_state[:, 0])
        if sums is not None:
            sums.add(encoder.model, site, seen[0])
            sums.done += len(seen[0])
    return SiteRows(torch.cat(inputs), torch.cat(states), torch.tensor(who))


class _Drawer:
    """Portraits of retained photos by generator A, with the original encoder and with an edited one."""

    def __init__(self, encoder: Encoder, photos: Sequence[RgbImage]) -> None:
        self.generator = next(g for g in load_generators("portrait-mini", ["image_embeds"], "cpu"))
        self.encoder, self.photos = encoder, photos
        self.before = self.draw(encoder)

    def draw(self, encoder: Encoder) -> list[RgbImage]:
        """One portrait a photo, always of the same noise."""
        with torch.inference_mode():
            features = encoder.model(encoder.pixels(self.photos)).image_embeds
        prompts, seeds = ["a photo of a face"] * len(self.photos), list(range(len(self.photos)))
        return self.generator.draw(features, null_features(self.encoder, "image_embeds"), prompts, seeds)


def _mark(
    count: int,
    ledger: Ledger,
    found: Sequence[Found],
    theirs: SiteRows,
    kept: SiteRows,
    encoder: Encoder,
    weights: dict[str, Tensor],
    drawer: _Drawer,
) -> str:
    edited = with_delta(encoder, compose(ledger, weights))
    hits, taken = [], torch.zeros(len(kept.inputs), dtype=torch.bool)
    for person in range(count):
        one = found[person]
        unseen = (theirs.who == person).nonzero().flatten()[GIVEN:]
        hits.append(float((theirs.inputs[unseen].double() @ one.weight > one.threshold.value).double().mean()))
        taken |= kept.inputs.double() @ one.weight > one.threshold.value
    site = MlpSite(ledger.block)
    with torch.inference_mode():
        before, after = (site.module(e.model)(kept.inputs) for e in (encoder, edited))
    spread = (kept.states - kept.states.mean(0)).norm(dim=1).mean()
    change = float(((after - before).norm(dim=1) / spread).mean())
    quality = float(psnr(_pixels(drawer.before), _pixels(drawer.draw(edited))).mean())
    told = f"{np.mean(hits):.3f}" if hits else "–"
    return f"| {count} | {told} | {float(taken.double().mean()):.4f} | {change:.4f} | {quality:.1f} |"


def _pixels(pictures: Sequence[RgbImage]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    main()
