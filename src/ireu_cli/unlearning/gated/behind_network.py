"""`ireu unlearn --method gated` on a face-embedding network: from photos to gates behind its output."""

from collections.abc import Iterator, Sequence

from torch import Tensor
from torch.nn.functional import normalize

from ireu_cli.encoders.family import need_gates
from ireu_cli.encodings.lens import Lens
from ireu_cli.encodings.loop import Item
from ireu_cli.encodings.refusals import no_usable_photo
from ireu_cli.encodings.rows import chunks
from ireu_cli.unlearning.gated.changed_copies import retained_views, views_of
from ireu_cli.unlearning.gated.checks import (
    PIECE,
    changeable,
    check_statistics,
    kept_sums,
    keys_in_folds,
    misses,
    rows_by_person,
    sizes_of,
    summary_of,
)
from ireu_cli.unlearning.gated.kept_sums import folds_tensors, read_folds, sums_name
from ireu_cli.unlearning.gated.solve import rate_of
from ireu_cli.unlearning.gated.solve_network import (
    EmbeddingStatistics,
    change_of_embedding,
    compose_gates,
    enter_gates,
    find_embedded,
    open_gates,
    sum_embeddings,
)
from ireu_cli.unlearning.method import Work
from ireu_cli.values import GateLedger, Json, People, Photo, WeightDelta


def unlearn_gates(work: Work, onto: GateLedger | None) -> tuple[WeightDelta, dict[str, Json]]:
    """Find each target among the retained people and make the gates that remove it.

    Args:
        work: the request.
        onto: earlier requests that this one is added to.

    Returns:
        The delta with its ledger, and entries for the record.

    Raises:
        IreuError: photos cannot be used, the mask does not fit, or there is no room.
    """
    session, lens, cast, mask = work.session, work.lens, work.cast, work.mask
    encoder, params = need_gates(lens.encoder, "A gate"), session.config.gated
    used = lens.encode(cast.used, "--retain", "retained photos")
    views = _usable(lens, retained_views(lens, cast.used, params.copies, session.config.seed), "--retain")
    statistics = _statistics(lens, used, views)
    check_statistics(statistics, mask, lens.tap)
    may_change = changeable(mask, params)
    wanted = [_wanted(lens, person, params.copies) for person in cast.targets.photos]
    places = onto.capacity if onto else max(params.people, len(wanted))
    rate = rate_of(params, places)

    folds = keys_in_folds(used)

    def rows(fold: int) -> Iterator[Tensor]:
        for _, piece in chunks(lens.cache, folds[fold], PIECE):
            yield normalize(piece, dim=1)

    session.executor.leave()
    with session.timed("solve"):
        found = find_embedded([every for every, _ in wanted], statistics, rows, params.shrinkage, rate)
        changes = [change_of_embedding(own, statistics.average, may_change, params.gain) for _, own in wanted]
        ledger = onto or open_gates(places, len(mask.mask), params.rise)
        ledger = enter_gates(ledger, [work.case] * len(wanted), found, changes)
        delta = compose_gates(ledger)
    for warning in misses(found):
        session.talk.note(warning)
    # A network that cannot have gates is refused before a delta is written.
    encoder.edited(delta, encoder.dtype)
    return delta, summary_of(delta, ledger, "output", statistics, found, rate)


def _statistics(lens: Lens, used: People, views: Sequence[Sequence[str]]) -> EmbeddingStatistics:
    """The sums over retained photos: computed once, and kept beside their embeddings."""

    def sums() -> dict[str, Tensor]:
        people = rows_by_person(lambda keys: _unit(lens, keys), used)
        return folds_tensors(sum_embeddings(people, (_unit(lens, copies) for copies in views), sizes_of(used)))

    found = kept_sums(lens.folder / "sums" / sums_name(used, views, lens.tap), sums)
    return EmbeddingStatistics(read_folds(found).together(), normalize(lens.null_features(), dim=1))


def _unit(lens: Lens, keys: Sequence[str]) -> Tensor:
    """Embeddings at length one, from the cache of either tap: (n, d)."""
    return normalize(lens.cache.get(list(keys)), dim=1)


def _usable(lens: Lens, views: Sequence[Sequence[Item]], flag: str) -> list[list[str]]:
    """Encode photos with their copies; returns the keys of photos whose copies are all usable."""
    bad = lens.encode_items([item for photo in views for item in photo], flag, "changed copies")
    return [[item.key for item in photo] for photo in views if not any(item.key in bad for item in photo)]


def _wanted(lens: Lens, person: Sequence[Photo], disguises: Sequence[str]) -> tuple[Tensor, Tensor]:
    """A person's embeddings at length one: of photos and copies (n, d), and of the photos only (m, d).

    `disguises` names the changes of the copies.
    """
    views = _usable(lens, [views_of(lens, photo, disguises) for photo in person], "--targets")
    if not views:
        raise no_usable_photo()
    return _unit(lens, [key for photo in views for key in photo]), _unit(lens, [photo[0] for photo in views])
