"""Verification: planted failures end in the right outcome; evidence that is missing is never replaced."""

from dataclasses import replace

import pytest
import torch

from ireu_cli.measuring.matching import Evidence, PersonEvidence
from ireu_cli.params import VerifyParams
from ireu_cli.support.runtime import generator
from ireu_cli.verifying.criteria import Beside, Verified, verify
from ireu_cli.verifying.figures import find_figure

PARAMS = VerifyParams()
D = 24


def person(number: int, photos: int, edit: str = "none", seen: int = 0) -> PersonEvidence:
    """A person with a clear identity; `edit` plants what the edited encoder does."""
    rng = generator(0, "person", number)
    identity = 3 * torch.randn(D, generator=rng)
    original = identity + torch.randn(photos, D, generator=rng)
    edited = original.clone()
    where = torch.arange(photos)
    chosen = {"none": where < 0, "all": where >= 0, "seen": where < seen}[edit]
    edited[chosen] = torch.randn(photos, D, generator=generator(0, "noise", number))[chosen]
    cosine = torch.cosine_similarity(original, edited, dim=1)
    relative = (edited - original).norm(dim=1) / original.norm(dim=1)
    return PersonEvidence(original, edited, cosine, relative, relative, where < seen)


def evidence(edit: str = "all", people: int = 30, targets: int = 2, others: str = "none") -> Evidence:
    return Evidence(
        targets=[person(1000 + n, 10, edit, seen=5) for n in range(targets)],
        retained=[person(n, 8, others) for n in range(people)],
        reference=[person(5000 + n, 4).original for n in range(40)],
        null_relative=torch.tensor([0.001, 0.002]),
    )


def failed(verified: Verified) -> set[str]:
    return {criterion.name for criterion in verified.criteria if criterion.outcome == "fail"}


def unmet(verified: Verified) -> set[str]:
    return {control.name for control in verified.controls if not control.met}


def test_a_perfect_edit_passes() -> None:
    verified = verify(evidence(), PARAMS, 0)
    assert verified.outcome == "pass", verified.reason
    before = find_figure(verified.figures, "match_rate", "target-unseen", "original")
    after = find_figure(verified.figures, "match_rate", "target-unseen", "edited")
    assert before is not None
    assert after is not None
    assert before.value > 0.9
    assert after.value < 0.1
    assert (before.photos, before.people) == (10, 2)


def test_no_op_fails() -> None:
    verified = verify(evidence("none"), PARAMS, 0)
    assert verified.outcome == "fail"
    assert failed(verified) == {"match_seen", "match_unseen"}


def test_an_edit_that_only_works_on_the_photos_it_saw_fails() -> None:
    verified = verify(evidence("seen"), PARAMS, 0)
    assert verified.outcome == "fail"
    assert failed(verified) == {"match_unseen"}


def test_an_edit_of_somebody_else_fails() -> None:
    whole = evidence("none")
    retained = [person(n, 8, "all" if n == 7 else "none") for n in range(30)]
    verified = verify(replace(whole, retained=retained), PARAMS, 0)
    assert {"match_seen", "match_unseen"} <= failed(verified)


def test_an_edit_that_destroys_everybody_fails() -> None:
    verified = verify(evidence(others="all"), PARAMS, 0)
    assert verified.outcome == "fail"
    assert {"retained_similarity", "lookalike_similarity", "retained_change", "lookalike_change"} <= failed(verified)


def test_an_edit_that_hurts_the_null_images_fails() -> None:
    verified = verify(replace(evidence(), null_relative=torch.tensor([0.0, 0.2])), PARAMS, 0)
    assert failed(verified) == {"null_change"}
    assert "null images" in verified.reason


def test_an_original_that_does_not_know_the_target_is_inconclusive() -> None:
    whole = evidence()
    blurred = [
        replace(t, original=torch.randn(10, D, generator=generator(0, "blur", i))) for i, t in enumerate(whole.targets)
    ]
    verified = verify(replace(whole, targets=blurred), PARAMS, 0)
    assert verified.outcome == "inconclusive"
    assert "original_shows_target" in unmet(verified)


def test_a_small_gallery_is_inconclusive() -> None:
    verified = verify(evidence(people=3), PARAMS, 0)
    assert verified.outcome == "inconclusive"
    assert unmet(verified) == {"gallery_people", "false_match_rate_resolved"}


def test_without_unseen_photos_it_is_inconclusive_unless_allowed() -> None:
    whole = evidence()
    seen = [replace(target, seen=torch.ones(10, dtype=torch.bool)) for target in whole.targets]
    verified = verify(replace(whole, targets=seen), PARAMS, 0)
    assert verified.outcome == "inconclusive"
    assert unmet(verified) == {"unseen_photos"}
    allowed = VerifyParams(require_unseen=False)
    assert verify(replace(whole, targets=seen), allowed, 0).outcome == "pass"


@pytest.mark.parametrize(("unseen", "met"), [(1, False), (2, False), (3, True)])
def test_few_unseen_photos_do_not_suffice(unseen: int, met: bool) -> None:
    """They are counted over all targets, and a criterion on two photos says little."""
    whole = evidence()
    target = replace(whole.targets[0], seen=torch.arange(10) >= unseen)
    rest = replace(whole.targets[1], seen=torch.ones(10, dtype=torch.bool))
    verified = verify(replace(whole, targets=[target, rest]), PARAMS, 0)
    assert ("unseen_photos" not in unmet(verified)) == met
    (control,) = [one for one in verified.controls if one.name == "unseen_photos"]
    assert (control.found, control.needed) == (unseen, 3)


def test_figures_of_groups_of_few_people_leave_no_report() -> None:
    whole = evidence()
    some = [
        ("age = old", range(3)),
        ("age = young", range(3, 30)),
        ("hair = red", range(1)),
        ("hair = dark", range(1, 30)),
    ]
    labelled = tuple((name, frozenset(positions)) for name, positions in some)
    attacked = [f for f in verify(whole, PARAMS, 0).figures if f.name == "match_rate"]
    further = tuple(f.model_copy(update={"group": "hair = red", "people": 1, "name": "attacked"}) for f in attacked)
    assert further
    found = verify(whole, PARAMS, 0, (), Beside(figures=further, labelled=labelled)).figures
    assert {f.group for f in found if f.group} == {"age = old", "age = young"}


def test_one_seen_photo_alone_cannot_be_enrolled() -> None:
    whole = evidence()
    lonely = [person(1000, 1, "all", seen=1)]
    verified = verify(replace(whole, targets=lonely), VerifyParams(require_unseen=False), 0)
    assert verified.outcome == "inconclusive"


@pytest.mark.parametrize(("where", "outcome"), [("original", "inconclusive"), ("edited", "fail")])
def test_features_that_are_not_numbers(where: str, outcome: str) -> None:
    whole = evidence()
    spoiled = replace(whole.targets[0], **{where: torch.full((10, D), float("nan"))})
    verified = verify(replace(whole, targets=[spoiled, *whole.targets[1:]]), PARAMS, 0)
    assert verified.outcome == outcome
    assert "not finite" in verified.reason


def test_constant_features_are_inconclusive() -> None:
    """An encoder that answers the same for everybody cannot show that anybody is gone."""
    whole = evidence()

    def constant(p: PersonEvidence) -> PersonEvidence:
        return replace(p, original=torch.ones_like(p.original), edited=torch.ones_like(p.edited))

    flat = Evidence(
        [constant(p) for p in whole.targets],
        [constant(p) for p in whole.retained],
        [torch.ones_like(r) for r in whole.reference],
        whole.null_relative,
    )
    assert verify(flat, PARAMS, 0).outcome == "inconclusive"


def test_order_of_people_does_not_matter_and_seeds_repeat() -> None:
    whole = evidence()
    shuffled = replace(whole, retained=list(reversed(whole.retained)))
    first, again, other = verify(whole, PARAMS, 0), verify(whole, PARAMS, 0), verify(shuffled, PARAMS, 0)
    assert first == again
    assert [f.value for f in first.figures] == pytest.approx([f.value for f in other.figures])


def test_look_alikes_are_the_nearest_retained_people() -> None:
    whole = evidence()
    twin = replace(person(99, 8), original=whole.targets[0].original[:8] + 0.1, cosine=torch.full((8,), 0.5))
    verified = verify(replace(whole, retained=[*whole.retained, twin]), VerifyParams(lookalike_share=0.01), 0)
    figure = find_figure(verified.figures, "feature_cosine", "look-alike", "change")
    assert figure is not None
    assert (figure.value, figure.people) == (0.5, 1)
    assert failed(verified) == {"lookalike_similarity"}


def test_a_photo_is_never_enrolled_against_itself() -> None:
    """Features without any identity: similarity to one's own enrolment is then chance, for everybody."""
    rng = generator(0, "noise")

    def nobody(photos: int, seen: int = 0) -> PersonEvidence:
        noise = torch.randn(photos, D, generator=rng)
        return PersonEvidence(
            noise, noise, torch.ones(photos), torch.zeros(photos), torch.zeros(photos), torch.arange(photos) < seen
        )

    targets, retained = [nobody(4, 4) for _ in range(40)], [nobody(4) for _ in range(60)]
    empty = Evidence(targets, retained, [nobody(4).original for _ in range(60)], torch.zeros(2))
    figures = verify(empty, PARAMS, 0).figures
    for role in ("target-seen", "retained"):
        figure = find_figure(figures, "similarity", role, "original")
        assert figure is not None
        assert abs(figure.value) < 0.06


def test_everybody_becoming_the_same_fails_even_where_raw_features_are_alike() -> None:
    """Raw cosine between people can exceed any threshold on it; what sets a person apart is gone all the same."""
    whole = evidence()

    def averaged(p: PersonEvidence) -> PersonEvidence:
        n = len(p.original)
        return replace(
            p, edited=torch.zeros_like(p.original) + 1e-3, cosine=torch.full((n,), 0.99), centred=torch.ones(n)
        )

    same = replace(whole, targets=[averaged(t) for t in whole.targets], retained=[averaged(r) for r in whole.retained])
    assert failed(verify(same, PARAMS, 0)) == {"retained_change", "lookalike_change"}


def test_the_edit_as_a_search_in_a_list() -> None:
    """FNIR at FPIR: what share of targets' photos moves no further than so many of other people's."""
    whole = evidence("seen", people=100)
    photos = sum(whole.sizes)

    def rates(evidence: Evidence, role: str) -> dict[float | None, float]:
        found = [f for f in verify(evidence, PARAMS, 0).figures if f.name == "fnir" and f.role == role]
        assert all(f.measure == "tap features" and f.state == "change" and f.unit == "share" for f in found)
        return {figure.false_match_rate: figure.value for figure in found}

    wanted = {rate for rate in (0.001, 0.003, 0.01) if rate * photos >= PARAMS.min_impostors_per_error}
    assert 0.01 in wanted
    assert len(wanted) < 3, "some rate is too low for so few photos"
    assert rates(whole, "target-seen") == dict.fromkeys(wanted, 0.0)
    assert rates(whole, "target-unseen") == dict.fromkeys(wanted, 1.0)
    # One photo in fifty of other people moves further than any target's: then no limit at one in a hundred helps.
    per_person = len(whole.retained[0].centred)
    far = [
        replace(person, centred=torch.where(torch.arange(per_person) + n * per_person < photos // 50, 1e6, 0.0))
        for n, person in enumerate(whole.retained)
    ]
    assert rates(replace(whole, retained=far), "target-seen")[0.01] == 1.0
    few = [
        replace(person, centred=torch.where(torch.arange(per_person) + n * per_person < photos // 200, 1e6, 0.0))
        for n, person in enumerate(whole.retained)
    ]
    assert rates(replace(whole, retained=few), "target-seen")[0.01] == 0.0
    # What is no number was not moved, as far as anybody can tell.
    unknown = replace(whole, targets=[replace(one, centred=one.centred * torch.nan) for one in whole.targets])
    assert rates(unknown, "target-seen")[0.01] == 1.0
    assert not rates(replace(whole, retained=whole.retained[:10]), "target-seen"), "too few people"
