"""Controls and criteria on the pictures of one generator: of all recognisers, the worst result counts."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ireu_cli.measuring.drawn_evidence import GeneratorEvidence, PersonPictures
from ireu_cli.measuring.galleries import matched
from ireu_cli.measuring.judgement import Sense, control, criterion, false_matches, others_stay
from ireu_cli.params import VerifyParams
from ireu_cli.report import Control, Criterion, Figure, Role, State
from ireu_cli.verifying.pictures.picture_figures import measure_pictures

_TARGETS: tuple[Role, ...] = ("target-seen", "target-unseen")
_ROLES: tuple[Role, ...] = (*_TARGETS, "look-alike", "retained")

_CRITERIA: tuple[tuple[str, tuple[str, tuple[Role, ...], State], Sense, str, str], ...] = (
    ("reidentified_seen", ("reidentified", ("target-seen",), "edited"), "at most", "max_reidentified_seen",
     "share of pictures from photos used in unlearning that the recogniser still matches"),
    ("reidentified_unseen", ("reidentified", ("target-unseen",), "edited"), "at most", "max_reidentified_unseen",
     "share of pictures from other target photos that the recogniser still matches"),
    ("delta_id", ("delta_id", _TARGETS, "change"), "at least", "min_delta_id",
     "similarity of pictures before and after: retained people minus targets"),
    ("retained_id", ("id_generated", ("retained",), "change"), "at least", "min_retained_id",
     "recogniser similarity of retained pictures, before against after"),
    ("lookalike_id", ("id_generated", ("look-alike",), "change"), "at least", "min_lookalike_id",
     "the same for the retained people nearest to a target"),
    ("retained_psnr", ("psnr", ("retained",), "change"), "at least", "min_retained_psnr",
     "PSNR in dB of retained pictures, before against after"),
    ("retained_ssim", ("ssim", ("retained",), "change"), "at least", "min_retained_ssim",
     "SSIM of retained pictures, before against after"),
    ("target_faces", ("face_found", _TARGETS, "edited"), "at least", "min_faces",
     "share of pictures drawn from target photos that still show a face"),
    ("retained_faces", ("face_found", ("look-alike", "retained"), "edited"), "at least", "min_faces",
     "the same for retained people"),
)  # fmt: skip
"""Name, figure (name, roles of which the worst counts, state), sense, key of the limit, meaning."""


@dataclass(frozen=True)
class Judged:
    """What the pictures of one generator show."""

    figures: tuple[Figure, ...]
    controls: tuple[Control, ...]
    criteria: tuple[Criterion, ...]


def judge_drawn(
    drawn: Sequence[GeneratorEvidence],
    params: VerifyParams,
    seed: int,
    labelled: Sequence[tuple[str, frozenset[int]]] = (),
) -> Iterator[Judged]:
    """Measure the pictures of each generator, check its controls and compare its figures with the limits.

    Args:
        drawn: pictures before and after, by generator and recogniser.
        params: limits, fixed before the run.
        seed: decides the bootstrap.
        labelled: groups of retained people by their positions.
    """
    for name in dict.fromkeys(one.generator for one in drawn):
        siblings = [one for one in drawn if one.generator == name]
        found = tuple(f for one in siblings for f in measure_pictures(one, params, seed, labelled))
        controls, criteria = picture_controls(siblings, found, params), picture_criteria(siblings, found, params)
        yield Judged(found, controls, criteria)


def picture_controls(
    evidences: Sequence[GeneratorEvidence], figures: Sequence[Figure], params: VerifyParams
) -> tuple[Control, ...]:
    """Say whether the pictures are enough for a conclusion.

    Args:
        evidences: pictures of one generator, once for each recogniser.
        figures: the figures of `measure_pictures` on them.
        params: the limits.
    """
    first = evidences[0]
    before = _values(figures, "reidentified", _TARGETS, "original", params)
    shown = _values(figures, "photo_face_found", _ROLES, "original", params)
    faces = _values(figures, "face_found", _ROLES, "original", params)
    photos = sum(len(rows) for rows in first.retained_photos)
    people = sum(bool(len(rows)) for rows in first.retained_photos)
    remaining = max(params.max_reidentified_seen, params.max_reidentified_unseen)
    demands: tuple[tuple[str, float | None, float, str], ...] = (
        ("photos_show_faces", min(shown, default=None), params.min_faces,
         "share of the photos behind the pictures that show a face"),
        ("original_draws_faces", min(faces, default=None), params.min_faces,
         "share of pictures with a face, drawn with the original encoder"),
        ("original_draws_target", min(before, default=None), params.min_original_reidentified,
         "share of pictures of the targets that the recogniser matches, drawn with the original encoder"),
        ("gallery_faces", people, params.min_gallery_people, "retained people in whose photos a face is found"),
        ("false_match_rate_resolved", false_matches(photos, people, params), params.min_impostors_per_error,
         "expected false matches among retained photos with a face"),
    )  # fmt: skip
    controls = [control(*demand, generator=first.generator) for demand in demands]
    no_op = Control(
        name="no_op_fails",
        generator=first.generator,
        met=bool(before) and min(before) > remaining,
        found=min(before, default=None),
        needed=remaining,
        meaning="share of matched pictures with a delta that changes nothing, which must exceed the limits on matches",
    )
    return (*controls, no_op, others_stay([share_removed(e, params) for e in evidences], params, first.generator))


def share_removed(evidence: GeneratorEvidence, params: VerifyParams) -> float | None:
    """Share of retained people whom the criteria for targets would call removed if they were the target.

    For a retained person, the delta is that of another person. Only people whom the original encoder shows are counted
    (the control `original_draws_target` does the same for targets); None without any.
    """
    people = [p for role in ("look-alike", "retained") for p in evidence.groups.get(role, ())]
    kept = [_kept_likeness(person) for person in people]
    known = [value for value in kept if value == value]
    if not known:
        return None
    average = sum(known) / len(known)
    verdicts = []
    for person, likeness in zip(people, kept, strict=True):
        enrolment = evidence.enrolment(person, params.false_match_rate)
        before, after = (matched(vectors, enrolment).nanmean() for vectors in (person.original, person.edited))
        if float(before) >= params.min_original_reidentified:
            gone = float(after) <= params.max_reidentified_unseen and average - likeness >= params.min_delta_id
            verdicts.append(float(gone))
    return sum(verdicts) / len(verdicts) if verdicts else None


def picture_criteria(
    evidences: Sequence[GeneratorEvidence], figures: Sequence[Figure], params: VerifyParams
) -> tuple[Criterion, ...]:
    """Compare the figures of the pictures with the limits; inconclusive if a recogniser has no result for a person.

    Args:
        evidences: pictures of one generator, once for each recogniser.
        figures: the figures of `measure_pictures` for all recognisers.
        params: the limits.
    """
    criteria = []
    generator = evidences[0].generator
    for name, (figure, roles, state), sense, key, meaning in _CRITERIA:
        found = _values(figures, figure, roles, state, params)
        if not _complete(evidences, figures, figure, roles, state, params):
            criteria.append(criterion(name, None, sense, getattr(params, key), meaning, evidences[0].generator))
            continue
        # If there are no other photos of the targets, a control says so, unless the user has waived it.
        if found or name != "reidentified_unseen" or params.require_unseen:
            worst = None if not found else max(found) if sense == "at most" else min(found)
            threshold = getattr(params, key)
            criteria.append(criterion(name, worst, sense, threshold, meaning, generator))
    edits = {
        state: _values(figures, "prompt_adherence", ("retained",), state, params) for state in ("original", "edited")
    }
    if edits["original"]:
        drop = edits["original"][0] - edits["edited"][0] if edits["edited"] else None
        meaning = "share of retained pictures that no longer show the edit in their prompt"
        criteria.append(criterion("adherence_drop", drop, "at most", params.max_adherence_drop, meaning, generator))
    return tuple(criteria)


def _complete(
    evidences: Sequence[GeneratorEvidence],
    figures: Sequence[Figure],
    name: str,
    roles: Sequence[Role],
    state: str,
    params: VerifyParams,
) -> bool:
    """Whether each recogniser has a result for every target that was drawn with a face, in a figure that needs one.

    A recogniser without a result for a target must not leave the verdict to the others.
    """
    if name not in {"reidentified", "id_generated"}:
        return True
    column = 0 if state == "original" else 1
    for evidence in evidences:
        for role in roles:
            people = [p for p in evidence.groups.get(role, ()) if bool(p.faces[:, column].any())]
            counted = [
                f.people
                for f in figures
                if (f.name, f.role, f.state, f.measure) == (name, role, state, evidence.recogniser)
                and f.group is None
                and f.false_match_rate in {None, params.false_match_rate}
            ]
            if role in _TARGETS and people and (not counted or counted[0] < len(people)):
                return False
    return True


def _kept_likeness(person: PersonPictures) -> float:
    return float((person.original * person.edited).sum(1).nanmean())


def _values(
    figures: Sequence[Figure], name: str, roles: Sequence[Role], state: str, params: VerifyParams
) -> list[float]:
    """The values of every recogniser, for whole groups, without attacks, at the configured false-match rate."""
    return [
        figure.value
        for role in roles
        for figure in figures
        if (figure.name, figure.role, figure.state, figure.edit) == (name, role, state, None)
        and figure.group is None
        and figure.attack is None
        and figure.false_match_rate in {None, params.false_match_rate}
    ]
