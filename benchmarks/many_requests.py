"""Requests one after another: what each further person costs the others, and what is left when all are withdrawn.

    python benchmarks/many_requests.py [--people 200] [--retained 30] [--marks 0 1 5 20 50 100 200]

People of `train` with six photos or more ask one by one, five photos each, tap `image_embeds`; statistics and
thresholds come from other people of `train`, retained people are those of `eval`. Printed at each mark, beside what a
single request for the same people gives that has places for nobody else: the share of the removed people's unseen
photos that their detectors find, the share of retained photos that any detector takes for somebody, the change of
retained features over their spread; of generator A's portraits, ID^g of unseen photos of up to 80 removed people,
delta ID (that of retained people less it), by recogniser d, and PSNR of retained people's. Then all are withdrawn in
random order, and a request for all with the same places is compared bit by bit. Last, the charts for Markdown.
Needs IREU_DATA.
"""

import argparse
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector_table import rows_by_fold
from ireu_cli.encoders.clip import Encoder, load_encoder, with_delta
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.encoders.mlp_site import MlpSite, watching
from ireu_cli.generators.generator import load_generators
from ireu_cli.judges.face_check import load_face_check
from ireu_cli.maths.images.differences import psnr
from ireu_cli.params import EncoderParams, GatedParams
from ireu_cli.unlearning.gated.site_sums import SiteSums, summarise
from ireu_cli.unlearning.gated.slots import leave
from ireu_cli.unlearning.gated.solve import (
    Found,
    Wanted,
    change_of,
    compose,
    enter,
    find,
    open_ledger,
    rate_of,
    readout_of,
)
from ireu_cli.values import Ledger, RgbImage
from portrait_table import Judge, finite_mean, read

GIVEN, SHOWN = 5, 40
"""Photos of each person that are given, and people whose next photo is drawn."""
COLUMNS = {
    "unseen photos found": 3,
    "retained photos taken for somebody": 4,
    "retained change": 4,
    "delta ID unseen": 3,
    "ID^g unseen": 3,
    "PSNR retained": 1,
}
"""Figures, and how many of their digits are printed."""


@dataclass(frozen=True)
class SiteRows:
    """Photos as the site sees them: inputs and last states at the class token (n, d), and whose they are."""

    inputs: Tensor
    states: Tensor
    who: Tensor


@dataclass(frozen=True)
class World:
    """The encoder, the site's original weights, people who ask and people who do not, and the generator."""

    encoder: Encoder
    weights: dict[str, Tensor]
    theirs: SiteRows
    kept: SiteRows
    drawer: "_Drawer"


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
    readout = readout_of(encoder, "image_embeds")
    split = torch.unique_consecutive(rest.who, return_counts=True)[1].tolist()
    people = zip(torch.split(rest.inputs, split), torch.split(rest.states, split), strict=True)
    with watching(encoder.model, site) as seen, torch.inference_mode():
        encoder.model.vision_model(encoder.null_pixels())
    statistics = summarise(sums, people, [], seen[0][:, 0], readout, split)
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
    unseen = [read(sorted(path.iterdir())[GIVEN]) for path in asking]
    print(f"rate each {rate:g}, {len(rest.inputs)} photos set the thresholds\n")
    print("| people | asked | " + " | ".join(COLUMNS) + " |")
    print("|---|---|" + "---|" * len(COLUMNS))
    world = World(encoder, weights, theirs, kept, _Drawer(encoder, photos, unseen))
    ledger, marks = empty, {}
    for person in range(chosen.people + 1):
        if person in chosen.marks:
            marks[person] = [_mark(world, ledger, found[:person])]
            if person:
                each = rate_of(params, person)
                some = find(everybody[:person], statistics, set_on, params.shrinkage, each)
                alone = open_ledger(statistics, site, weights, person)
                joint = enter(alone, _cases(person), some, changes[:person], params)
                marks[person].append(_mark(world, joint, some))
            for how, figures in zip(("one by one", "at once"), marks[person], strict=False):
                cells = [
                    "–" if value != value else f"{value:.{digits}f}"
                    for value, digits in zip(figures, COLUMNS.values(), strict=True)
                ]
                print(f"| {person} | {how} | " + " | ".join(cells) + " |", flush=True)
        if person < chosen.people:
            ledger = enter(ledger, [f"case {person}"], [found[person]], [changes[person]], params)
    joint = enter(empty, _cases(chosen.people), found, changes, params)
    print(f"\none after another and at once, equal bits: {_equal(ledger, joint, weights)}")
    order = random.Random(1).sample(range(chosen.people), chosen.people)
    for number, person in enumerate(order):
        ledger = leave(ledger, [f"case {person}"])
        if number + 1 == chosen.people // 2:
            half = enter(empty, _cases(chosen.people), found, changes, params)
            print(
                "half withdrawn, as if they had never asked:",
                _equal(ledger, leave(half, _names(order, number)), weights),
            )
    edited = with_delta(encoder, compose(ledger, weights))
    print("all withdrawn, the encoder's fingerprint is the original's:", edited.fingerprint == encoder.fingerprint)
    for name in ("delta ID unseen", "PSNR retained"):
        print(_plot(name, marks))


def _cases(count: int) -> list[str]:
    return [f"case {person}" for person in range(count)]


def _plot(name: str, marks: Mapping[int, Sequence[Sequence[float]]]) -> str:
    """A chart in Mermaid's language, as Markdown shows it: the first line one by one, the second at once."""
    column = list(COLUMNS).index(name)
    told = {count: figures for count, figures in marks.items() if count}
    lines = [[f"{figures[how][column]:.3f}" for figures in told.values()] for how in range(2)]
    drawn = "\n".join(f"    line [{', '.join(line)}]" for line in lines)
    people = ", ".join(str(count) for count in told)
    return (
        f'\n```mermaid\nxychart-beta\n    title "{name}: one by one, and at once"\n'
        f'    x-axis "people" [{people}]\n{drawn}\n```'
    )


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
    """Portraits by generator A, with the original encoder and with an edited one, and who is on them."""

    def __init__(self, encoder: Encoder, retained: Sequence[RgbImage], targets: Sequence[RgbImage]) -> None:
        self.generator = next(g for g in load_generators("portrait-mini", ["image_embeds"], "cpu"))
        self.encoder, self.retained, self.targets = encoder, retained, targets
        check = load_face_check(embedded_folder() / "face_check")
        self.judge = Judge(Path(os.environ["IREU_DATA"]), check, "d")
        self.before = self.draw(encoder, retained)
        self.looks = self._look(self.before)

    def draw(self, encoder: Encoder, photos: Sequence[RgbImage]) -> list[RgbImage]:
        """One portrait a photo, always of the same noise."""
        with torch.inference_mode():
            features = encoder.model(encoder.pixels(photos)).image_embeds
        prompts, seeds = ["a photo of a face"] * len(photos), list(range(len(photos)))
        return self.generator.draw(features, self.encoder.null_features("image_embeds"), prompts, seeds)

    def compare(self, edited: Encoder, count: int) -> tuple[float, float, float]:
        """Delta ID of unseen photos of the first people, their ID^g, and PSNR of retained portraits."""
        after = self.draw(edited, self.retained)
        others = finite_mean((self.looks * self._look(after)).sum(1))
        quality = float(psnr(_pixels(self.before), _pixels(after)).mean())
        if not count:
            return float("nan"), float("nan"), quality
        photos = self.targets[: count : max(1, count // SHOWN)]
        first, second = (self._look(self.draw(one, photos)) for one in (self.encoder, edited))
        own = finite_mean((first * second).sum(1))
        return others - own, own, quality

    def _look(self, pictures: Sequence[RgbImage]) -> Tensor:
        return torch.stack([self.judge.look(picture) for picture in pictures])


def _mark(world: World, ledger: Ledger, found: Sequence[Found]) -> list[float]:
    encoder, theirs, kept = world.encoder, world.theirs, world.kept
    edited = with_delta(encoder, compose(ledger, world.weights))
    hits, taken = [], torch.zeros(len(kept.inputs), dtype=torch.bool)
    for person, one in enumerate(found):
        unseen = (theirs.who == person).nonzero().flatten()[GIVEN:]
        hits.append(float((theirs.inputs[unseen].double() @ one.weight > one.threshold.value).double().mean()))
        taken |= kept.inputs.double() @ one.weight > one.threshold.value
    site = MlpSite(ledger.block)
    with torch.inference_mode():
        before, after = (site.module(e.model)(kept.inputs) for e in (encoder, edited))
    spread = (kept.states - kept.states.mean(0)).norm(dim=1).mean()
    change = float(((after - before).norm(dim=1) / spread).mean())
    share = float(np.mean(hits)) if hits else float("nan")
    return [share, float(taken.double().mean()), change, *world.drawer.compare(edited, len(found))]


def _pixels(pictures: Sequence[RgbImage]) -> Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


if __name__ == "__main__":
    main()
