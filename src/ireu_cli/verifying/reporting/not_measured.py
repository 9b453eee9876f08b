"""What a report does not measure, in words."""

from collections.abc import Sequence

from ireu_cli.manifest import Manifest
from ireu_cli.report import Figure
from ireu_cli.session import Session
from ireu_cli.unlearning.requests import at_hand
from ireu_cli.verifying.feature_evidence import Gathered

_WITHOUT_PICTURES = (
    "Generated pictures: no generator was given, so nothing is said about what a generator draws.",
    "Recognisers and the face-match gate: without pictures, only the features themselves were judged.",
)
_WITHOUT_ATTACKS = (
    "Attacks that try to bring the person back: attacks.suite switched them off, or there were no photos to attack."
)
_WITHOUT_GRADIENTS = "Adversarial noise and relearning: the encoder is {noun}, which gives no gradients."
_UNSTRIPPED = (
    "Taking the edit out of the exported file: attacks.suite does not name it, or this kind of encoder holds no "
    "detectors that ireu knows how to look for."
)
_ATTACKS_UNDRAWN = "Pictures under attack: attacks.drawn switched them off, so attacks were judged on features only."
_PERCEPTUAL = "LPIPS: its networks do not come with ireu."
_SERVED = "The exported file: `ireu export` verifies it again on features, in the dtype that is served."


def left_out(session: Session, parent: Manifest, gathered: Gathered) -> tuple[str, ...]:
    """The people whom the delta unlearns but the run does not look at, and the reverse, as far as photos tell.

    The user is told too, because a verdict is easily mistaken for one about everybody.
    """
    cases, strangers = at_hand(session, parent, gathered.targets.photos)
    texts = []
    if cases:
        texts.append(
            f"The people behind {len(cases)} of the delta's requests ({', '.join(cases)}): none of their photos that "
            "unlearning used is among the targets' photos. So this run says nothing about them, or cannot tell that "
            "it does."
        )
    if strangers:
        texts.append(
            f"Whether the delta unlearns {strangers} of the {len(gathered.targets.photos)} targets at all: none of "
            "its requests was made from their photos."
        )
    for text in texts:
        session.talk.note(f"Not measured: {text}")
    return tuple(texts)


def not_measured(figures: Sequence[Figure], *, drawn: bool, without_gradients: str | None) -> tuple[str, ...]:
    """What there are no figures of.

    Args:
        figures: what was measured.
        drawn: whether there are pictures.
        without_gradients: what messages call an encoder that gives no gradients; None of one that gives some.
    """
    if not figures:
        return ("Everything: the outcome was certain before figures could be measured.",)
    attacked = {figure.generator for figure in figures if figure.name == "attack_success"}
    missing = [] if drawn else list(_WITHOUT_PICTURES)
    if not attacked:
        missing.append(_WITHOUT_ATTACKS)
    elif drawn and attacked == {None}:
        missing.append(_ATTACKS_UNDRAWN)
    if attacked and not any((figure.attack or "").startswith("strip-") for figure in figures):
        missing.append(_UNSTRIPPED)
    if without_gradients is not None:
        missing.append(_WITHOUT_GRADIENTS.format(noun=without_gradients))
    return (*missing, *([_PERCEPTUAL] if drawn else []), _SERVED)
