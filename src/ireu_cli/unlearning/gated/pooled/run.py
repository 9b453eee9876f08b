"""`ireu unlearn --method gated` where people are found in all tokens: compute a delta from photos in closed form."""

import functools
from dataclasses import replace

from ireu_cli.encoders.family import need_blocks
from ireu_cli.encoders.mlp_site import MlpSite
from ireu_cli.maths.token_gate import TokenSums
from ireu_cli.params import Tap
from ireu_cli.unlearning.gated.changed_copies import retained_views
from ireu_cli.unlearning.gated.checks import changeable, check_statistics, misses, summary_of
from ireu_cli.unlearning.gated.edit_place import DIRECT
from ireu_cli.unlearning.gated.in_transformer import of_tokens, refuse_other_place, wanted_of
from ireu_cli.unlearning.gated.kept_parts import kept_room
from ireu_cli.unlearning.gated.pooled.kept import shared_parts
from ireu_cli.unlearning.gated.pooled.ledger import (
    compose_pooled,
    enter_pooled,
    open_pooled,
    refuse_too_many,
    weights_for,
)
from ireu_cli.unlearning.gated.site import SiteLens
from ireu_cli.unlearning.gated.solve import find, rate_of, readout_of
from ireu_cli.unlearning.method import Work
from ireu_cli.values import Json, PooledLedger, WeightDelta

SHRINKAGE = 0.1
"""The share of `gated.shrinkage` that is used: averages over tokens vary in few directions, and people in many more."""


def unlearn_pooled(work: Work, onto: PooledLedger | None, carrying: int) -> tuple[WeightDelta, dict[str, Json]]:
    """Find each target among the retained people and write the change that removes it.

    Args:
        work: the request.
        onto: earlier requests that this one is added to.
        carrying: the block that replaces tokens; the one before it finds people.

    Returns:
        The delta with its ledger, and entries for the record.

    Raises:
        IreuError: photos cannot be used, the mask does not fit, or there is no room.
    """
    session, lens, cast, mask = work.session, work.lens, work.cast, work.mask
    encoder = need_blocks(lens.encoder, "An edit inside a block")
    params, site = session.config.gated, MlpSite(carrying - 1)
    tap: Tap = lens.tap if lens.tap in DIRECT else "pooled"
    places = onto.capacity if onto else max(params.people, len(cast.targets.photos))
    if onto is None:
        refuse_too_many(encoder.model, site, places)
    else:
        refuse_other_place(onto, site)
        weights_for(encoder, onto)
    readout = readout_of(encoder, tap)
    site_lens = SiteLens(session, lens, site, pooled=True)
    views = retained_views(lens, cast.used, params.copies, session.config.seed)
    statistics, used = site_lens.statistics(cast.used, views, readout, tap)
    # Detectors read averages, which no single token can be mistaken for.
    statistics = replace(statistics, class_token=TokenSums(), others=TokenSums())
    check_statistics(statistics, mask, lens.tap)
    wanted = [wanted_of(lens, site_lens, readout, person, params.copies) for person in cast.targets.photos]
    may_change = of_tokens(encoder, changeable(mask, params), lens.tap, params)
    told: dict[str, Json] = {}
    if onto is None:
        gathering, carried = shared_parts(session, lens, encoder, used, may_change, site.block, places)
        told = {"carried": carried.told, "gathered": gathering.told}
    rate = rate_of(params, places)
    session.executor.leave()
    with session.timed("solve"):
        if onto is None:
            room_by = functools.partial(kept_room, site_lens.folder)
            onto = open_pooled(site, site.weights(encoder.model), statistics.gram, gathering, carried, room_by)
        found = find(wanted, statistics, site_lens.pieces(used), SHRINKAGE * params.shrinkage, rate)
        ledger = enter_pooled(onto, [work.case] * len(wanted), found, statistics.people.every, params)
        delta = compose_pooled(encoder, ledger)
    for warning in misses(found):
        session.talk.note(warning)
    return delta, summary_of(delta, ledger, site.part, statistics, found, rate) | told
