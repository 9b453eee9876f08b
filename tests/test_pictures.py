"""Verification with pictures: planted edits, vanished faces and missing evidence end in the right outcome."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ireu_cli.drawing.compare import adherence, likeness
from ireu_cli.drawing.shots import Shot, nearest, plan_shots
from ireu_cli.maths.images.differences import PSNR_CEILING, psnr, ssim
from ireu_cli.measuring.drawn_evidence import GeneratorEvidence, PersonPictures
from ireu_cli.params import PicturesParams, VerifyParams
from ireu_cli.report import Criterion, Figure, Role
from ireu_cli.support.runtime import generator
from ireu_cli.values import Photo
from ireu_cli.verifying.criteria import verify
from ireu_cli.verifying.pictures.curves import drawn_curves, kept_plot
from ireu_cli.verifying.pictures.picture_criteria import picture_controls, picture_criteria, share_removed
from ireu_cli.verifying.pictures.picture_figures import PICTURE_DEFINITIONS, measure_pictures
from tests.test_verify import evidence as features

PARAMS = VerifyParams()
D = 64
ROLES: tuple[Role, ...] = ("target-seen", "target-unseen", "look-alike", "retained")


def unit(*names: object, spread: float = 0.0, around: torch.Tensor | None = None) -> torch.Tensor:
    noise = torch.randn(D, generator=generator(0, *map(str, names)))
    return torch.nn.functional.normalize(noise if around is None else around + spread * noise / D**0.5, dim=0)


def person(number: int, position: int | None, edit: str = "none", pictures: int = 6) -> PersonPictures:
    """Somebody whom the generator draws well; `edit` plants what the edited encoder does to the pictures."""
    identity = unit("identity", number)
    photos = torch.stack([unit("photo", number, n, spread=0.5, around=identity) for n in range(5)])
    original = torch.stack([unit("drawn", number, n, spread=0.5, around=identity) for n in range(pictures)])
    edited = original.clone()
    if edit == "forget":
        edited = torch.stack([unit("nobody", number, n) for n in range(pictures)])
    if edit == "pseudonym":
        edited = torch.stack([unit("new", number, n, spread=0.5, around=unit("new", number)) for n in range(pictures)])
    if edit == "a face for each photo":
        edited = torch.stack(
            [unit("new", number, n, spread=0.5, around=unit("new", number, n // 3)) for n in range(pictures)]
        )
    if edit == "no face":
        edited[:] = torch.nan
    kept = edit == "none"
    return PersonPictures(
        position, photos, photos[[0, 0, 0, 1, 1, 1]][:pictures], original, edited,
        torch.tensor([0, 0, 0, 1, 1, 1])[:pictures], torch.full((pictures,), 40.0 if kept else 12.0),
        torch.full((pictures,), 0.95 if kept else 0.4), [None, None, "dark"] * (pictures // 3),
        torch.tensor([[torch.nan] * 2, [torch.nan] * 2, [1.0, 1.0]] * (pictures // 3)),
    )  # fmt: skip


def shown(targets: str = "forget", others: str = "none") -> GeneratorEvidence:
    retained = [person(n, n, others) for n in range(40)]
    groups: dict[Role, list[PersonPictures]] = {
        "target-seen": [person(100 + n, None, targets) for n in range(3)],
        "target-unseen": [person(100 + n, None, targets) for n in range(3)],
        "look-alike": retained[:5],
        "retained": retained[5:],
    }
    return GeneratorEvidence("A", "tiny", groups, [p.photos for p in retained])


def figure(found: Sequence[Figure], name: str, role: str, state: str, edit: str | None = None) -> Figure:
    (one,) = [f for f in found if (f.name, f.role, f.state, f.edit) == (name, role, state, edit)]
    return one


def judged(evidence: GeneratorEvidence, params: VerifyParams = PARAMS) -> dict[str, Criterion]:
    criteria = picture_criteria([evidence], measure_pictures(evidence, params, 0), params)
    return {criterion.name: criterion for criterion in criteria}


def failing(evidence: GeneratorEvidence) -> set[str]:
    return {name for name, criterion in judged(evidence).items() if criterion.outcome == "fail"}


def unmet(evidence: GeneratorEvidence) -> set[str]:
    figures = measure_pictures(evidence, PARAMS, 0)
    return {control.name for control in picture_controls([evidence], figures, PARAMS) if not control.met}


def test_a_perfect_edit_passes_on_features_and_pictures() -> None:
    verified = verify(features(), PARAMS, 0, [shown()])
    assert verified.outcome == "pass", verified.reason
    assert {c.generator for c in verified.criteria} == {None, "A"}
    assert {f.name for f in verified.figures if f.generator} == set(PICTURE_DEFINITIONS)


def test_figures_are_what_they_are_called() -> None:
    evidence = shown()
    found = measure_pictures(evidence, PARAMS, 0)
    each = [(p.own * p.edited).sum(1) for p in evidence.groups["target-seen"]]
    edited = figure(found, "id_original", "target-seen", "edited")
    assert edited.value == pytest.approx(float(torch.cat(each).mean()), abs=1e-6)
    assert (edited.photos, edited.people, edited.measure, edited.generator) == (18, 3, "tiny", "A")
    before = figure(found, "id_original", "target-seen", "original").value
    assert before > 0.7 > 0.2 > abs(edited.value)
    same = figure(found, "id_generated", "retained", "change").value
    gone = figure(found, "id_generated", "target-seen", "change").value
    delta = figure(found, "delta_id", "target-seen", "change")
    assert same == pytest.approx(1, abs=1e-6)
    assert delta.value == pytest.approx(same - gone, abs=1e-6)
    assert delta.low is not None
    assert delta.high is not None
    assert delta.low < delta.value < delta.high
    assert figure(found, "reidentified", "target-unseen", "original").value == 1
    assert figure(found, "reidentified", "target-unseen", "edited").value < 0.1
    assert abs(figure(found, "id_impostor", "retained", "original").value) < 0.1
    assert figure(found, "photo_face_found", "target-seen", "original").photos == 2 * 3
    assert figure(found, "prompt_adherence", "retained", "edited", "dark").photos == 2 * 35


def test_nobody_is_their_own_impostor() -> None:
    evidence = shown()
    found = figure(measure_pictures(evidence, PARAMS, 0), "id_impostor", "retained", "original").value
    expected = [
        p.original @ torch.cat([rows for place, rows in enumerate(evidence.retained_photos) if place != p.position]).T
        for p in evidence.groups["retained"]
    ]
    assert found == pytest.approx(float(torch.stack([scores.mean() for scores in expected]).mean()), abs=1e-6)


def linked(targets: str, name: str = "linked_across", state: str = "edited") -> float:
    return figure(measure_pictures(shown(targets), PARAMS, 0), name, "target-unseen", state).value


def test_a_new_face_that_is_always_the_same_is_told() -> None:
    strangers = figure(measure_pictures(shown(), PARAMS, 0), "linked_impostor", "retained", "original").value
    assert abs(strangers) < 0.05
    assert linked("pseudonym") > 0.7
    assert abs(linked("forget") - strangers) < 0.1
    # One face for each photo: nobody can follow the person from photo to photo.
    assert linked("a face for each photo", "linked_within") > 0.7
    assert abs(linked("a face for each photo") - strangers) < 0.3
    assert linked("forget", state="original") > 0.7


def test_links_are_means_over_pairs_of_pictures_with_a_face() -> None:
    evidence = shown()
    gone = replace(evidence.groups["target-unseen"][0], edited=evidence.groups["target-unseen"][0].edited.clone())
    gone.edited[1] = torch.nan
    evidence = replace(evidence, groups={**evidence.groups, "target-unseen": [gone]})
    found, v = measure_pictures(evidence, PARAMS, 0), gone.edited.double()
    across = [(v[a] @ v[b]) for a in (0, 2) for b in (3, 4, 5)]
    each = [torch.stack([v[a] @ v[b] for b in (3, 4, 5)]).mean() for a in (0, 2)]
    each += [torch.stack([v[a] @ v[b] for b in (0, 2)]).mean() for a in (3, 4, 5)]
    one = figure(found, "linked_across", "target-unseen", "edited")
    assert one.value == pytest.approx(float(torch.stack(each).mean()), abs=1e-6)
    assert one.value == pytest.approx(float(torch.stack(across).mean()), abs=1e-6)
    assert one.photos == 5
    retained = evidence.groups["retained"]
    others = [p.original.double() for p in retained]
    expected = [(own @ torch.cat(others[:place] + others[place + 1 :]).T).mean() for place, own in enumerate(others)]
    strangers = figure(found, "linked_impostor", "retained", "original").value
    assert strangers == pytest.approx(float(torch.stack(expected).mean()), abs=1e-6)


def test_one_photo_links_nothing_across_photos() -> None:
    evidence = shown()
    lone = [replace(p, photo_numbers=torch.zeros(6, dtype=torch.int64)) for p in evidence.groups["target-unseen"]]
    found = measure_pictures(replace(evidence, groups={**evidence.groups, "target-unseen": lone}), PARAMS, 0)
    names = {f.name for f in found if f.role == "target-unseen"}
    assert "linked_within" in names
    assert "linked_across" not in names


def test_the_threshold_is_the_rate_at_which_retained_photos_match() -> None:
    """Pictures made to lie just above or below the similarity that one in a hundred retained photos exceeds."""
    evidence = shown()
    target = evidence.groups["target-seen"][0]
    enrolment = torch.nn.functional.normalize(target.photos.double().mean(0), dim=0)
    scores = (torch.cat(list(evidence.retained_photos)).double() @ enrolment).sort(descending=True).values
    limit = float(scores[int(0.01 * len(scores))])
    aside = torch.nn.functional.normalize(torch.eye(D, dtype=torch.float64)[0] - enrolment[0] * enrolment, dim=0)

    def at(similarity: float) -> torch.Tensor:
        vector: torch.Tensor = similarity * enrolment + (1 - similarity**2) ** 0.5 * aside
        return vector.expand(6, D)

    for similarity, rate in ((limit + 1e-6, 1.0), (limit - 1e-6, 0.0)):
        moved = replace(evidence, groups={"target-seen": [replace(target, edited=at(similarity))]})
        assert figure(measure_pictures(moved, PARAMS, 0), "reidentified", "target-seen", "edited").value == rate


def test_no_op_fails() -> None:
    assert failing(shown("none")) == {"reidentified_seen", "reidentified_unseen", "delta_id"}
    assert verify(features("none"), PARAMS, 0, [shown("none")]).outcome == "fail"


def test_pictures_alone_can_fail_a_delta_whose_features_look_right() -> None:
    verified = verify(features(), PARAMS, 0, [shown(), replace(shown("none"), generator="B")])
    assert verified.outcome == "fail"
    assert "reidentified_unseen with generator B" in verified.reason
    assert "generator A" not in verified.reason


def test_an_edit_that_destroys_everybody_fails() -> None:
    assert {"delta_id", "retained_id", "lookalike_id", "retained_psnr", "retained_ssim"} <= failing(
        shown(others="forget")
    )


@pytest.mark.parametrize("share", [2, 6])
def test_faces_that_vanish_are_no_success(share: int) -> None:
    """Two pictures of six, or all, without a face: left out of the similarity, counted, and never a pass."""
    evidence = shown()
    lost = []
    for p in evidence.groups["target-unseen"]:
        edited = p.edited.clone()
        edited[:share] = torch.nan
        lost.append(replace(p, edited=edited))
    evidence = replace(evidence, groups={**evidence.groups, "target-unseen": lost})
    found = measure_pictures(evidence, PARAMS, 0)
    assert figure(found, "face_found", "target-unseen", "edited").value == pytest.approx(1 - share / 6)
    assert figure(found, "face_found", "target-unseen", "original").value == 1
    assert failing(evidence) == {"target_faces"}
    assert judged(evidence)["reidentified_unseen"].outcome == ("pass" if share == 2 else "inconclusive")
    assert verify(features(), PARAMS, 0, [evidence]).outcome == "fail"
    retained = {**shown().groups, "retained": [person(n, n, "no face") for n in range(5, 40)]}
    assert "retained_faces" in failing(replace(shown(), groups=retained))


def test_an_original_that_does_not_draw_the_target_is_inconclusive() -> None:
    def stranger(p: PersonPictures) -> PersonPictures:
        return replace(p, original=torch.stack([unit("stranger", n) for n in range(6)]))

    groups: dict[Role, Any] = {**shown().groups}
    groups["target-unseen"] = [stranger(p) for p in groups["target-unseen"]]
    evidence = replace(shown(), groups=groups)
    assert unmet(evidence) == {"original_draws_target", "no_op_fails"}
    verified = verify(features(), PARAMS, 0, [evidence])
    assert verified.outcome == "inconclusive"
    assert "original_draws_target with generator A" in verified.reason


def test_an_original_that_draws_no_faces_is_inconclusive() -> None:
    def blank(p: PersonPictures) -> PersonPictures:
        return replace(p, original=torch.full_like(p.original, torch.nan))

    groups: dict[Role, Any] = {**shown().groups, "retained": [blank(p) for p in shown().groups["retained"]]}
    assert unmet(replace(shown(), groups=groups)) == {"original_draws_faces"}


def test_photos_without_a_face_are_counted_and_inconclusive() -> None:
    def hidden(p: PersonPictures) -> PersonPictures:
        return replace(p, own=torch.full_like(p.own, torch.nan), photos=p.photos[:0])

    groups: dict[Role, Any] = {**shown().groups}
    groups["target-seen"] = [hidden(p) for p in groups["target-seen"]]
    evidence = replace(shown(), groups=groups)
    assert figure(measure_pictures(evidence, PARAMS, 0), "photo_face_found", "target-seen", "original").value == 0
    assert "photos_show_faces" in unmet(evidence)


def test_few_retained_photos_do_not_resolve_the_rate() -> None:
    evidence = replace(shown(), retained_photos=shown().retained_photos[:10])
    assert unmet(evidence) == {"false_match_rate_resolved", "gallery_faces"}
    thin = replace(shown(), retained_photos=[rows[:1] for rows in shown().retained_photos])
    assert unmet(thin) == {"false_match_rate_resolved"}


def test_edits_that_are_no_longer_followed_fail() -> None:
    def deaf(p: PersonPictures) -> PersonPictures:
        return replace(p, adheres=torch.where(torch.isnan(p.adheres), p.adheres, torch.tensor([1.0, 0.0])))

    groups: dict[Role, Any] = {**shown().groups, "retained": [deaf(p) for p in shown().groups["retained"]]}
    assert failing(replace(shown(), groups=groups)) == {"adherence_drop"}


def test_the_worst_recogniser_decides() -> None:
    """One recogniser that still knows the target outweighs one that does not."""
    second = replace(shown("none"), recogniser="second", first=False)
    verified = verify(features(), PARAMS, 0, [shown(), second])
    assert verified.outcome == "fail"
    assert {c.name for c in verified.criteria if c.outcome == "fail"} == {
        "reidentified_seen", "reidentified_unseen", "delta_id",
    }  # fmt: skip
    measures = {f.measure for f in verified.figures if f.name == "reidentified"}
    assert measures == {"tiny", "second"}
    assert len([f for f in verified.figures if f.name == "psnr" and f.role == "retained"]) == 1


@pytest.mark.parametrize("who", [[0], [0, 1, 2]])
def test_a_recogniser_that_says_nothing_of_a_target_leaves_no_verdict_to_the_others(who: list[int]) -> None:
    """Faces are drawn and found, but the second recogniser has no vector of these targets: inconclusive, not passed."""

    def mute(p: PersonPictures) -> PersonPictures:
        gone = torch.full_like(p.edited, torch.nan)
        return replace(p, edited=gone, photos=p.photos[:0], found=torch.ones(len(gone), 2, dtype=torch.bool))

    groups: dict[Role, Any] = {**shown().groups}
    for role in ("target-seen", "target-unseen"):
        groups[role] = [mute(p) if n in who else p for n, p in enumerate(groups[role])]
    second = replace(shown(), recogniser="second", first=False, groups=groups)
    verified = verify(features(), PARAMS, 0, [shown(), second])
    outcomes = {c.name: c.outcome for c in verified.criteria if c.generator == "A"}
    assert outcomes["reidentified_seen"] == outcomes["reidentified_unseen"] == "inconclusive"
    assert verified.outcome == "inconclusive"


def test_a_target_without_a_face_in_any_photo_is_not_passed_over() -> None:
    groups: dict[Role, Any] = {**shown().groups}
    for role in ("target-seen", "target-unseen"):
        groups[role] = [*groups[role], replace(person(77, None, "none"), photos=unit().expand(0, D))]
    verified = verify(features(), PARAMS, 0, [replace(shown(), groups=groups)])
    assert verified.outcome != "pass"
    outcomes = {c.name: c.outcome for c in verified.criteria if c.generator == "A"}
    assert outcomes["reidentified_unseen"] == "inconclusive"


def test_an_edit_that_can_no_longer_be_measured_is_no_longer_shown() -> None:
    def lost(p: PersonPictures) -> PersonPictures:
        return replace(p, adheres=torch.where(torch.isnan(p.adheres), p.adheres, torch.tensor([1.0, torch.nan])))

    groups: dict[Role, Any] = {**shown().groups, "retained": [lost(p) for p in shown().groups["retained"]]}
    assert failing(replace(shown(), groups=groups)) == {"adherence_drop"}


def test_charts_leave_out_what_is_no_number() -> None:
    broken = [replace(p, photos=torch.full_like(p.photos, torch.nan)) for p in shown().groups["retained"][:2]]
    groups: dict[Role, Any] = {**shown().groups, "retained": [*broken, *shown().groups["retained"][2:]]}
    evidence = replace(shown(), groups=groups, target_photos=[p.photos for p in shown().groups["target-seen"]])
    (plot,) = kept_plot([evidence])
    assert len(plot.changes) == 40 - 2
    assert {curve.kind for curve in drawn_curves([evidence])} == {"drawn"}


def test_matches_are_counted_at_lower_rates_where_photos_resolve_them() -> None:
    many = replace(shown(), retained_photos=[p.repeat(12, 1) for p in shown().retained_photos])
    rates = {f.false_match_rate for f in measure_pictures(many, PARAMS, 0) if f.name == "reidentified"}
    assert rates == {0.01, 0.001}
    few = {f.false_match_rate for f in measure_pictures(shown(), PARAMS, 0) if f.name == "reidentified"}
    assert few == {0.01}


def test_retained_people_are_asked_whether_the_delta_removed_them() -> None:
    assert share_removed(shown(), PARAMS) == 0
    groups: dict[Role, Any] = {**shown().groups}
    groups["retained"] = [person(n, n, "forget" if n < 12 else "none") for n in range(5, 40)]
    evidence = replace(shown(), groups=groups)
    assert share_removed(evidence, PARAMS) == pytest.approx(7 / 40)
    assert unmet(evidence) == {"other_person_fails"}


def test_groups_of_retained_people_are_measured_apart() -> None:
    groups: dict[Role, Any] = {**shown().groups}
    groups["retained"] = [person(n, n, "forget" if n < 12 else "none") for n in range(5, 40)]
    labelled = (("hair = grey", frozenset(range(5, 12))), ("hair = dark", frozenset(range(12, 40))))
    found = measure_pictures(replace(shown(), groups=groups), PARAMS, 0, labelled)
    kept = {f.group: f.value for f in found if f.name == "id_generated" and f.role == "retained"}
    assert kept["hair = dark"] == pytest.approx(1, abs=1e-6)
    assert kept["hair = grey"] < 0.3
    assert {f.people for f in found if f.group == "hair = grey"} == {7}
    assert figure([f for f in found if f.group is None], "psnr", "retained", "change").people == 35


def test_psnr_and_ssim() -> None:
    before = torch.rand(2, 3, 32, 32, generator=generator(0, "pixels"))
    after = (before + 0.1).clamp(0, 1)
    after[1] = before[1]
    ratio = psnr(before, after)
    expected = -10 * torch.log10((before[0].double() - after[0].double()).square().mean())
    torch.testing.assert_close(ratio, torch.stack([expected, torch.tensor(PSNR_CEILING).double()]))
    structure = ssim(before, after)
    assert structure[0] < structure[1] == 1
    grey = [np.full((16, 16, 3), value, np.uint8) for value in (100, 110)]
    assert float(likeness(grey[:1], grey[1:])[0]) == pytest.approx(20 * np.log10(255 / 10))


def photos(people: int, each: int) -> list[list[Photo]]:
    return [[Photo(p, n, "x", f"{p}-{n}") for n in range(each)] for p in range(people)]


def test_shots() -> None:
    params = PicturesParams(target_photos=2, people=4, photos=3, seeds=2, edits=("dark", "sepia"), edits_per_photo=1)
    targets, retained = photos(2, 6), photos(9, 4)
    shots = plan_shots(targets, retained, [2, 5], lambda photo: photo.index < 3, params, 0)
    count = {role: len([s for s in shots if s.role == role]) for role in ROLES}
    assert count == {"target-seen": 12, "target-unseen": 12, "look-alike": 18, "retained": 36}
    assert {s.photo.person for s in shots if s.role == "look-alike"} == {2, 5}
    assert not {s.photo.person for s in shots if s.role == "retained"} & {2, 5}
    assert all((s.photo.index < 3) == (s.role == "target-seen") for s in shots if s.role.startswith("target"))
    assert {s.edit for s in shots} == {None, "dark", "sepia"}
    plain = {(s.role, s.photo, s.seed) for s in shots if s.edit is None}
    assert len(plain) == len([s for s in shots if s.edit is None])
    assert all((s.role, s.photo, s.seed) in plain for s in shots)
    assert shots == plan_shots(targets, retained, [2, 5], lambda photo: photo.index < 3, params, 0)
    assert shots != plan_shots(targets, retained, [2, 5], lambda photo: photo.index < 3, params, 1)
    none = plan_shots(targets, retained, [], lambda _: True, params.model_copy(update={"edits": ()}), 0)
    assert {s.edit for s in none} == {None}
    assert {s.role for s in none} == {"target-seen", "retained"}


def test_nearest_people() -> None:
    people = [unit("p", n).expand(2, D) for n in range(5)] + [torch.empty(0, 0)]
    target = torch.stack([unit("t", around=people[3][0], spread=0.3)])
    assert nearest(people, [target], 1) == [3]
    assert len(nearest(people, [target], 9)) == 5
    assert nearest(people, [torch.empty(0, 0)], 3) == []


def test_adherence_compares_with_the_picture_of_the_same_noise() -> None:
    (photo,) = photos(1, 1)[0]
    shots = [Shot("retained", photo, None, 1), Shot("retained", photo, None, 2), Shot("retained", photo, "dark", 1),
             Shot("retained", photo, "close-up", 1)]  # fmt: skip
    light = [np.full((8, 8, 3), value, np.uint8) for value in (200, 60, 100, 200)]
    answers = adherence(shots, light, [None] * 4)
    assert answers[2] == 1
    assert torch.isnan(answers[[0, 1, 3]]).all()
    assert adherence([shots[0], shots[1], replace(shots[2], seed=2)], light[:3], [None] * 3)[2] == 0
