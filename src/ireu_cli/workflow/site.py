"""What photos say about an edit site: two vectors a photo, cached, and sums over retained photos, kept beside them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor

from ireu_cli.faces.folder import People
from ireu_cli.features import Item, chunks, stream
from ireu_cli.manifest import digest_of
from ireu_cli.models.clip import last_state
from ireu_cli.models.encoders import need_transformer
from ireu_cli.models.mlp_site import MlpSite, watching
from ireu_cli.steps.gated import Readout, SiteStatistics
from ireu_cli.steps.site_sums import SiteSums, summarise
from ireu_cli.store.features import FeatureCache, read_tensors, write_tensors
from ireu_cli.workflow.detectors import keys_in_fold, sizes_of
from ireu_cli.workflow.photos import Lens
from ireu_cli.workflow.session import Session

_PIECE = 1024
"""Photos whose rows are in memory at once."""


class SiteLens:
    """An encoder at an edit site: for each photo, what enters the site at the class token, and its `last_state`.

    Rows are (2 d,): d values of the site's input, d of the last state. A pooling head has one token, which counts as
    the class token.
    """

    def __init__(self, session: Session, lens: Lens, site: MlpSite) -> None:
        """Open the cache of exactly this encoder, site, preprocessing, dtype and reading."""
        self.site = site
        self._encoder = need_transformer(lens.encoder, "An edit inside a block")
        self._session = session
        self._lens = lens
        self.folder = lens.block_folder(site.block)
        """Where what is known about the site is kept."""
        self._cache = FeatureCache(self.folder)

    def encode(self, items: Sequence[Item], flag: str, label: str) -> dict[str, str]:
        """Make sure that the rows of all items are there; returns the unusable ones and why.

        Raises:
            PhotoError: an item cannot be used and `data.bad_photos` is `error`.
        """
        by_key = {item.key: item for item in items}
        missing = [by_key[key] for key in self._cache.missing(list(by_key))]
        return self._pass(missing, flag, label, None) if missing else {}

    def rows(self, keys: Sequence[str]) -> tuple[Tensor, Tensor]:
        """What enters the site and the last state, float32 (n, d) each."""
        found = self._cache.get(keys)
        return found[:, : found.shape[1] // 2], found[:, found.shape[1] // 2 :]

    def pieces(self, people: People, fold: int) -> Iterator[Tensor]:
        """What enters the site at the class token of the photos of a fold's people, in pieces (n, d)."""
        for _, found in chunks(self._cache, keys_in_fold(people, fold), _PIECE):
            yield found[:, : found.shape[1] // 2]

    def statistics(
        self, people: People, views: Sequence[Sequence[Item]], readout: Readout
    ) -> tuple[SiteStatistics, People]:
        """Gather what retained photos say; what takes long is kept in the run folder for later requests.

        Args:
            people: retained people.
            views: some retained photos, each with its changed copies.
            readout: from the last state to the tap.

        Returns:
            The statistics, and the people whose photos can be used.
        """
        sums = self._sums(people)
        usable = people.where(lambda photo: photo.sha256 in self._cache)
        rows = (self.rows([photo.sha256 for photo in person]) for person in usable.photos)
        bad = self.encode([item for photo in views for item in photo], "--retain", "copies of retained photos")
        whole = (photo for photo in views if not any(item.key in bad for item in photo))
        seen = (self.rows([item.key for item in photo])[0] for photo in whole)
        return summarise(sums, rows, seen, self._nulls(), readout, sizes_of(usable)), usable

    def _nulls(self) -> Tensor:
        """What enters the site at the class token of the null images: (2, d)."""
        encoder = self._encoder
        weight = next(encoder.model.parameters())
        with watching(encoder.model, self.site) as seen, torch.inference_mode():
            last_state(encoder.model, encoder.null_pixels().to(weight.device, weight.dtype))
        return seen[0][:, 0].float().cpu()

    def _sums(self, people: People) -> SiteSums:
        """Sums over tokens; photos whose rows are there still have to pass once more when the sums are not."""
        photos = people.flat
        name = digest_of([self.site.block, [photo.sha256 for photo in photos]])[:32]
        path = self.folder / "sums" / f"{name}.safetensors"
        sums = SiteSums.from_tensors(read_tensors(path))
        items = [self._lens.item(photo) for photo in photos]
        # What could not be used is tried again: the settings, or the files, may be others by now.
        left_out = self.encode(items[: sums.done], "--retain", "retained photos, edit site")
        complete = len(left_out) == sums.unusable
        if sums.done < len(items) or not complete:
            started = sums if complete else SiteSums()
            self._pass(items[started.done :], "--retain", "retained photos, edit site", started, path)
            write_tensors(path, started.tensors())
            return started
        return sums

    def _pass(
        self, items: Sequence[Item], flag: str, label: str, sums: SiteSums | None, path: Path | None = None
    ) -> dict[str, str]:
        session, encoder = self._session, self._encoder
        bad: dict[str, str] = {}
        weight = next(encoder.model.parameters())
        last = monotonic()
        with session.timed("encode"), session.talk.progress(label, len(items)) as advance, torch.inference_mode():
            for keys, pixels, unusable in stream(encoder, items, session.config.run.batch_size):
                bad |= unusable
                if keys:
                    with watching(encoder.model, self.site) as seen:
                        states = last_state(encoder.model, pixels.to(weight.device, weight.dtype))
                    self._cache.put(keys, torch.cat([seen[0][:, 0], states], 1))
                    if sums is not None:
                        sums.add(encoder.model, self.site, seen[0])
                if sums is not None:
                    sums.done += len(keys) + len(unusable)
                    sums.unusable += len(unusable)
                if sums is not None and path and monotonic() - last >= session.config.run.checkpoint_seconds:
                    write_tensors(path, sums.tensors())
                    last = monotonic()
                advance(len(keys) + len(unusable), "")
        self._lens.refuse_or_note(bad, items, flag, label)
        return bad
