"""The data of photos at an edit site: two cached vectors a photo, and sums over retained photos, kept beside them."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ireu_cli.encoders.family import ImageEncoder, need_blocks
from ireu_cli.encoders.mlp_site import MlpSite, attending, watching
from ireu_cli.encodings.lens import Lens
from ireu_cli.encodings.loop import Batch, EncoderLook, Fold, Item
from ireu_cli.encodings.rows import chunks
from ireu_cli.errors import PhotoError
from ireu_cli.params import Tap
from ireu_cli.session import Session
from ireu_cli.store.features import FeatureCache, Keys
from ireu_cli.unlearning.gated.checks import PIECE, kept_sums, keys_in_folds, rows_by_person, sizes_of
from ireu_cli.unlearning.gated.kept_sums import folds_tensors, read_folds, sums_name
from ireu_cli.unlearning.gated.kept_token_sums import KeptTokenSums
from ireu_cli.unlearning.gated.site_sums import PeopleSummed, SiteSums, sum_site
from ireu_cli.unlearning.gated.solve import Readout, Rows, SiteStatistics
from ireu_cli.values import People

_RETAINED = "retained photos, edit site"
_HELD = 1 << 26
"""The most bytes of rows that are held for several passes."""


class SiteLens:
    """An encoder at an edit site: for each photo, what detectors read, and its `last_state`.

    Rows are (2 d,): d values that detectors read, d of the last state. Detectors read the site's input at the class
    token, or what the attention of the site's block reads, averaged over all tokens. A pooling head has one token,
    which counts as the class token.
    """

    def __init__(self, session: Session, lens: Lens, site: MlpSite, *, pooled: bool = False) -> None:
        """Open the cache for exactly this encoder, site, preprocessing, dtype and reading; `pooled`: of all tokens."""
        self.site, self._pooled = site, pooled
        self._encoder = need_blocks(lens.encoder, "An edit inside a block")
        self._session = session
        self._lens = lens
        self.folder = lens.block_folder(site.block, "pool" if pooled else "mlp")
        """The folder that keeps results about the site."""
        self._cache = FeatureCache(self.folder)

    def encode(self, items: Sequence[Item], flag: str, label: str) -> dict[str, str]:
        """Make sure that the rows of all items are in the cache; returns the unusable items, each with the reason.

        Raises:
            PhotoError: an item cannot be used and `data.bad_photos` is `error`.
        """
        bad = self._lens.encodings.fill(_Look(self._lens.encoder, self), items, [self._cache], label)
        self._lens.refuse_or_note(bad, items, flag, label)
        return bad

    def rows(self, keys: Keys) -> tuple[Tensor, Tensor]:
        """What detectors read, and the last state: float32 (n, d) each."""
        return self._halves(self._cache.get(keys))

    @staticmethod
    def _halves(found: Tensor) -> tuple[Tensor, Tensor]:
        return found[:, : found.shape[1] // 2], found[:, found.shape[1] // 2 :]

    def pieces(self, people: People) -> Rows:
        """What detectors read of the photos of each fold's people, in pieces (n, d).

        If they are few enough, they are read once for all passes, and held.
        """
        folds = keys_in_folds(people)
        counts = [len(keys) for keys in folds]
        if 4 * 2 * self._encoder.width * sum(counts) > _HELD:
            return lambda fold: (self._halves(found)[0] for _, found in chunks(self._cache, folds[fold], PIECE))
        held = torch.split(self.rows(np.concatenate(folds))[0], counts)
        return lambda fold: torch.split(held[fold], PIECE)

    def statistics(
        self, people: People, views: Sequence[Sequence[Item]], readout: Readout, tap: Tap
    ) -> tuple[SiteStatistics, People]:
        """Collect the statistics of retained photos; they are kept in the run folder for later requests.

        Args:
            people: retained people.
            views: some retained photos, each with its changed copies.
            readout: from the last state to the tap.
            tap: the tap.

        Returns:
            The statistics, and the people with usable photos.
        """
        sums = self._sums(people)
        usable = people
        if sums.unusable:
            usable = replace(people, photos=people.photos.keep(self._cache.has(people.photos.digests)))
        bad = self.encode([item for photo in views for item in photo], "--retain", "copies of retained photos")
        whole = [[item.key for item in photo] for photo in views if not any(item.key in bad for item in photo)]

        def summed() -> dict[str, Tensor]:
            rows = (self._halves(found) for found in rows_by_person(self._cache.get, usable))
            found = sum_site(rows, (self.rows(keys)[0] for keys in whole), readout, sizes_of(usable))
            return folds_tensors(found.folds) | {"tap": found.tap}

        kept = kept_sums(self.folder / "sums" / sums_name(usable, whole, tap), summed)
        return PeopleSummed(read_folds(kept), kept["tap"]).together(sums, self._nulls()), usable

    def _nulls(self) -> Tensor:
        """What detectors read of the null images: (2, d)."""
        with torch.inference_mode():
            return self.see(self._encoder.null_pixels())[1].float().cpu()

    def see(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The site's input (n, tokens, d), what detectors read of it (n, d), and the last state (n, d), of pixels."""
        encoder, model = self._encoder, self._encoder.model
        weight = next(model.parameters())
        attention = attending(model, self.site.block) if self._pooled else nullcontext([])
        with watching(model, self.site) as seen, attention as attended:
            states = encoder.last_state(model, pixels.to(weight.device, weight.dtype))
        return seen[0], attended[0].mean(1) if attended else seen[0][:, 0], states

    def _sums(self, people: People) -> SiteSums:
        """Sums over tokens. Photos with cached rows have to pass through the encoder again if the sums are missing."""
        digests = people.photos.digests
        kept = KeptTokenSums(self.folder / "sums", self.site.block, digests)
        run = self._session.config.run
        sums, begun = kept.read(run.batch_size, run.batch_size * run.shard_batches)
        items, done = self._lens.items(people), sums.done + begun.done
        # Unusable photos are tried again, because the settings or the files may have changed.
        is_whole = not self._cache.missing(digests[:done])
        left_out = {} if is_whole else self.encode(items[:done], "--retain", _RETAINED)
        if len(left_out) != sums.unusable + begun.unusable:
            sums, begun, done = SiteSums(), SiteSums(), 0
        if done < len(items):
            self._go_on(sums, begun, items[done:], kept)
        return sums

    def _go_on(self, sums: SiteSums, begun: SiteSums, items: Sequence[Item], kept: KeptTokenSums) -> None:
        """Add photos to sums over the ones before them; `begun` are those of the shard that the first photo is in."""
        run, is_alone = self._session.config.run, self._session.executor.is_alone
        before, present = sums.done + begun.done, begun

        def begin(first: int) -> _Summing:
            nonlocal present
            present = begun if first == 0 and begun.done else SiteSums(offset=before + first)
            return _Summing(self, self._cache, present, refuse, keep)

        def keep(seconds: float = run.checkpoint_seconds) -> None:
            # Others would take sums that are half added up for what is left to do.
            if is_alone:
                kept.write(sums, present, seconds)

        def refuse(batch: Batch[Tensor]) -> None:
            # An interruption does not wait for the rest; finished photos are kept.
            if self._session.config.data.bad_photos == "error":
                self._lens.refuse_or_note(batch.unusable, items, "--retain", _RETAINED)

        def collect(tensors: dict[str, Tensor]) -> None:
            nonlocal present
            sums.join(SiteSums.from_tensors(tensors))
            present = SiteSums()

        head = run.batch_size * run.shard_batches - begun.done if begun.done else 0
        fold = Fold[Tensor]([self._cache.name, "sums", before], begin, collect, head)
        try:
            bad = self._lens.encodings.gather(self._lens.look, items, fold, _RETAINED)
        except PhotoError:
            keep(0)
            raise
        kept.write(sums, SiteSums(), 0)
        if not is_alone:
            # Others have made rows, which somebody may have removed or damaged since.
            self.encode([item for item in items if item.key not in bad], "--retain", _RETAINED)
        self._lens.refuse_or_note(bad, items, "--retain", _RETAINED)

    def take(self, sums: SiteSums, pixels: Tensor) -> Tensor:
        """Add pixels to sums; returns the rows that are kept of them, (n, 2 d)."""
        with torch.inference_mode():
            inputs, read, states = self.see(pixels)
            sums.add(self._encoder.model, self.site, inputs)
            return torch.cat([read, states], 1)


class _Look(EncoderLook):
    """What is kept of a photo at a site: (n, 2 d)."""

    def __init__(self, encoder: ImageEncoder, lens: SiteLens) -> None:
        super().__init__(encoder)
        self._lens = lens

    def see(self, pixels: Tensor) -> Tensor:
        """See `EncoderLook`."""
        with torch.inference_mode():
            return torch.cat(self._lens.see(pixels)[1:], 1)


@dataclass(frozen=True)
class _Summing:
    """Rows and sums of the photos of a shard."""

    lens: SiteLens
    cache: FeatureCache
    sums: SiteSums
    refuse: Callable[[Batch[Tensor]], None]
    keep: Callable[[], None]

    def add(self, batch: Batch[Tensor]) -> None:
        """See `Gathering`."""
        if batch.unusable:
            self.refuse(batch)
        if batch.keys:
            self.cache.put(batch.keys, self.lens.take(self.sums, torch.cat(batch.prepared)))
        self.sums.done += len(batch)
        self.sums.unusable += len(batch.unusable)
        self.keep()

    def tensors(self) -> dict[str, Tensor]:
        """See `Gathering`."""
        return self.sums.tensors()
