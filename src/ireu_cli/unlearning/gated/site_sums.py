"""Sums over retained photos at an edit site, computed batch by batch, so that memory stays constant."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ireu_cli.encoders.mlp_site import MlpSite
from ireu_cli.maths.detector import AT_ONCE, Deal, FoldSums, sum_folds
from ireu_cli.maths.room import activation_gram
from ireu_cli.maths.token_gate import TokenSums
from ireu_cli.unlearning.gated.solve import Readout, SiteStatistics

_OTHERS = 4
"""The number of a photo's tokens, besides the class token, that the sums over tokens use; they vary by photo."""


@dataclass
class SiteSums:
    """Sums over tokens, for which every photo passes through the encoder; `done` photos did, `unusable` failed.

    `offset` is the number of photos before the first one: which of a photo's tokens count depends on its number.
    """

    done: int = 0
    unusable: int = 0
    class_token: TokenSums = field(default_factory=TokenSums)
    others: TokenSums = field(default_factory=TokenSums)
    gram: Tensor = field(default_factory=lambda: torch.zeros(()))
    offset: int = 0

    def join(self, later: "SiteSums") -> None:
        """Add the sums over the photos that follow."""
        self.done += later.done
        self.unusable += later.unusable
        self.class_token.join(later.class_token)
        self.others.join(later.others)
        self.gram = self.gram + later.gram

    def add(self, model: Any, site: MlpSite, inputs: Tensor) -> None:
        """Add inputs of the site: (n, tokens, d), on the model's device, where the sums are made."""
        chosen = self._some_others(inputs)
        self.class_token.add(inputs[:, 0])
        self.others.add(chosen.flatten(0, 1))
        tokens = torch.cat([inputs[:, :1], chosen], 1).flatten(0, 1)
        gram = activation_gram(site.activations(model, tokens).float())
        self.gram = self.gram.to(gram.device) + gram

    def _some_others(self, inputs: Tensor) -> Tensor:
        """Some tokens besides the class token, (n, up to `_OTHERS`, d); a pooling head has none."""
        others = inputs[:, 1:]
        patches = others.shape[1]
        if not patches:
            return others
        count = min(_OTHERS, patches)
        first = self.offset + self.done
        order = torch.arange(first, first + len(inputs))[:, None] + torch.arange(count) * (patches // count)
        chosen = (order % patches).to(inputs.device)
        return torch.gather(others, 1, chosen[..., None].expand(-1, -1, inputs.shape[2]))

    def tensors(self) -> dict[str, Tensor]:
        """The tensors for a file, on the CPU."""
        count = torch.tensor([self.done, self.unusable, self.class_token.count, self.others.count])
        kinds = {"class_token": self.class_token, "others": self.others}
        sums = {f"{name}.{part}": getattr(kind, part) for name, kind in kinds.items() for part in ("total", "square")}
        return {"counts": count, "gram": self.gram.cpu(), **{name: part.cpu() for name, part in sums.items()}}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor] | None) -> "SiteSums":
        """The inverse of `tensors`; empty for nothing or for another version's tensors."""
        if tensors is None or not {"counts", "gram"} <= set(tensors):
            return cls()
        done, unusable, first, second = tensors["counts"].tolist()
        kinds = [
            TokenSums(count, tensors[f"{name}.total"], tensors[f"{name}.square"])
            for name, count in (("class_token", first), ("others", second))
        ]
        return cls(done, unusable, kinds[0], kinds[1], tensors["gram"])


@dataclass(frozen=True)
class PeopleSummed:
    """Sums over retained people at a site that only need cached rows: by folds, and of the tap's features, (k,)."""

    folds: FoldSums
    tap: Tensor

    def together(self, sums: SiteSums, nulls: Tensor) -> SiteStatistics:
        """The statistics that requests need.

        Args:
            sums: sums over the photos' tokens.
            nulls: (2, d), the site's input at the class token for the null images.
        """
        people = self.folds.together()
        average = self.tap / max(people.every.photos, 1)
        return SiteStatistics(people, sums.class_token, sums.others, sums.gram, average, nulls)


def sum_site(
    people: Iterable[tuple[Tensor, Tensor]], views: Iterable[Tensor], readout: Readout, sizes: Sequence[int]
) -> PeopleSummed:
    """Go through people once.

    Args:
        people: for each person, the site's inputs at the class token and the last states, float32 (n, d) each.
        views: for some photos, the site's inputs for the photo and its changed copies, float32 (v, d) each.
        readout: from the last state to the tap.
        sizes: number of photos of each person.
    """
    total, deal = torch.zeros((), dtype=torch.float64), Deal(tuple(sizes))
    waiting: list[Tensor] = []

    def read() -> Tensor:
        found = readout.read(torch.cat(waiting)).double().sum(0) if waiting else torch.zeros((), dtype=torch.float64)
        waiting.clear()
        return found

    def entering() -> Iterator[Tensor]:
        nonlocal total
        for inputs, states in people:
            # The same as for thresholds: otherwise a person with very many photos would be the average, and nobody may
            # be.
            waiting.append(states[: deal.most])
            if sum(map(len, waiting)) >= AT_ONCE:
                total = total + read()
            yield inputs

    folds = sum_folds(entering(), views, deal)
    return PeopleSummed(folds, total + read())


def summarise(
    sums: SiteSums,
    people: Iterable[tuple[Tensor, Tensor]],
    views: Iterable[Tensor],
    nulls: Tensor,
    readout: Readout,
    sizes: Sequence[int],
) -> SiteStatistics:
    """`sum_site`, combined with the sums over tokens; see there."""
    return sum_site(people, views, readout, sizes).together(sums, nulls)
