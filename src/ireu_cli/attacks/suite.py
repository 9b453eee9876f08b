"""The only table of attacks. Call `register` to add one of your own."""

from ireu_cli.attacks import by_generator, by_gradient, driving
from ireu_cli.attacks.attack import Attack
from ireu_cli.attacks.plan import AVERAGE, AttackPlan
from ireu_cli.attacks.relearning import relearning
from ireu_cli.attacks.stripped import tried
from ireu_cli.errors import ConfigError
from ireu_cli.faces.disguise import DISGUISES, Disguise
from ireu_cli.report import NO_ATTACK

_SUITE = [
    *(Attack(disguise.name, disguise.meaning, photo=disguise) for disguise in DISGUISES),
    Attack(AVERAGE, "The features of up to five photos of the person are averaged.", photo=AVERAGE),
    Attack("prompts", "The prompt asks for an edit.", shown="prompt", pictures=driving.with_edits),
    Attack(
        "seeds",
        "The generator draws with several noises, and the attacker takes the best picture.",
        pictures=driving.with_seeds,
    ),
    Attack("guidance", "The generator's guidance is halved or doubled.", pictures=driving.with_guidance),
    Attack("scale", "The adapter's scale is lowered or raised.", pictures=driving.with_scale),
    Attack(
        "pgd",
        "Noise, too small to see, brings the features near those of the original encoder.",
        white_box=True,
        needs_gradients=True,
        features=by_gradient.noise_on_features,
        pictures=by_gradient.noise_in_pictures,
    ),
    Attack(
        "pgd-detector",
        "Noise, too small to see, hides the photo from the detectors that the edit wrote into the encoder.",
        white_box=True,
        needs_gradients=True,
        features=by_gradient.noise_on_detectors,
    ),
    Attack(
        "pgd-generator",
        "Noise of 8 / 255, found through the generator, makes the generator draw the person.",
        needs_gradients=True,
        pictures=by_generator.noise_for_generator,
    ),
    Attack(
        "relearn",
        "The edited encoder is fine-tuned on photos of the person, for the number of steps in the name.",
        white_box=True,
        needs_gradients=True,
        features=relearning,
    ),
    Attack(
        "strip-file",
        "The edit is taken out of the exported file: units unlike all others, or what was appended to a network.",
        white_box=True,
        features=tried.by_the_file,
    ),
    Attack(
        "strip-photos",
        "The edit is taken out of the exported file: units that are silent on some photos of other people.",
        white_box=True,
        features=tried.with_photos,
    ),
]


def register(attack: Attack) -> None:
    """Add an attack, which `attacks.suite` may name from then on.

    Raises:
        ValueError: an attack or its figures already have that name.
    """
    taken = {"all", "none", *known_attacks(), *(one.shown_as for one in _SUITE)}
    if twice := {attack.name, attack.shown_as} & taken:
        raise ValueError(f"an attack named {min(twice)} exists already")
    _SUITE.append(attack)


def known_attacks() -> list[str]:
    """Names that `attacks.suite` may hold, besides all and none."""
    return [attack.name for attack in _SUITE]


def chosen(names: tuple[str, ...]) -> frozenset[str]:
    """The names of the attacks that `attacks.suite` selects.

    Raises:
        ConfigError: a named attack does not exist.
    """
    known = known_attacks()
    if unknown := sorted(set(names) - {"all", "none", *known}):
        raise ConfigError(f"attacks.suite names {unknown[0]}, which does not exist", f"Use {', '.join(known)}")
    return frozenset(known if "all" in names else set(names) - {"none"})


def attacks_of(plan: AttackPlan) -> list[Attack]:
    """The attacks that are tried, in the order of the report."""
    return [attack for attack in _SUITE if attack.name in plan.names]


def disguises_of(plan: AttackPlan) -> list[Disguise]:
    """The disguises that are tried."""
    return [attack.photo for attack in attacks_of(plan) if isinstance(attack.photo, Disguise)]


def photo_attacks(plan: AttackPlan) -> list[tuple[str, Disguise | str]]:
    """Names and disguises of the attacks that change the encoder's input, `none` first."""
    changed = [(attack.name, attack.photo) for attack in attacks_of(plan) if attack.photo is not None]
    return [(NO_ATTACK, NO_ATTACK), *changed]


def needing_gradients() -> set[str]:
    """Names of the attacks that need gradients."""
    return {attack.name for attack in _SUITE if attack.needs_gradients}


def attack_named(shown: str) -> Attack | None:
    """The attack behind a figure's name, if any; a number, a word or an edit may follow the attack's name.

    The longest name counts: `pgd-generator` is not a strength of `pgd`.
    """
    beginnings = [attack for attack in _SUITE if shown == attack.shown_as or shown.startswith(_follow(attack))]
    return max(beginnings, key=lambda attack: len(attack.shown_as), default=None)


def _follow(attack: Attack) -> tuple[str, str]:
    return f"{attack.shown_as}-", f"{attack.shown_as}:"


def meaning_of(shown: str) -> str | None:
    """The meaning of the attack behind a figure's name; None if the attack is unknown."""
    if shown == NO_ATTACK:
        return "The unchanged photo."
    attack = attack_named(shown)
    return None if attack is None else attack.meaning


def is_judged(shown: str) -> bool:
    """Whether the attack behind a figure's name counts in the verdict."""
    attack = attack_named(shown)
    if attack is None and shown != NO_ATTACK:
        raise RuntimeError(f"figures are called {shown}, and no attack is")
    return attack is None or not attack.white_box
