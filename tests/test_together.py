"""Several pictures in one call are the pictures that are drawn alone, except for last bits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from ireu_cli.drawing.jobs import Job, run_jobs
from ireu_cli.generators.generator import Generator, ToDraw, load_generators
from ireu_cli.generators.side_by_side import draw_each, groups
from ireu_cli.params.steps import RunParams
from ireu_cli.session import Session
from ireu_cli.sharding.executor import Alone
from ireu_cli.store.picture_cache import PictureCache
from tests.test_pipelines import KINDS, bundle, generators  # noqa: F401 - fixtures

PROMPTS = ["a face", "a face, dark", "a face, bright"]


def asked(generator: Generator, number: int) -> ToDraw:
    tokens = () if generator.tap == "image_embeds" else (10,)
    part = generator.pipeline.unet if hasattr(generator.pipeline, "unet") else generator.pipeline.transformer
    layer = part.encoder_hid_proj.image_projection_layers[0]
    width = layer.image_embeds.in_features if generator.tap == "image_embeds" else layer.proj_in.in_features
    rng = torch.Generator().manual_seed(number)
    feature, null = torch.randn(2, *tokens, width, generator=rng)
    return ToDraw(feature, null, PROMPTS[number % 3], 5 + number)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_pictures_of_one_call_are_those_drawn_alone(
    generators: dict[str, Generator],  # noqa: F811
    kind: str,
    guidance: float,
) -> None:
    generator = generators[kind].with_settings(guidance=guidance)
    wanted = [asked(generator, number) for number in range(3)]
    alone = [generator.draw_one(one) for one in wanted]
    together = generator.draw_together(wanted)
    apart = [np.abs(one.astype(int) - other).max() for one in alone for other in alone if one is not other]
    assert min(apart) > 8
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    # Afterwards the pipeline is as it was.
    np.testing.assert_array_equal(generator.draw_one(wanted[0]), alone[0])


@pytest.mark.parametrize("kind", ["sd plus", "flux"])
def test_sketches_of_one_call_give_each_photo_its_own_gradient(
    generators: dict[str, Generator],  # noqa: F811
    kind: str,
) -> None:
    generator = generators[kind]
    wanted = [asked(generator, number) for number in range(3)]

    def slopes(together: int) -> Any:
        features = torch.stack([one.feature for one in wanted]).requires_grad_()
        own = generator.with_settings(together=together)
        drawn = own.sketch(features, wanted[0].null, PROMPTS, [1, 2, 3], 2)
        (found,) = torch.autograd.grad(drawn[1].sum(), features)
        return drawn.detach(), found

    (alone, slope), (together, other) = slopes(1), slopes(2)
    torch.testing.assert_close(together, alone, atol=2e-3, rtol=0)
    torch.testing.assert_close(other, slope, atol=1e-3 * float(slope.abs().max()), rtol=0)
    assert float(slope[1].abs().max()) > 0
    assert not bool(other[[0, 2]].any())


class Counting:
    """A generator that writes down what it draws together; a picture is its seed and the size of its call."""

    def __init__(self, name: str, together: int) -> None:
        self.name, self.together, self.pipeline, self.is_small = name, together, self, False
        self.device, self.calls = torch.device("cpu"), list[list[int]]()

    def draw_together(self, asked: list[ToDraw]) -> list[Any]:
        self.calls.append([one.seed for one in asked])
        return [np.full((4, 4, 3), one.seed, np.uint8) for one in asked]


def of(seed: int) -> Callable[[], ToDraw]:
    return partial(ToDraw, torch.zeros(1), torch.zeros(1), "", seed)


def test_neighbours_of_one_generator_go_together() -> None:
    first, second = (cast(Generator, Counting(name, 3)) for name in "ab")
    by = [first, first, first, first, second, first, second, second]
    found = [(one, call) for one, call in groups([(one, place) for place, one in enumerate(by)])]
    assert found == [(first, [0, 1, 2]), (first, [3]), (second, [4]), (first, [5]), (second, [6, 7])]
    drawn = list(draw_each([(one, of(place)) for place, one in enumerate(by)]))
    assert [int(picture[0, 0, 0]) for picture in drawn] == list(range(8))
    assert cast(Any, first).calls == [[0, 1, 2], [3], [5]]


def session() -> Any:
    from contextlib import contextmanager

    @contextmanager
    def timed(_part: str) -> Any:
        yield

    @contextmanager
    def progress(_label: str, _total: int) -> Any:
        yield lambda _count, _name: None

    talk = SimpleNamespace(note=lambda _text: None, progress=progress)
    return SimpleNamespace(talk=talk, timed=timed, executor=Alone())


def test_a_lost_picture_is_drawn_again_with_the_same_others(tmp_path: Path) -> None:
    cache, generator = PictureCache(tmp_path), Counting("a", 3)
    jobs = [Job(cache, f"{number:064x}", of(number), cast(Generator, generator)) for number in range(7)]
    run_jobs(cast(Session, session()), jobs, "pictures", "drawing")
    assert generator.calls == [[0, 1, 2], [3, 4, 5], [6]]
    for path in tmp_path.rglob("*"):
        if path.is_file() and path.name.startswith(f"{4:064x}"[:60]) and f"{4:064x}" in path.name:
            path.unlink()
    assert cache.get(f"{4:064x}") is None
    generator.calls.clear()
    run_jobs(cast(Session, session()), jobs, "pictures", "drawing")
    assert generator.calls == [[3, 4, 5]]
    assert all(int(cache.need(job.key)[0, 0, 0]) == number for number, job in enumerate(jobs))


def test_calls_stay_apart_whose_neighbour_exists_already(tmp_path: Path) -> None:
    cache, first, second = PictureCache(tmp_path), Counting("a", 3), Counting("b", 3)
    by = [first, second, first, first]
    jobs = [Job(cache, f"{number:064x}", of(number), cast(Generator, one)) for number, one in enumerate(by)]
    cache.put(jobs[1].key, np.full((4, 4, 3), 1, np.uint8))
    run_jobs(cast(Session, session()), jobs, "pictures", "drawing")
    assert first.calls == [[0], [2, 3]]
    assert second.calls == []


def test_how_many_go_together_follows_from_the_device_or_is_told() -> None:
    assert RunParams().pictures_together == 1
    assert RunParams(device="cuda:1").pictures_together == 8
    assert RunParams(device="cuda", picture_batch=3).pictures_together == 3
    assert RunParams(picture_batch=16).pictures_together == 16
    assert RunParams().photos_at_once == 2
    assert RunParams(readers=7).photos_at_once == 7


def test_pictures_of_calls_have_names_of_their_own(portrait: Path) -> None:
    one = load_generators(str(portrait), None, "cpu")[0]
    assert one.bits == [one.fingerprint]
    assert one.with_settings(together=4).bits != one.with_settings(together=5).bits != one.bits
