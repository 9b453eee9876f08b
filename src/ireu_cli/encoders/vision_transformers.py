"""The family of CLIP's and SigLIP's vision transformers: where they lie, how one is loaded, and what is said of it."""

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.clip import Encoder, load_encoder, outline_encoder
from ireu_cli.encoders.family import Family, InCheckpoint
from ireu_cli.encoders.files.checkpoint import Checkpoint, encoder_in
from ireu_cli.encoders.files.clip_files import checkpoint_of, encoder_place, outline_of, whole_at_hand
from ireu_cli.encoders.files.fingerprint import fingerprint_by
from ireu_cli.encoders.files.foreign import ForeignSizes, foreign_sizes
from ireu_cli.encoders.groups import groups_of
from ireu_cli.encoders.reach import TRANSFORMER, reach_of
from ireu_cli.params import EncoderParams


def _load(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> Encoder:
    del landmarks
    return load_encoder(params, device)


def _card(source: str) -> Card:
    """Its tensors are read one after another and never held together."""
    whole = whole_at_hand(source)
    foreign = foreign_sizes(whole)
    return _own_card(encoder_in(whole)) if foreign is None else _foreign_card(whole, foreign)


def _foreign_card(whole: Checkpoint, found: ForeignSizes) -> Card:
    """The card of an encoder that ireu does not edit."""
    own = {name: f"{found.prefix}{name}" for name in found.names}
    return Card(
        kind=f"{found.kind}, not edited by ireu",
        layout=whole.layout.name,
        architecture=f"{found.hidden} wide, {found.blocks} blocks, patches of {found.patch}",
        dtype=" and ".join(whole.dtypes(own.values())),
        parameters=sum(whole[name].numel() for name in own.values()),
        fingerprint=fingerprint_by(own, lambda name: whole[own[name]]),
        groups=found.groups,
        taps=(),
        sites={},
    )


def _own_card(checkpoint: Checkpoint) -> Card:
    model = outline_of(checkpoint)
    config, names = model.config, list(model.state_dict())
    blocks, anatomy = config.num_hidden_layers, checkpoint.anatomy
    parts = {
        f"blocks 0 to {blocks - 2}": "vision_model.encoder.layers.0.",
        f"block {blocks - 1}": f"vision_model.encoder.layers.{blocks - 1}.",
        # What comes before the blocks changes what they do.
        **{part: start for part, start in anatomy.parts.items() if anatomy.first_tap[part]},
    }
    end = f"projection to {config.projection_dim}, " if "projection" in anatomy.parts else ""
    return Card(
        kind=anatomy.kind,
        layout=checkpoint.layout.name,
        architecture=f"{config.hidden_size} wide, {blocks} blocks, patches of {config.patch_size}, "
        f"{config.image_size} px, {end}{config.hidden_act}",
        dtype=" and ".join(checkpoint.dtypes(names)),
        parameters=sum(checkpoint[name].numel() for name in names),
        fingerprint=fingerprint_by(names, checkpoint.__getitem__),
        groups=groups_of(checkpoint),
        taps=anatomy.taps,
        sites={part: reach_of([start + "x"], blocks, anatomy).taps for part, start in parts.items()},
    )


VISION_TRANSFORMERS = Family(
    title="vision transformer",
    taps=TRANSFORMER.taps,
    sources="a folder or a file of weights",
    place=encoder_place,
    load=_load,
    card=_card,
    library="transformers",
    checkpoint=InCheckpoint(checkpoint_of, outline_encoder),
    has_depths=True,
)
