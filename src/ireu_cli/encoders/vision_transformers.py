"""The family of vision transformers (CLIP, SigLIP, EVA02-CLIP): where they lie, how one is loaded, what is said."""

from typing import Any

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.clip import Encoder, load_encoder, outline_encoder, settings_in
from ireu_cli.encoders.eva.encoder import EvaEncoder
from ireu_cli.encoders.family import Family, InCheckpoint
from ireu_cli.encoders.files.checkpoint import Checkpoint, encoder_in
from ireu_cli.encoders.files.clip_files import checkpoint_of, encoder_place, outline_of, whole_at_hand
from ireu_cli.encoders.files.fingerprint import fingerprint_by
from ireu_cli.encoders.groups import groups_of
from ireu_cli.encoders.reach import TRANSFORMER, sites_of
from ireu_cli.params import EncoderParams
from ireu_cli.values import UNITS_EACH, most_people, most_people_in_heads


def _load(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> Encoder:
    del landmarks
    return load_encoder(params, device, _kind_of)


def _outline(checkpoint: Checkpoint, fingerprint: str) -> Encoder:
    return outline_encoder(checkpoint, fingerprint, _kind_of(checkpoint))


def _kind_of(checkpoint: Checkpoint) -> type[Encoder]:
    return EvaEncoder if checkpoint.is_eva else Encoder


def _card(source: str) -> Card:
    """Its tensors are read one after another and never held together."""
    checkpoint = encoder_in(whole_at_hand(source))
    model = outline_of(checkpoint)
    config, names = model.config, list(model.state_dict())
    blocks, anatomy = config.num_hidden_layers, checkpoint.anatomy
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
        sites=sites_of(blocks, anatomy),
        holds=_holds(checkpoint, config),
        files=tuple(part.path for part in checkpoint.parts),
        settings=None if checkpoint.is_eva else settings_in(config),
    )


def _holds(checkpoint: Checkpoint, config: Any) -> str:
    if _kind_of(checkpoint).no_detectors:
        return "nobody yet: use ireu, global or block"
    units, heads = config.intermediate_size, config.num_attention_heads
    each = f"each takes {UNITS_EACH} of the {units} hidden units of "
    if checkpoint.anatomy.has_class_token:
        return f"up to {most_people(units)} people; {each}one block"
    tokens = most_people_in_heads(heads, config.hidden_size // heads)
    return (
        f"at the tap pooled up to {most_people(units)} people; {each}the head; at others up to {tokens}, who take half "
        "of the attention heads of a block"
    )


VISION_TRANSFORMERS = Family(
    title="vision transformer",
    taps=TRANSFORMER.taps,
    sources="a folder or a file of weights",
    place=encoder_place,
    load=_load,
    card=_card,
    library="transformers",
    checkpoint=InCheckpoint(checkpoint_of, _outline),
    has_depths=True,
)
