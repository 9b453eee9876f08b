"""How near the plain tensors of facexlib's `ir_se50` come to a gate behind its output.

Behind the network's last linear layer nothing is left that could open for one person: a batch normalisation, and the
scaling to length one. The last place where the whole picture decides is the squeezed layer of the last unit. One of its
units becomes a detector, and one channel, whose own part is held constant, writes the change when it opens. Other
channels and units stand in for both. This prints, for one drawn person and for drawn strangers whom the edit never saw,
what that edit does beside gates behind the output.

python benchmarks/squeeze_gate.py --out /tmp/squeeze            # a small one, its last layer fitted to drawn people
python benchmarks/squeeze_gate.py --out /tmp/squeeze --true     # of the true size, with random weights
python benchmarks/squeeze_gate.py --out /tmp/squeeze --network recognition_arcface_ir_se50.pth
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.drawn.face_network import _discriminants
from tests.drawn.people import draw_photo, person_numbers, photo_numbers
from tests.tiny_ir_se import true_sizes, write_ir_se

from ireu_cli.encoders.families import load_encoder
from ireu_cli.encoders.ir_se.backbone import IrSeSizes, UnitSizes
from ireu_cli.encoders.ir_se.encoder import IrSeEncoder
from ireu_cli.params import ARCFACE_LANDMARKS, EncoderParams, GatedParams
from ireu_cli.unlearning.gated.solve import Found
from ireu_cli.unlearning.gated.solve_network import EmbeddingStatistics, find_embedded, summarise_embeddings
from ireu_cli.values import WeightDelta

TAP = "normed_embedding"
SMALL = IrSeSizes(
    16, (UnitSizes(16, 16, 4, 2), UnitSizes(16, 32, 4, 2), UnitSizes(32, 48, 4, 2), UnitSizes(48, 64, 8, 2)), 7, 48
)
PHOTOS, USED = 4, 6
LEARNED, SEED = 120, 7
"""Drawn people to whom the last layer is fitted, and the seed that draws them."""
HELD = 8.0
"""The constant of the channel that writes."""
RIDGE = 1e-3
FULL = 6.0
"""The input of a sigmoid that counts as fully open."""


@dataclass(frozen=True)
class Seen:
    """What one pass shows of some photos.

    `residual` and `shortcut` (n, channels, places) are the last unit's two parts, `squeezed` (n, units) its squeezed
    layer, `linear` (n, width) the output of the last linear layer, `embedding` the same at length one in the end.
    """

    residual: Tensor
    shortcut: Tensor
    squeezed: Tensor
    linear: Tensor
    embedding: Tensor

    @property
    def means(self) -> Tensor:
        """What the squeezed layer reads: (n, channels)."""
        return self.residual.mean(2)

    def of(self, some: slice) -> "Seen":
        """Some of the photos."""
        return Seen(*(part[some] for part in vars(self).values()))


def drawn(encoder: IrSeEncoder, seed: int, number: int, count: int) -> Tensor:
    """Photos of one drawn person, as the network is given them."""
    rows = [draw_photo(person_numbers(seed, number), photo_numbers(seed, number, photo)) for photo in range(count)]
    return encoder.pixels(rows)


def write_fitted(path: Path) -> Path:
    """Random weights, and a last linear layer of discriminants of drawn people, so that it tells people apart."""
    encoder: Any = load_encoder(EncoderParams(source=str(write_ir_se(path, SMALL)), tap=TAP), ARCFACE_LANDMARKS, "cpu")
    kept: list[Tensor] = []
    encoder.model.output_layer[2].register_forward_hook(lambda _module, _inputs, output: kept.append(output.double()))
    for number in range(LEARNED):
        encoder.encode(drawn(encoder, SEED, number, PHOTOS), TAP)
    matrix, mean = _discriminants(torch.cat(kept).view(LEARNED, PHOTOS, -1), SMALL.width)
    state = torch.load(path)
    state["output_layer.3.weight"], state["output_layer.3.bias"] = matrix.T.float(), (-mean @ matrix).float()
    for name, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
        state[f"output_layer.4.{name}"].fill_(value)
    torch.save(state, path)
    return path


def look(encoder: IrSeEncoder, pixels: Tensor) -> Seen:
    """Pass photos through, and keep what the edit needs."""
    last = encoder.model.body[-1]
    kept: dict[str, list[Tensor]] = {}

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: kept.setdefault(name, []).append(output.double())

    parts = {
        "residual": last.res_layer[4],
        "squeezed": last.res_layer[5].fc1,
        "shortcut": last.shortcut_layer,
        "linear": encoder.model.output_layer[3],
    }
    handles = [module.register_forward_hook(keep(name)) for name, module in parts.items()]
    embedding = encoder.encode(pixels, TAP).double()
    for handle in handles:
        handle.remove()
    found = {name: torch.cat(rows) for name, rows in kept.items()}
    residual, shortcut = found["residual"].flatten(2), found["shortcut"].flatten(2)
    return Seen(residual, shortcut, found["squeezed"].flatten(1).relu(), found["linear"], embedding)


def people_in(rows: Tensor) -> list[Tensor]:
    """Rows (n, d) by person."""
    return list(torch.split(rows, PHOTOS))


def detector(rows: Sequence[Tensor], own: Tensor, nulls: Tensor, params: GatedParams) -> tuple[Found, Tensor]:
    """The person's detector among people, (n, d) each, and the mean of people."""
    sizes = [len(person) for person in rows]
    statistics: EmbeddingStatistics = summarise_embeddings(rows, (), nulls, sizes)
    folds = len(statistics.people.others)
    (found,) = find_embedded(
        [own], statistics, lambda fold: rows[fold::folds], params.shrinkage, params.max_false_alarm
    )
    return found, statistics.average


def fitted(inputs: Tensor, wanted: Tensor) -> Tensor:
    """Least squares with a ridge: inputs (n, d) and a constant to wanted (n,), the constant left out."""
    inputs, wanted = inputs - inputs.mean(0), wanted - wanted.mean(0)
    gram = inputs.T @ inputs
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    found: Tensor = torch.linalg.solve(gram + ridge, inputs.T @ wanted)
    return found


def squeezed_edit(
    state: Mapping[str, Tensor], name: str, seen: Seen, found: Found, change: Tensor, rise: float
) -> dict[str, Tensor]:
    """New tensors that find a person in the squeezed layer of the last unit `name`.

    `seen` are retained photos; `change` (width,) is what the linear layer's output gets when the detector is open.
    """
    inner = f"{name}.res_layer"
    names = [f"{inner}.4.weight", f"{inner}.4.bias", f"{inner}.5.fc1.weight", f"{inner}.5.fc2.weight",
             "output_layer.3.weight", "output_layer.3.bias"]  # fmt: skip
    new = {key: state[key].double().clone() for key in names}
    into, out = new[f"{inner}.5.fc1.weight"][:, :, 0, 0], new[f"{inner}.5.fc2.weight"][:, :, 0, 0]
    scale = state["output_layer.0.weight"].double() / (state["output_layer.0.running_var"].double() + 1e-5).sqrt()
    linear = new["output_layer.3.weight"].view(len(change), len(scale), -1)
    gate = torch.sigmoid(seen.squeezed @ out.T)[:, :, None]
    scaled, maps = seen.residual * gate, seen.residual * gate + seen.shortcut
    # The channel and the unit whose loss weighs least.
    channel = int((linear.square().sum((0, 2)).sqrt() * scale.abs() * scaled.std((0, 2))).argmin())
    unit = int((out.norm(dim=0) * seen.squeezed.std(0)).argmin())
    places = linear.shape[2]
    # Others stand in for the channel's own part, which becomes constant, at each place.
    left = maps.clone()
    left[:, channel] = seen.shortcut[:, channel]
    by = fitted(left.transpose(1, 2).reshape(-1, len(scale)), scaled[:, channel].reshape(-1))
    own = linear[:, channel].clone()
    ratio = scale[channel] / scale * by
    ratio[channel] = by[channel]
    linear += own[:, None, :] * ratio[None, :, None]
    # What is written comes through the sum over places, so the channel's mean over places is read from others.
    rest = (2 * change / (HELD * scale[channel]) - linear[:, channel].sum(1)) / places
    means = left.mean(2)
    means[:, channel] = 0
    by = fitted(means, seen.shortcut[:, channel].mean(1)) * scale[channel] / scale
    by[channel] = 0
    linear[:, channel] += rest[:, None]
    linear -= rest[:, None, None] * by[None, :, None]
    new[f"{inner}.4.weight"][channel], new[f"{inner}.4.bias"][channel] = 0, HELD
    # Other units stand in for the detector's, and take the constant channel at its mean.
    others = seen.squeezed.clone()
    others[:, unit] = 0
    gram = others.T @ others
    gram += (RIDGE * gram.diagonal().mean() + 1e-12) * torch.eye(len(gram), dtype=gram.dtype)
    out += out[:, unit, None] * torch.linalg.solve(gram, others.T @ seen.squeezed[:, unit])[None]
    into[:, channel] *= seen.means[:, channel].mean() / HELD
    into[unit] = found.weight
    into[unit, channel] = -found.threshold.value / HELD
    out[:, unit], out[channel] = 0, 0
    out[channel, unit] = FULL / rise
    return new


def run(path: Path, people: int, seed: int) -> dict[str, Any]:
    """Edit for one person both ways, and measure both on strangers and on the person's other photos."""
    encoder: Any = load_encoder(EncoderParams(source=str(path), tap=TAP), ARCFACE_LANDMARKS, "cpu")
    params = GatedParams(max_false_alarm=0.05)

    target = drawn(encoder, seed, 0, 2 * USED)
    strangers = torch.cat([drawn(encoder, seed, number, PHOTOS) for number in range(1, 1 + people)])
    own, others = look(encoder, target), look(encoder, strangers)
    nulls = look(encoder, encoder.null_pixels())
    half = slice(0, PHOTOS * (people // 2))
    used, mine = others.of(half), own.of(slice(0, USED))
    behind, average = detector(people_in(used.embedding), mine.embedding, nulls.embedding, params)
    toward = params.gain * (average - mine.embedding.mean(0))
    gates = {"gates.weights": behind.weight[None], "gates.thresholds": torch.tensor([behind.threshold.value]),
             "gates.changes": toward[None], "gates.rise": torch.tensor([params.rise])}  # fmt: skip
    inside, _ = detector(people_in(used.means), mine.means, nulls.means, params)
    state = encoder.model.state_dict()
    # From the embedding's change to that of the linear layer's output: undo the last normalisation.
    spread = (state["output_layer.4.running_var"].double() + 1e-5).sqrt() / state["output_layer.4.weight"].double()
    centre, bias = (state[f"output_layer.4.{part}"].double() for part in ("running_mean", "bias"))
    last = (mine.linear - centre) / spread + bias
    change = toward * last.norm(dim=1).mean() * spread
    new = squeezed_edit(state, f"body.{encoder.blocks - 1}", used, inside, change, params.rise)
    delta = {name: (tensor - state[name].double()).float() for name, tensor in new.items()}
    # Both stand-ins leave a constant, which the bias takes back.
    first = look(encoder.edited(WeightDelta(delta)), strangers[half][::2])
    delta["output_layer.3.bias"] += (used.linear[::2] - first.linear).mean(0).float()
    found: dict[str, Any] = {}
    for kind, edit in (("gates behind the output", gates), ("in plain tensors", delta)):
        edited = encoder.edited(WeightDelta({name: tensor.float() for name, tensor in edit.items()}))
        after = [look(edited, some).embedding for some in (target, strangers[half.stop :])]
        found[kind] = measured(own.embedding, others.embedding[half.stop :], *after)
    weight = state["output_layer.3.weight"].double()
    placed = state["output_layer.0.weight"].double() / (state["output_layer.0.running_var"].double() + 1e-5).sqrt()

    def at_places(some: Seen) -> Tensor:
        found: Tensor = (some.shortcut * placed[:, None]).flatten(1) @ weight.T
        return found

    readers: dict[str, Any] = {
        "the embedding": lambda some: some.embedding,
        "channels' means": lambda some: some.means,
        "what enters the last unit, with its places": at_places,
    }
    found["share found by a detector of"] = {
        name: reached(read(own), read(others), read(nulls), half.stop, params) for name, read in readers.items()
    }
    return found | {"people tell apart": apart(others.embedding[half.stop :])}


def reached(own: Tensor, others: Tensor, nulls: Tensor, half: int, params: GatedParams) -> dict[str, float]:
    """What a detector of some vectors finds, if nothing else changed: of the person's photos, and of strangers'."""
    found, _ = detector(people_in(others[:half]), own[:USED], nulls, params)

    def share(some: Tensor) -> float:
        return float((some @ found.weight > found.threshold.value).double().mean())

    return {"used": share(own[:USED]), "other": share(own[USED:]), "strangers": share(others[half:])}


def measured(own: Tensor, others: Tensor, own_after: Tensor, others_after: Tensor) -> dict[str, float]:
    """How far photos move: cosines between before and after, around the mean of strangers.

    The first `USED` of the person's photos made the edit; a photo counts as moved below a cosine of .9.
    """
    centre = others.mean(0)
    mine = cosine_similarity(own - centre, own_after - centre)
    theirs = cosine_similarity(others - centre, others_after - centre)

    def moved(some: Tensor) -> float:
        return float((some < 0.9).double().mean())

    return {
        "person, share of used photos moved": moved(mine[:USED]),
        "person, share of other photos moved": moved(mine[USED:]),
        "strangers, share moved": moved(theirs),
        "strangers, mean cosine of those not moved": float(theirs[theirs >= 0.9].mean()),
        "strangers, share bit for bit": float((others == others_after).all(1).double().mean()),
    }


def apart(embeddings: Tensor) -> dict[str, float]:
    """How alike two photos of one person are, and of two people, around the mean of all."""
    rows = normalize(embeddings - embeddings.mean(0), dim=1)
    cosines = rows @ rows.T
    who = torch.arange(len(rows)) // PHOTOS
    same = (who[:, None] == who[None]) & ~torch.eye(len(rows), dtype=torch.bool)
    return {"same": float(cosines[same].mean()), "other": float(cosines[who[:, None] != who[None]].mean())}


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--network", type=Path)
    parser.add_argument("--true", action="store_true")
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.network
    if path is None:
        place = args.out / "network.pth"
        path = write_ir_se(place, true_sizes()) if args.true else write_fitted(place)
    print(json.dumps(run(path, args.people, args.seed), indent=2))


if __name__ == "__main__":
    main()
