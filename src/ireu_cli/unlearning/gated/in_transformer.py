"""`ireu unlearn --method gated` on a transformer: compute a delta from photos in closed form."""

import functools
from collections.abc import Collection, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ireu_cli.encoders.family import HasBlocks, ImageEncoder, need_blocks
from ireu_cli.encoders.mlp_site import HEAD, MlpSite
from ireu_cli.encodings.lens import Lens
from ireu_cli.encodings.unusable import no_usable_photo
from ireu_cli.errors import ArtifactError, ConfigError
from ireu_cli.params import GatedParams, Tap
from ireu_cli.photos import Cast
from ireu_cli.session import Session
from ireu_cli.unlearning.block.one_block import block_for
from ireu_cli.unlearning.gated.changed_copies import retained_views, views_of
from ireu_cli.unlearning.gated.checks import changeable, check_statistics, note_misses, summary_of
from ireu_cli.unlearning.gated.kept_erasure import shared_apparatus
from ireu_cli.unlearning.gated.kept_room import kept_room
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
from ireu_cli.unlearning.gated.tokens import CARRYING, Apparatus
from ireu_cli.values import FeatureMask, Json, Ledger, Photo, WeightDelta

DIRECT = frozenset({"pooled", "image_embeds"})
"""Taps that only depend on `last_state`: on the class token after the last block, or on a pooling head."""


def carrying_block(encoder: HasBlocks, taps: Collection[Tap]) -> int | None:
    """The last block that reaches every token of some taps, to carry a flag to them; None if no flag is needed.

    Raises:
        ConfigError: the encoder has too few blocks before it, or no class token in which to find people.
    """
    if set(taps) <= DIRECT:
        return None
    if not encoder.has_class_token:
        raise ConfigError(
            "The method gated finds people in the class token, which SigLIP does not have, so it only reaches the "
            "tap pooled",
            "Use --tap pooled; for generators that read tokens use another --method",
        )
    # Later blocks know more about the person in the class token.
    tap: Tap = "penultimate" if "penultimate" in taps else "last"
    block = block_for(encoder.blocks, tap)
    if block < 1:
        needed = "three" if tap == "penultimate" else "two"
        raise ConfigError(
            f"The method gated needs {needed} blocks to reach the tokens of {tap}, and the encoder has "
            f"{encoder.blocks}",
            f"Use --tap {' or '.join(sorted(DIRECT))}, or another --method",
        )
    return block


def edit_site(encoder: HasBlocks, carrying: int | None) -> MlpSite:
    """The site where people are found: the hidden layer of the last block, or of the one before the carrying block.

    SigLIP makes its pooled vector with a head of its own, so there it is the hidden layer of the head.
    """
    if carrying is not None:
        return MlpSite(carrying - 1)
    return MlpSite(encoder.blocks - 1 if encoder.has_class_token else HEAD)


def edited_names(encoder: HasBlocks, carrying: int | None) -> list[str]:
    """The weights that the method may change."""
    names = edit_site(encoder, carrying).names
    return sorted(names if carrying is None else names + carrying_names(carrying))


def carrying_names(block: int) -> list[str]:
    """The weights of a carrying block, which change every token."""
    site = MlpSite(block)
    return [*site.names, *(site.attention(part) for part in CARRYING)]


def unlearn_gated(
    session: Session, lens: Lens, cast: Cast, mask: FeatureMask, case: str, onto: Ledger | None, carrying: int | None
) -> tuple[WeightDelta, dict[str, Json]]:
    """Find each target among the retained people and write the change that removes it.

    Args:
        session: the run.
        lens: the encoder at the tap.
        cast: who takes part.
        mask: features that may change, if changes are confined.
        case: the name of the request.
        onto: earlier requests that this one is added to.
        carrying: the result of `carrying_block`; None if only `last_state` has to change.

    Returns:
        The delta with its ledger, and entries for the record.

    Raises:
        IreuError: photos cannot be used, the mask does not fit, or there is no room.
    """
    encoder = need_blocks(lens.encoder, "An edit inside a block")
    params, model = session.config.gated, encoder.model
    site = edit_site(encoder, carrying)
    tap: Tap = lens.tap if lens.tap in DIRECT else "pooled"
    readout = readout_of(encoder, tap)
    site_lens = SiteLens(session, lens, site)
    views = retained_views(lens, cast.used, params.copies, session.config.seed)
    statistics, used = site_lens.statistics(cast.used, views, readout, tap)
    check_statistics(statistics, mask, lens.tap)
    may_change = changeable(mask, params)
    if onto is not None and onto.block != site.block:
        raise ArtifactError(
            f"The earlier requests find people in {MlpSite(onto.block).part}, and this one would find them in "
            f"{site.part}",
            "Use the tap of the earlier requests",
        )
    if onto is not None:
        _weights_for(encoder, onto)
    made = None
    if carrying is not None and onto is None:
        may = _of_tokens(encoder, may_change, lens.tap, params)
        made = shared_apparatus(session, lens, encoder, used, may, carrying)
    wanted = [_wanted(session, lens, site_lens, readout, person) for person in cast.targets.photos]
    places = onto.capacity if onto else max(params.people, len(wanted))
    rate = rate_of(params, places)
    with session.timed("solve"):
        weights = site.weights(model)
        room_by = functools.partial(kept_room, site_lens.folder)
        ledger = onto or open_ledger(statistics, site, weights, places, room_by)
        if made is not None and carrying is not None:
            ledger = replace(ledger, apparatus=_shared(made, carrying), flag=made.flag)
        found = find(wanted, statistics, lambda fold: site_lens.pieces(used, fold), params.shrinkage, rate)
        if carrying is None:
            changes = [change_of(one, readout, statistics.average, may_change, params.gain) for one in wanted]
        else:
            changes = [ledger.flag] * len(wanted)
        ledger = enter(ledger, [case] * len(wanted), found, changes, params)
        delta = compose(ledger, weights)
    note_misses(session.talk, found)
    told = {} if made is None else {"carried": made.told}
    return delta, summary_of(delta, ledger, MlpSite(ledger.block).part, statistics, found, rate) | told


def _of_tokens(encoder: HasBlocks, may_change: Tensor, tap: Tap, params: GatedParams) -> Tensor:
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


def compose_units(encoder: ImageEncoder, ledger: Ledger) -> WeightDelta:
    """The change that a ledger stands for.

    Raises:
        ArtifactError: the ledger is for another encoder.
    """
    return compose(ledger, _weights_for(encoder, ledger))


def _weights_for(encoder: ImageEncoder, ledger: Ledger) -> dict[str, Tensor]:
    """The original weights of the site of a ledger that was read from a file.

    Raises:
        ArtifactError: the encoder has no such site, or the sizes differ.
    """
    model, site = need_blocks(encoder, "An edit inside a block").model, MlpSite(ledger.block)
    sizes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    units = len(ledger.room.units) + len(ledger.room.kept)
    wanted = dict(
        zip(site.names, ((units, ledger.rows.shape[2]), (units,), (ledger.columns.shape[1], units)), strict=False)
    )
    wanted |= {name: tuple(change.shape) for name, change in ledger.apparatus.items()}
    if any(sizes.get(name) != size for name, size in wanted.items()):
        raise ArtifactError(
            "The ledger of the delta is for another encoder: it names weights that this encoder does not have",
            "Name a delta that was made for this encoder",
        )
    return site.weights(model)


def _shared(apparatus: Apparatus, block: int) -> dict[str, Tensor]:
    return {f"vision_model.encoder.layers.{block}.{name}": change for name, change in apparatus.changes.items()}


def _wanted(session: Session, lens: Lens, site_lens: SiteLens, readout: Readout, person: Sequence[Photo]) -> Wanted:
    """Encode a person's photos and their changed copies."""
    views = [views_of(lens, photo, session.config.gated.copies) for photo in person]
    plain, copies = [view[0] for view in views], [item for view in views for item in view[1:]]
    bad = site_lens.encode(plain + copies, "--targets", "target photos, edit site")
    usable = [item.key for item in plain if item.key not in bad]
    if not usable:
        raise no_usable_photo()
    inputs, states = site_lens.rows(usable)
    changed = [item.key for item in copies if item.key not in bad]
    every = torch.cat([inputs, site_lens.rows(changed)[0]]) if changed else inputs
    return Wanted(every, states, readout.read(states))
