"""Where an edit lies in a vision transformer: the block that carries it, its site, the names of its weights."""

from collections.abc import Collection, Mapping

from torch import Tensor

from ireu_cli.encoders.family import HasBlocks, ImageEncoder, need_blocks
from ireu_cli.encoders.mlp_site import HEAD, MlpSite
from ireu_cli.errors import ArtifactError, ConfigError
from ireu_cli.params import FoundIn, Tap
from ireu_cli.unlearning.block.one_block import block_for
from ireu_cli.unlearning.gated.solve import (
    compose,
)
from ireu_cli.unlearning.gated.tokens.marking import CARRYING
from ireu_cli.values import Ledger, PooledLedger, WeightDelta

GATHERING = tuple(f"{part}_proj.{kind}" for part in ("q", "k", "v", "out") for kind in ("weight", "bias"))
"""Parts of an attention whose heads find people in all tokens."""
DIRECT = frozenset({"pooled", "image_embeds"})
"""Taps that only depend on `last_state`: on the class token after the last block, or on a pooling head."""


def carrying_block(encoder: HasBlocks, taps: Collection[Tap], *, pooled: bool = False) -> int | None:
    """The last block that reaches every token of some taps, to replace them there; None if no flag is needed.

    Args:
        encoder: the encoder.
        taps: what the edit has to reach.
        pooled: whether people are found in all tokens, which only a flag on every token can follow.

    Raises:
        ConfigError: the encoder has too few blocks before it.
    """
    if set(taps) <= DIRECT and not pooled:
        return None
    # Later blocks know more about the person.
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


def is_pooled(encoder: HasBlocks, taps: Collection[Tap], where: FoundIn) -> bool:
    """Whether people are found in all tokens: as you say, or where taps need it and the encoder has no class token.

    Args:
        encoder: the encoder.
        taps: what the edit has to reach.
        where: `gated.found_in`.

    Raises:
        ConfigError: the class token is asked for, and the encoder has none.
    """
    reads_tokens = not set(taps) <= DIRECT
    if where == "class_token" and reads_tokens and not encoder.has_class_token:
        raise ConfigError(
            "The encoder has no class token in which people could be found",
            "Leave out gated.found_in, or use --tap pooled",
        )
    return where == "all_tokens" or (where == "auto" and reads_tokens and not encoder.has_class_token)


def edit_site(encoder: HasBlocks, carrying: int | None) -> MlpSite:
    """The site where people are found: the hidden layer of the last block, or of the one before the carrying block.

    SigLIP makes its pooled vector with a head of its own, so there it is the hidden layer of the head.
    """
    if carrying is not None:
        return MlpSite(carrying - 1)
    return MlpSite(encoder.blocks - 1 if encoder.has_class_token else HEAD)


def edited_names(encoder: HasBlocks, carrying: int | None) -> list[str]:
    """The weights that the method may change, if it finds people in the class token."""
    names = edit_site(encoder, carrying).names
    return sorted(names if carrying is None else names + carrying_names(carrying))


def pooled_names(carrying: int) -> list[str]:
    """The weights that the method may change, if it finds people in all tokens."""
    site = MlpSite(carrying - 1)
    return sorted([*site.names, *map(site.attention, GATHERING), *carrying_names(carrying)])


def carrying_names(block: int) -> list[str]:
    """The weights of a carrying block, which change every token."""
    site = MlpSite(block)
    return [*site.names, *(site.attention(part) for part in CARRYING)]


def compose_units(encoder: ImageEncoder, ledger: Ledger) -> WeightDelta:
    """The change that a ledger stands for.

    Raises:
        ArtifactError: the ledger is for another encoder.
    """
    return compose(ledger, weights_for(encoder, ledger))


def weights_for(encoder: ImageEncoder, ledger: Ledger) -> dict[str, Tensor]:
    """The original weights of the site of a ledger that was read from a file.

    Raises:
        ArtifactError: the encoder has no such site, or the sizes differ.
    """
    return site_weights(encoder, ledger, ledger.rows.shape[2], ledger.columns.shape[1])


def site_weights(encoder: ImageEncoder, ledger: Ledger | PooledLedger, read: int, written: int) -> dict[str, Tensor]:
    """The original weights of a ledger's site, whose hidden layer reads and writes so many channels.

    Raises:
        ArtifactError: the encoder has no such site, or the sizes differ.
    """
    model, site = need_blocks(encoder, "An edit inside a block").model, MlpSite(ledger.block)
    units = len(ledger.room.units) + len(ledger.room.kept)
    wanted = dict(zip(site.names, ((units, read), (units,), (written, units), (written,)), strict=True))
    wanted |= {name: tuple(change.shape) for name, change in ledger.apparatus.items()}
    sizes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if any(sizes.get(name) != size for name, size in wanted.items()):
        raise ArtifactError(
            "The ledger of the delta is for another encoder: it names weights that this encoder does not have",
            "Name a delta that was made for this encoder",
        )
    return site.weights(model)


def shared_changes(changes: Mapping[str, Tensor], block: int) -> dict[str, Tensor]:
    """Changes of a block's parts that all requests share, by the names of the tensors."""
    return {f"vision_model.encoder.layers.{block}.{name}": change for name, change in changes.items()}
