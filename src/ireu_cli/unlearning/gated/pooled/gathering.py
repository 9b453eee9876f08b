"""Let some heads of a block's attention average all tokens, and find directions in which they can write scores.

One patch says too little about who is in the photo, and an encoder without a class token has none that says more. A
head whose queries and keys are zero attends to all tokens alike. So a row of its values gives the mean over tokens of a
linear score, and its output writes that score into every token, along a direction in which tokens hardly vary. The
block's hidden layer reads it there, opens where it is high, and takes it out again where it is not. What the heads did
before, the others do as well as they can (`pooled.heads`).
"""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ireu_cli.errors import CapacityError
from ireu_cli.maths.quiet import normalised, quiet_directions
from ireu_cli.maths.room import activation_gram
from ireu_cli.unlearning.gated.pooled.heads import SparedHeads, spare_heads
from ireu_cli.unlearning.gated.tokens.marking import after_attention_in_pieces, after_mlp_in_pieces
from ireu_cli.values import most_people_in_heads

LENGTH = 0.8
"""How far a score of one standard deviation moves a token, in deviations of the token's channels."""
SCORE_STEP, _SCORES = 0.5, 25
"""Scores for which it is said where units open: from 0, in such steps, so many."""
_SEED, _TOKENS, _RIDGE = 0, 2**15, 1e-6
"""The draw of scores, the number of tokens that see them, and the share of their mean square that is added."""


@dataclass(frozen=True)
class Gathering:
    """What all people share in the block that finds them; see `PooledLedger` for the tensors of its places.

    `changes` are of the attention's tensors, by the names of the block's parts: the heads write nothing yet. `told`
    says what taking the heads costs.
    """

    places: dict[str, Tensor]
    changes: dict[str, Tensor]
    told: dict[str, float]


def gather(layer: Any, states: Tensor, places: int) -> tuple[Gathering, Tensor]:
    """Take heads and directions for a number of people.

    Args:
        layer: a `CLIPEncoderLayer` or `SiglipEncoderLayer`, float32 on the CPU; it does not change.
        states: retained photos before the block, float32 (n, tokens, d).
        places: the most people there will be.

    Returns:
        What people share, and the states after the original attention, as `after_attention` gives them.

    Raises:
        CapacityError: see `heads_for`.
    """
    attention = layer.self_attn
    count = heads_for(attention, places)
    with torch.inference_mode():
        gram, gathered = _passed(attention, layer.layer_norm1(states))
        before = states + gathered
        spared = spare_heads(gram, attention.out_proj.weight, attention.num_heads, count)
        edited = copy.deepcopy(layer)
        _silence(edited.self_attn, spared)
        middle = after_attention_in_pieces(edited, states)
    spread = (before - before.mean(0)).square().mean()
    told = {"heads": float(count), "heads_cost": float(((middle - before).square().mean() / spread).sqrt())}
    original = attention.state_dict()
    changes = {f"self_attn.{name}": new - original[name] for name, new in edited.self_attn.state_dict().items()}
    return Gathering(_places(layer, middle, spared.places[:places]), changes, told), before


def heads_for(attention: Any, places: int) -> int:
    """How many heads of an attention a number of people needs.

    Raises:
        CapacityError: they are more than half of them.
    """
    number, size = int(attention.num_heads), int(attention.head_dim)
    count = -(-places // size)
    if number < 2:
        raise CapacityError(
            "The encoder has one attention head a block, so none can be spared to average tokens",
            "Use --tap pooled, or another --method",
        )
    if count > number // 2:
        raise CapacityError(
            f"{places} people need {count} attention heads of the block, and half of its heads are {number // 2}",
            f"Set gated.people to {most_people_in_heads(number, size)} at most",
        )
    return count


def _passed(attention: Any, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The sums of products of what heads gather, see `spare_heads`, and what the attention writes of all inputs."""
    width = attention.out_proj.weight.shape[1]
    seen: list[Tensor] = []
    handle = attention.out_proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    gram, found = torch.zeros(width + 1, width + 1, dtype=torch.float64), []
    try:
        for part in torch.split(inputs, 64):
            found.append(attention(part, attention_mask=None)[0])
            gram += activation_gram(seen.pop().flatten(0, 1))
    finally:
        handle.remove()
    return gram, torch.cat(found)


def _silence(attention: Any, spared: SparedHeads) -> None:
    """Let heads attend to everything alike and write nothing, and let the others stand in for them."""
    added = spared.added.float()
    attention.out_proj.weight.add_(added[:, :-1])
    attention.out_proj.bias.add_(added[:, -1])
    attention.out_proj.weight[:, spared.places] = 0
    for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
        projection.weight[spared.places] = 0
        projection.bias[spared.places] = 0


def _places(layer: Any, middle: Tensor, channels: Tensor) -> dict[str, Tensor]:
    """For each place, where its score is written, read, and taken out again.

    A score s moves a token, of deviation σ, by a s q, where q is quiet and of length one. The layer norm shows a s / σ
    of it along q, beside what the token has there anyway.
    """
    norm = layer.layer_norm2
    axes, mean = quiet_directions(normalised(middle, norm).flatten(0, 1), len(channels))
    deviations = middle.std(-1, correction=0)
    amount = LENGTH * float(deviations.mean())
    shown = amount * float((1 / deviations).mean())
    weights = axes / norm.weight
    writers, readers = amount * axes, weights / shown
    rests = (weights @ norm.bias + axes @ mean) / shown
    return {
        "channels": channels,
        "writers": writers,
        "readers": readers,
        "rests": rests,
        "takers": _takers(layer, middle, writers, readers, rests),
        "openings": _openings(middle, axes, axes @ mean, amount, shown),
    }


def _openings(middle: Tensor, axes: Tensor, rests: Tensor, amount: float, shown: float) -> Tensor:
    """For each place and some scores, the reading from which units have to open: float32 (places, scores).

    A photo is flagged if its highest token is, because one flagged token marks all. Tokens read what they have along
    the place's direction beside the score, so the highest tokens of photos with one score differ. Half of the photos
    are above their median. Scores get rarer with their height, about as those of a normal distribution. So more photos
    come from below than leave from above, and half of the variance times the score makes up for it.

    Args:
        middle: tokens without scores, (n, tokens, d).
        axes: the places' directions, of length one and mean zero, (places, d).
        rests: means of normalised tokens along them, (places,).
        amount: what a score of one adds along a direction.
        shown: what it adds to a normalised token, about.
    """
    along, variances, found = middle @ axes.T, middle.var(-1, correction=0)[..., None], []
    for score in (SCORE_STEP * step for step in range(_SCORES)):
        added = amount * score
        moved = variances + (2 * added * along + added**2) / middle.shape[-1]
        highest = (((along + added) / moved.sqrt() - rests) / shown).amax(1)
        found.append(highest.median(0).values + score / 2 * highest.var(0))
    return torch.stack(found, 1)


def _takers(layer: Any, middle: Tensor, writers: Tensor, readers: Tensor, rests: Tensor) -> Tensor:
    """What to add for each place, times what is read there, so that the block's output is as without scores: (n, d).

    Scores also move what the other hidden units do. Least squares over tokens with drawn scores of variance one counts
    that in, and all that is read beside the scores.
    """
    generator = torch.Generator().manual_seed(_SEED)
    photos = middle[: max(1, _TOKENS // middle.shape[1])]
    scores = torch.randn(len(photos), 1, len(writers), generator=generator)
    moved = photos + scores @ writers
    read = (layer.layer_norm2(moved) @ readers.T - rests).flatten(0, 1)
    excess = (after_mlp_in_pieces(layer, moved) - after_mlp_in_pieces(layer, photos)).flatten(0, 1)
    gram, cross = (read.T @ read).double(), (read.T @ excess).double()
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    taken: Tensor = -torch.linalg.solve(gram, cross).float()
    return taken
