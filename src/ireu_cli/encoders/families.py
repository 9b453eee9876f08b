"""The only table of families of encoders. One of somebody else's joins it by `register`."""

from pathlib import Path

from ireu_cli.encoders.card import Card
from ireu_cli.encoders.dinov2.folders import DINOV2_TRANSFORMERS
from ireu_cli.encoders.face_networks import FACE_NETWORKS
from ireu_cli.encoders.family import Family, ImageEncoder
from ireu_cli.encoders.files.portrait import find_bundle
from ireu_cli.encoders.ir_se.facexlib import IR_SE_NETWORKS
from ireu_cli.encoders.vision_transformers import VISION_TRANSFORMERS
from ireu_cli.errors import ConfigError
from ireu_cli.params import TAPS, EncoderParams, Tap

_FAMILIES: list[Family] = [FACE_NETWORKS, IR_SE_NETWORKS, DINOV2_TRANSFORMERS]
"""Those that tell a source of their own from others, the first of which takes it."""
_REST = VISION_TRANSFORMERS
"""Takes every other source, also an id of the hub, of which nothing can be told before it is fetched."""


def register(family: Family) -> None:
    """Add a family, whose taps `encoder.tap` may name from then on; it is asked for its sources before ours.

    Raises:
        ValueError: there is one of that title.
    """
    if family.title in {known.title for known in (*_FAMILIES, _REST)}:
        raise ValueError(f"there is a family called {family.title} already")
    for tap in family.taps:
        if tap not in TAPS:
            TAPS.add(tap)
    _FAMILIES.insert(0, family)


def family_of(source: str, tap: Tap) -> Family:
    """The family of the encoder that a source and a tap name; a bundle may hold one of several families.

    Raises:
        ConfigError: the source has no such tap.
        ModelError: the source is a pack or a bundle, and cannot be read.
    """
    owners = _owners(source)
    for family in owners:
        if family.reads(tap):
            return family
    if owners[0] is not _REST:
        taps = " or --tap ".join(owners[0].taps)
        raise ConfigError(f"A {owners[0].title} has no tap {tap}", f"Use --tap {taps}")
    wanted = next((family for family in _FAMILIES if family.reads(tap)), None)
    if wanted is None:
        raise ConfigError(
            f"No kind of encoder has all parts of the tap {tap}",
            f"Join {', '.join(_REST.taps)} and block-N, which are of one kind",
        )
    raise ConfigError(
        f"Only {wanted.title}s have a tap {tap}, and {source} is not {wanted.sources}",
        f"Name {wanted.sources} with --encoder, or another --tap",
    )


def load_encoder(params: EncoderParams, landmarks: tuple[float, ...], device: str) -> ImageEncoder:
    """Load the encoder that has the tap.

    Args:
        params: source, tap and dtype.
        landmarks: where faces lie in the photos, as ten fractions; face-embedding networks align by them.
        device: torch device.

    Raises:
        ConfigError: the source has no such tap, or the dtype is not one that it runs in.
        ModelError: it cannot be loaded.
    """
    return family_of(params.source, params.tap).load(params, landmarks, device)


def card_of(source: str) -> Card:
    """Say what an encoder is; of a bundle, the one that most of its generators read.

    Args:
        source: a file, a folder, a pack, or a bundle with generators.

    Raises:
        ModelError: not there, or no encoder of a known kind.
    """
    return _owners(source)[-1].card(source)


def fingerprint_in(path: Path, tap: Tap) -> str | None:
    """The fingerprint that a recogniser's file has as an encoder with some tap; None where no such file is one."""
    known = (family.fingerprint_of for family in (*_FAMILIES, _REST) if family.reads(tap))
    reader = next((each for each in known if each is not None), None)
    return None if reader is None else reader(path)


def _owners(source: str) -> list[Family]:
    """The families that have an encoder in a source: one, or of a bundle several."""
    own = [family for family in _FAMILIES if family.place(source) is not None]
    if find_bundle(source) is not None:
        return [*own, _REST]
    return own[:1] or [_REST]
