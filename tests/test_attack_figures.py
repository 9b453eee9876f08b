"""Success of attacks and the face-match gate, on planted features and faces."""

import pytest
import torch

from ireu_cli.attacks.success import Tried, attack_criteria, attack_figures, feature_matcher
from ireu_cli.attacks.suite import is_judged
from ireu_cli.params import VerifyParams
from ireu_cli.report import Figure
from ireu_cli.support.runtime import generator
from ireu_cli.verifying.rival.rival_figures import gate_figures, make_gate
from tests.test_verify import evidence

PARAMS = VerifyParams()
D = 64


def unit(*names: object, spread: float = 0.0, around: torch.Tensor | None = None) -> torch.Tensor:
    noise = torch.randn(D, generator=generator(0, *map(str, names)))
    return torch.nn.functional.normalize(noise if around is None else around + spread * noise / D**0.5, dim=0)


def faces(name: str, person: int, count: int) -> torch.Tensor:
    identity = unit("identity", name, person)
    return torch.stack([unit(name, person, n, spread=0.6, around=identity) for n in range(count)])


def test_features_are_matched_with_the_enrolment_of_the_photos_that_unlearning_saw() -> None:
    whole = evidence("seen")
    matcher = feature_matcher(whole, 0.01)
    for number, person in enumerate(whole.targets):
        assert matcher.match(person.original, number).mean() > 0.9
        after = matcher.match(person.edited, number)
        assert after[person.seen].mean() < 0.1
        assert after[~person.seen].mean() > 0.9
        assert matcher.match(person.original, 1 - number).sum() == 0
    everyone = torch.cat([person.original for person in whole.retained])
    assert matcher.match(everyone, 0).mean() <= 0.01
    gone = matcher.match(torch.full((2, 24), torch.nan), 0)
    assert torch.isnan(gone).all()


def test_attempts_become_figures_over_people() -> None:
    rows = {0: torch.tensor([1.0, 0.0]), 1: torch.tensor([1.0, torch.nan]), 2: torch.tensor([0.0, 0.0])}
    (found,) = attack_figures([Tried("attack_success", "flip", "edited", "who", "A", rows)], PARAMS, 0)
    assert found.value == pytest.approx(2 / 5)
    assert (found.photos, found.people, found.attack, found.generator) == (5, 3, "flip", "A")
    assert found.low is not None
    assert attack_figures([Tried("attack_success", "flip", "edited", "who", "A", {})], PARAMS, 0) == ()


def success(attack: str, value: float, generator: str | None = None, state: str = "edited") -> Figure:
    rows = {0: torch.tensor([1.0] * round(10 * value) + [0.0] * round(10 - 10 * value))}
    return attack_figures([Tried("attack_success", attack, state, "who", generator, rows)], PARAMS, 0)[0]  # type: ignore[arg-type]


def test_the_most_successful_attack_decides_and_white_box_attacks_do_not() -> None:
    figures = [
        success("none", 1.0), success("flip", 0.1), success("grey", 0.2), success("pgd-8", 1.0),
        success("flip", 0.9, state="original"),
        success("seeds-8", 0.3, "A"), success("relearn-5", 1.0, "A"),
    ]  # fmt: skip
    features, drawn, unknown = attack_criteria(figures, (None, "A", "B"), is_judged, PARAMS)
    assert (features.generator, features.outcome) == (None, "pass")
    assert features.found == pytest.approx(0.2)
    assert "grey" in features.meaning
    assert (drawn.generator, drawn.outcome) == ("A", "fail")
    assert drawn.found == pytest.approx(0.3)
    assert "seeds-8" in drawn.meaning
    assert (unknown.generator, unknown.outcome, unknown.found) == ("B", "inconclusive", None)
    assert attack_criteria([success("pgd-2", 1.0)], (), is_judged, PARAMS) == ()
    (noise,) = attack_criteria([success("pgd-generator", 1.0)], (None,), is_judged, PARAMS)
    assert noise.outcome == "fail"


@pytest.mark.parametrize(
    ("shown", "judged"),
    [("pgd-8", False), ("pgd-1e-05", False), ("pgd-detector-2", False), ("pgd-generator", True), ("relearn-0", False),
     ("seeds-8", True), ("mix-other-0.25", True), ("none", True)],
)  # fmt: skip
def test_the_longest_name_says_whether_an_attack_counts(shown: str, judged: bool) -> None:
    assert is_judged(shown) is judged


def test_figures_of_no_attack_are_a_mistake_of_ours() -> None:
    """An attack that nobody knows would otherwise be judged, or not, without a word."""
    with pytest.raises(RuntimeError, match="called pgdx-2"):
        is_judged("pgdx-2")


def test_the_gate_catches_targets_and_hardly_anybody_else() -> None:
    seen, unseen = [faces("target", n, 10)[:5] for n in range(4)], [faces("target", n, 10)[5:] for n in range(4)]
    retained = [faces("retained", n, 8) for n in range(60)]
    found = {(f.name, f.role): f for f in gate_figures("who", seen, unseen, retained, PARAMS, 0)}
    assert found["gate_caught", "target-seen"].value > 0.95
    assert found["gate_caught", "target-unseen"].value > 0.95
    refused = found["gate_false_refusal", "retained"]
    assert 0 < refused.value < 4 * 3 * PARAMS.false_match_rate
    assert (refused.photos, refused.people) == (480, 60)


def test_false_refusals_are_counted_on_people_who_did_not_set_the_threshold() -> None:
    """Someone who looks like the target sets no threshold for themselves, so the gate refuses them."""
    seen = [faces("target", 0, 5)]
    retained = [faces("retained", n, 8) for n in range(40)]
    retained[7] = faces("target", 0, 13)[5:]
    found = {f.name: f for f in gate_figures("who", seen, seen, retained, PARAMS, 0)}
    assert found["gate_false_refusal"].value >= 8 / 320
    inside = make_gate("who", seen, retained, PARAMS.false_match_rate).refuses_any(torch.cat(retained)).mean()
    assert inside <= PARAMS.false_match_rate


def test_photos_without_a_face_pass_the_gate() -> None:
    retained = [faces("retained", n, 8) for n in range(40)]
    gate = make_gate("who", [faces("target", 0, 5), torch.empty(0, D)], retained, 0.01)
    rows = torch.cat([faces("target", 0, 6)[5:], torch.full((1, D), torch.nan)])
    assert gate.refuses(rows, 0).tolist() == [1, 0]
    assert torch.isnan(gate.refuses(rows, 1)).all()
    assert gate.refuses_any(rows).tolist() == [1, 0]
    hidden = [torch.full((3, D), torch.nan)]
    found = {(f.name, f.role): f.value for f in gate_figures("who", hidden, hidden, retained, PARAMS, 0)}
    assert ("gate_caught", "target-seen") not in found
    only = [faces("target", 0, 1)]
    found = {(f.name, f.role): f.value for f in gate_figures("who", only, only, retained, PARAMS, 0)}
    assert ("gate_caught", "target-seen") not in found, "a photo that is the whole enrolment matches itself"
