"""What each attack hands to the encoder, and who is attacked."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ireu_cli.attacks.choosing import choose_attacks
from ireu_cli.attacks.plan import AVERAGE, AttackPlan, Victim, attacked_features, by_person
from ireu_cli.faces.align import template_points
from ireu_cli.measuring.judgement import others_stay
from ireu_cli.params import ARCFACE_LANDMARKS, Config
from ireu_cli.session import Session
from ireu_cli.values import Pair, Photo

PEOPLE = [[Photo(p, n, "x", f"{p}-{n}") for n in range(6)] for p in range(3)]
ENCODERS = Pair(SimpleNamespace(gives_gradients=True), SimpleNamespace(gives_gradients=True))
OTHERS = [Photo(9, n, "x", f"9-{n}") for n in range(4)]


class Rows:
    """A lens that gives the photo's number as its feature."""

    def features(self, photos: Any) -> torch.Tensor:
        return torch.tensor([[float(10 * photo.person + photo.index)] for photo in photos])


class Reader:
    """Gives every photo as a picture of one shape."""

    name = "as drawn"

    def __init__(self, height: int = 300, width: int = 240) -> None:
        self.picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)

    def image(self, _photo: Photo) -> Any:
        return self.picture

    def face(self, _photo: Photo) -> Any:
        return SimpleNamespace(image=self.picture, points=template_points(ARCFACE_LANDMARKS, self.picture))


class Told:
    """A terminal that remembers."""

    verbose = False

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Key:
    """A run folder whose keyed digest is the digest."""

    def keyed_digest(self, sha256: str) -> str:
        return sha256


def session(**attacks: Any) -> Any:
    config = Config().model_copy(update={"attacks": Config().attacks.model_copy(update=attacks)})
    fields = {"__init__": lambda self: None, "config": config, "run": Key(), "talk": Told()}
    return type("Fake", (Session,), fields)()


def planned(reader: Reader | None = None, **attacks: Any) -> AttackPlan:
    class Delta:
        targets = tuple(type("P", (), {"photos": tuple(f"{p}-{n}" for n in (0, 1, 2))}) for p in range(3))

    run = session(**attacks)
    found = choose_attacks(run, Delta(), ENCODERS, PEOPLE, OTHERS, reader or Reader())  # type: ignore[arg-type]
    assert found is not None
    return found


def test_unseen_photos_are_attacked_first_and_partners_are_who_they_should_be() -> None:
    plan = planned(people=2, photos=4, drawn=2)
    assert [(v.person, v.photo.index) for v in plan.victims] == [(p, n) for p in (0, 1) for n in (3, 4, 5, 0)]
    assert [(v.person, v.photo.index) for v in plan.drawn] == [(p, n) for p in (0, 1) for n in (3, 4)]
    for victim in plan.victims:
        assert victim.same != victim.photo
        assert victim.same.person == victim.photo.person == victim.person
        assert victim.other.person == 9


def test_nothing_is_planned_without_attacks_or_others() -> None:
    wanted = session(suite=("none",))
    assert choose_attacks(wanted, None, ENCODERS, PEOPLE, OTHERS, None) is None  # type: ignore[arg-type]
    assert choose_attacks(session(), None, ENCODERS, PEOPLE, [], None) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("height", "width", "idle"),
    [(300, 240, set()), (240, 240, {"squash"}), (160, 160, {"squash", "unsmoothed"}), (150, 160, {"unsmoothed"})],
)
def test_front_ends_that_change_nothing_are_not_tried(height: int, width: int, idle: set[str]) -> None:
    """An attack that is the photo as it is would be one that always fails."""
    plan = planned(Reader(height, width), people=1, photos=2)
    fronts = {"squash", "aligned", "unsmoothed"}
    assert plan.names & fronts == fronts - idle
    notes = [note for note in plan.session.talk.notes if "not tried" in note]  # type: ignore[attr-defined]
    assert len(notes) == bool(idle)
    assert all(name in note for note in notes for name in idle)


def test_features_are_averaged_over_the_person() -> None:
    plan = planned(people=2, photos=1, drawn=1)
    victim = plan.victims[1]
    plain = attacked_features(plan, Rows(), victim=victim, attack="none")  # type: ignore[arg-type]
    assert plain.tolist() == [[13.0]]
    averaged = attacked_features(plan, Rows(), victim=victim, attack=AVERAGE)  # type: ignore[arg-type]
    torch.testing.assert_close(averaged, torch.tensor([[sum((13, 14, 15, 10, 11)) / 5]]))


def test_values_are_joined_by_person() -> None:
    victims = [Victim(p, PEOPLE[p][n], PEOPLE[p][0], OTHERS[0]) for p, n in ((0, 1), (2, 1), (0, 2))]
    found = by_person(victims, [torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([3.0])])
    assert {person: values.tolist() for person, values in found.items()} == {0: [1.0, 3.0], 2: [2.0]}


def test_the_measure_that_tells_people_apart_worst_decides_the_control() -> None:
    params = Config().verify
    assert others_stay([0.0, None, 0.5], params).found == 0.5
    assert not others_stay([0.0, None, 0.5], params).met
    assert others_stay([0.0, 0.04], params).met
    assert not others_stay([None], params).met
