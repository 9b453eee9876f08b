"""`ireu unlearn --method gated` on a transformer: compute a delta from photos in closed form."""

import functools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks, need_blocks
from ireu_cli.encoders.mlp_site import MlpSite
from ireu_cli.encodings.lens import Lens
from ireu_cli.encodings.refusals import no_usable_photo
from ireu_cli.errors import ArtifactError, ConfigError
from ireu_cli.params import GatedParams, Tap
from ireu_cli.unlearning.gated.changed_copies import retained_views, views_of
from ireu_cli.unlearning.gated.checks import changeable, check_statistics, misses, summary_of
from ireu_cli.unlearning.gated.edit_place import DIRECT, edit_site, shared_changes, weights_for
from ireu_cli.unlearning.gated.kept_parts import kept_room, shared_apparatus
from ireu_cli.unlearning.gated.site import SiteLens
from ireu_cli.unlearning.gated.solve import (
    Readout,
    Wanted,
    change_of,
    compose,
    enter,
    find,
    open_ledger,
    rate_of,
    readout_of,
)
from ireu_cli.unlearning.method import Work
from ireu_cli.values import Json, Ledger, Photo, PooledLedger, WeightDelta


def unlearn_gated(work: Work, onto: Ledger | None, carrying: int | None) -> tuple[WeightDelta, dict[str, Json]]:
    """Find each target among the retained people and write the change that removes it.

    Args:
        work: the request.
        onto: earlier requests that this one is added to.
        carrying: the result of `carrying_block`; None if only `last_state` has to change.

    Returns:
        The delta with its ledger, and entries for the record.

    Raises:
        IreuError: photos cannot be used, the mask does not fit, or there is no room.
    """
    session, lens, cast, mask = work.session, work.lens, work.cast, work.mask
    encoder = need_blocks(lens.encoder, "An edit inside a block")
    params, model = session.config.gated, encoder.model
    site = edit_site(encoder, carrying)
    # Refused before photos are read, which takes long.
    if onto is not None:
        refuse_other_place(onto, site)
        weights_for(encoder, onto)
    may_change = changeable(mask, params)
    may = of_tokens(encoder, may_change, lens.tap, params) if carrying is not None else may_change
    tap: Tap = lens.tap if lens.tap in DIRECT else "pooled"
    readout = readout_of(encoder, tap)
    site_lens = SiteLens(session, lens, site)
    views = retained_views(lens, cast.used, params.copies, session.config.seed)
    statistics, used = site_lens.statistics(cast.used, views, readout, tap)
    check_statistics(statistics, mask, lens.tap)
    made = None
    if carrying is not None and onto is None:
        made = shared_apparatus(session, lens, encoder, used, may, carrying)
    wanted = [wanted_of(lens, site_lens, readout, person, params.copies) for person in cast.targets.photos]
    places = onto.capacity if onto else max(params.people, len(wanted))
    rate = rate_of(params, places)
    session.executor.leave()
    with session.timed("solve"):
        weights = site.weights(model)
        room_by = functools.partial(kept_room, site_lens.folder)
        ledger = onto or open_ledger(statistics, site, weights, places, room_by)
        if made is not None and carrying is not None:
            ledger = replace(ledger, apparatus=shared_changes(made.changes, carrying), flag=made.flag)
        found = find(wanted, statistics, site_lens.pieces(used), params.shrinkage, rate)
        if carrying is None:
            changes = [change_of(one, readout, statistics.average, may_change, params.gain) for one in wanted]
        else:
            changes = [ledger.flag] * len(wanted)
        ledger = enter(ledger, [work.case] * len(wanted), found, changes, params)
        delta = compose(ledger, weights)
    for warning in misses(found):
        session.talk.note(warning)
    told = {} if made is None else {"carried": made.told}
    return delta, summary_of(delta, ledger, MlpSite(ledger.block).part, statistics, found, rate) | told


def refuse_other_place(onto: Ledger | PooledLedger, site: MlpSite) -> None:
    """Refuse to add a request to earlier ones that are elsewhere in the encoder.

    Raises:
        ArtifactError: they are.
    """
    if onto.block != site.block:
        raise ArtifactError(
            f"The earlier requests find people in {MlpSite(onto.block).part}, and this one would find them in "
            f"{site.part}",
            "Use the tap of the earlier requests",
        )


def of_tokens(encoder: HasBlocks, may_change: Tensor, tap: Tap, params: GatedParams) -> Tensor:
    """Channels of tokens that may change: bool (d,).

    Raises:
        ConfigError: the change is confined to a mask whose features are not channels of tokens.
    """
    width = encoder.width
    if not params.confine:
        return torch.ones(width, dtype=torch.bool)
    if tap == "image_embeds":
        raise ConfigError(
            f"The mask has {len(may_change)} projected features, and tokens have {width} channels",
            "Locate at --tap penultimate or pooled, or leave out gated.confine",
        )
    return may_change


def wanted_of(
    lens: Lens, site_lens: SiteLens, readout: Readout, person: Sequence[Photo], disguises: Sequence[str]
) -> Wanted:
    """Encode a person's photos and their changed copies, by the names of disguises."""
    views = [views_of(lens, photo, disguises) for photo in person]
    plain, copies = [view[0] for view in views], [item for view in views for item in view[1:]]
    bad = site_lens.encode(plain + copies, "--targets", "target photos, edit site")
    usable = [item.key for item in plain if item.key not in bad]
    if not usable:
        raise no_usable_photo()
    inputs, states = site_lens.rows(usable)
    changed = [item.key for item in copies if item.key not in bad]
    every = torch.cat([inputs, site_lens.rows(changed)[0]]) if changed else inputs
    return Wanted(every, states, readout.read(states))
