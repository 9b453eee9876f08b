"""What each setting of `gated` does: tap `image_embeds`, portraits of generator A judged by recogniser d.

    python benchmarks/gated_ablations.py [--draws 10]

Each draw removes one person of `eval` alone; the portraits are of five photos that were not given. No copies are used,
so that settings differ in one thing. Statistics and thresholds come from `train`. Found: share of all the person's
photos that were not given and are found. Taken: share of other `eval` people's photos that are taken for the person.
Matches: portraits nearer to their photo than a hundredth of other people's photos are; of others: pairs of such a
portrait and a photo of another person that are as near, .01 of which match by chance. ID^g: similarity of the
portraits before and after. Change: of other people's embeddings, over their deviation from the mean.
Needs IREU_DATA.
"""

import argparse
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from detector_table import rows_by_fold
from ireu_cli.encoders.clip import Encoder, load_encoder
from ireu_cli.encoders.files.portrait import embedded_folder
from ireu_cli.encoders.mlp_site import MlpSite, watching
from ireu_cli.faces.align import template_points
from ireu_cli.faces.swap import Face, blend
from ireu_cli.generators.generator import Generator, load_generators
from ireu_cli.judges.face_check import load_face_check
from ireu_cli.locating.scores import locate_by_variance
from ireu_cli.maths.stats import estimate
from ireu_cli.params import EncoderParams, GatedParams
from ireu_cli.support.runtime import generator as random_generator
from ireu_cli.unlearning.gated.site_sums import SiteSums, summarise
from ireu_cli.unlearning.gated.solve import (
    Readout,
    Rows,
    SiteStatistics,
    Wanted,
    change_of,
    compose,
    enter,
    find,
    open_ledger,
    readout_of,
)
from many_requests import SiteRows, site_rows
from portrait_table import Judge, read
from target_draws import LANDMARKS

SHOWN, PARTNERS, MOST_GIVEN = 5, 10, 10
MARKS = tuple(float(part) for part in LANDMARKS.split(","))


@dataclass(frozen=True)
class Setting:
    """One row: what is given, what may change and how far."""

    name: str = "usual"
    photos: int = 5
    retained: int | None = None
    rate: float = 0.01
    gain: float = GatedParams().gain
    top: float = 1.0
    aim: str = "average"


USUAL = Setting()
SETTINGS = (
    USUAL,
    *(replace(USUAL, name=f"{n} photos given", photos=n) for n in (1, 3, 10)),
    *(replace(USUAL, name=f"{n} retained photos", retained=n) for n in (100, 300, 1000, 3000)),
    *(replace(USUAL, name=f"false-alarm rate {rate:g}", rate=rate) for rate in (0.05, 0.003, 0.001)),
    *(replace(USUAL, name=f"gain {gain:g}", gain=gain) for gain in (0.5, 1.0, 1.5, 3.0)),
    *(replace(USUAL, name=f"mask of {top:g}", top=top) for top in (0.1, 0.2, 0.4, 0.7)),
    replace(USUAL, name="negation instead of the average", aim="negation"),
    replace(USUAL, name="a retained person instead of the average", aim="person"),
    replace(USUAL, name="away from swapped faces, alpha 100", aim="swap"),
)


@dataclass(frozen=True)
class World:
    """What all draws share."""

    encoder: Encoder
    site: MlpSite
    readout: Readout
    rest: SiteRows
    sums: SiteSums
    nulls: Tensor
    kept: SiteRows
    files: list[Path]
    drawer: Generator
    judge: Judge


def main() -> None:
    """Encode once, then a row a setting."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--only", default="", help="print the rows whose name has these words, and no others")
    chosen = parser.parse_args()
    world = _world(Path(os.environ["IREU_DATA"]))
    masks = {s.top: _mask(world, s.top) for s in SETTINGS}
    heads = ("found", "taken", "matches", "matches others", "ID^g", "face found", "change")
    print(
        f"{chosen.draws} draws; mean [95 % over draws]\n\n| setting | {' | '.join(heads)} |\n|---|{'---|' * len(heads)}"
    )
    counts = torch.bincount(world.kept.who)
    enough = [person for person, count in enumerate(counts.tolist()) if count >= MOST_GIVEN + SHOWN]
    people = random.Random(0).sample(enough, chosen.draws)
    print(_line("original", [_portraits(world, person, None) for person in people], heads), flush=True)
    for setting in (setting for setting in SETTINGS if chosen.only in setting.name):
        statistics, rows = _statistics(world, setting.retained)
        told = [_draw(world, setting, statistics, rows, masks[setting.top], person) for person in people]
        print(_line(setting.name, told, heads), flush=True)


def _world(data: Path) -> World:
    encoder = load_encoder(EncoderParams(), "cpu")
    site, model = MlpSite(encoder.blocks - 1), encoder.model
    sums = SiteSums()
    rest = site_rows(encoder, site, _people(data / "faces" / "train"), sums)
    people = _people(data / "faces" / "eval")
    kept, files = site_rows(encoder, site, people, None), [file for person in people for file in person]
    with watching(model, site) as seen, torch.inference_mode():
        model.vision_model(encoder.null_pixels())
    readout = readout_of(encoder, "image_embeds")
    check = load_face_check(embedded_folder() / "face_check")
    drawer = load_generators("portrait-mini", ["image_embeds"], "cpu")[0]
    return World(encoder, site, readout, rest, sums, seen[0][:, 0], kept, files, drawer, Judge(data, check, "d"))


def _people(folder: Path) -> list[list[Path]]:
    return [sorted(path.iterdir()) for path in sorted(folder.iterdir())]


def _statistics(world: World, most: int | None) -> tuple[SiteStatistics, Rows]:
    """Of so many retained photos, person by person; sums over tokens stay those of all."""
    inputs, states = world.rest.inputs[:most], world.rest.states[:most]
    split = torch.unique_consecutive(world.rest.who[:most], return_counts=True)[1].tolist()
    people = zip(torch.split(inputs, split), torch.split(states, split), strict=True)
    return summarise(world.sums, people, [], world.nulls, world.readout, split), rows_by_fold(
        inputs, world.rest.who[:most]
    )


def _mask(world: World, top: float) -> Tensor:
    split = torch.unique_consecutive(world.rest.who, return_counts=True)[1].tolist()
    people = (world.readout.read(states) for states in torch.split(world.rest.states, split))
    return locate_by_variance(people, top, random_generator(0, "ablation")).mask.mask


def _draw(
    world: World, setting: Setting, statistics: SiteStatistics, rows: Rows, mask: Tensor, person: int
) -> dict[str, float]:
    mine = (world.kept.who == person).nonzero().flatten()
    given, unseen = mine[: setting.photos], mine[setting.photos :]
    states = world.kept.states[given]
    wanted = Wanted(world.kept.inputs[given], states, world.readout.read(states))
    found = find([wanted], statistics, rows, GatedParams().shrinkage, setting.rate)[0]
    change = _change(world, setting, statistics, wanted, mask, given)
    weights = world.site.weights(world.encoder.model)
    empty = open_ledger(statistics, world.site, weights, 5)
    delta = compose(enter(empty, ["one"], [found], [change], GatedParams()), weights)
    new = {name: weights[name] + delta.tensors[name].double() for name in weights}
    after = world.kept.states + _mlp(world, new) - _mlp(world, weights)
    hits = world.kept.inputs.double() @ found.weight > found.threshold.value
    others = world.kept.who != person
    before_, after_ = (world.readout.read(part[others]) for part in (world.kept.states, after))
    spread = (before_ - before_.mean(0)).norm(dim=1)
    return _portraits(world, person, after) | {
        "found": float(hits[unseen].double().mean()),
        "taken": float(hits[others].double().mean()),
        "change": float(((after_ - before_).norm(dim=1) / spread).mean()),
    }


def _mlp(world: World, weights: dict[str, Tensor]) -> Tensor:
    """What the site adds to the class token of every `eval` photo."""
    site, module = world.site, world.site.module(world.encoder.model)
    inner, bias, outer, constant = (
        weights[site.name(part)].float() for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
    )
    with torch.inference_mode():
        found: Tensor = module.activation_fn(world.kept.inputs @ inner.T + bias) @ outer.T + constant
    return found


def _change(
    world: World, setting: Setting, statistics: SiteStatistics, wanted: Wanted, mask: Tensor, given: Tensor
) -> Tensor:
    """`change_of` goes to any point: it is handed one instead of the average."""
    features, gain = wanted.features.double(), setting.gain
    aim = statistics.average.double()
    if setting.aim == "negation":
        aim, gain = -features.mean(0), 1.0
    elif setting.aim == "person":
        aim, gain = world.readout.read(world.rest.states[world.rest.who == 0]).double().mean(0), 1.0
    elif setting.aim == "swap":
        aim, gain = features.mean(0) + 100 * _shift(world, given), 1.0
    return change_of(wanted, world.readout, aim, mask, gain)


def _shift(world: World, given: Tensor) -> Tensor:
    """The paper's mean difference of photos and the same with other people's faces: (k,)."""
    others = random.Random(1).sample(range(len(world.files)), PARTNERS)
    faces = [_face(world.files[i]) for i in others]
    shifts = []
    for place in given.tolist():
        own = _face(world.files[place])
        with torch.inference_mode():
            pictures = world.encoder.pixels([own.image, *(blend(own, face) for face in faces)])
            features = world.encoder.model(pictures).image_embeds.double()
        shifts.append(features[0] - features[1:].mean(0))
    return torch.stack(shifts).mean(0)


def _face(file: Path) -> Face:
    image = read(file)
    return Face(image, template_points(MARKS, image))


def _portraits(world: World, person: int, after: Tensor | None) -> dict[str, float]:
    """Portraits of photos that no setting is given, drawn from states; None: the original's."""
    mine = (world.kept.who == person).nonzero().flatten()[-SHOWN:]
    first = _vectors(world, mine, world.kept.states)
    drawn = first if after is None else _vectors(world, mine, after)
    own = torch.stack([world.judge(world.files[i]) for i in mine.tolist()])
    others = torch.stack([world.judge(world.files[i]) for i in _one_each(world.kept.who, person)])
    pairs = (first @ others.T).flatten()
    threshold = pairs[torch.isfinite(pairs)].quantile(0.99)
    seen = torch.isfinite(drawn).all(1)
    against = (drawn[seen] @ others.T).flatten()
    return {
        "matches": float(((drawn * own).sum(1) > threshold).double().mean()),
        "matches others": float((against[torch.isfinite(against)] > threshold).double().mean()),
        "ID^g": float((drawn * first).sum(1)[seen].mean()),
        "face found": float(seen.double().mean()),
    }


def _one_each(who: Tensor, person: int) -> list[int]:
    """Three photos of each other person."""
    return [i for other in sorted(set(who.tolist())) if other != person for i in (who == other).nonzero().flatten()[:3]]


def _vectors(world: World, mine: Tensor, states: Tensor) -> Tensor:
    features = world.readout.read(states[mine])
    prompts = ["a photo of a face"] * len(mine)
    null = world.encoder.null_features("image_embeds")
    pictures = world.drawer.draw(features, null, prompts, list(range(len(mine))))
    return torch.stack([world.judge.look(picture) for picture in pictures])


def _line(name: str, told: Sequence[dict[str, float]], heads: Sequence[str]) -> str:
    cells = []
    for head in heads:
        values = [torch.tensor([one[head]]) for one in told if head in one and one[head] == one[head]]
        found = estimate(values, 2000, random_generator(0, "table", head)) if values else None
        span = "" if found is None or found.low is None else f" [{found.low:.2f}, {found.high:.2f}]"
        digits = 4 if head in {"taken", "change"} else 3
        cells.append("–" if found is None else f"{found.value:.{digits}f}{span if digits == 3 else ''}")
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
