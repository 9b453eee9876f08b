"""Pictures that are drawn at the same time are those that are drawn one after the other, bit by bit."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from ireu_cli.generators import generator as generators_module
from ireu_cli.generators.generator import Generator, ToDraw, load_generators
from ireu_cli.generators.side_by_side import Asked, at_once, draw_each, drawers


@pytest.fixture(scope="module")
def generators(portrait: Path) -> tuple[Generator, ...]:
    return load_generators(str(portrait), None, "cpu")[:2]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def asked(generator: Generator, number: int) -> ToDraw:
    projection = generator.pipeline.unet.encoder_hid_proj.image_projection_layers[0]
    width = projection.image_embeds.in_features if generator.tap == "image_embeds" else projection.proj_in.in_features
    shape = (width,) if generator.tap == "image_embeds" else (10, width)
    rng = torch.Generator().manual_seed(number)
    return ToDraw(torch.randn(shape, generator=rng), torch.zeros(shape), "a face", number)


def asked_for(generators: tuple[Generator, ...], threads: list[threading.Thread]) -> list[Asked]:
    """Pictures by turns of both generators, some with other settings."""
    made: list[Asked] = []
    for number in range(12):
        one = generators[number % 2]
        driven = one if number < 4 else one.with_settings(guidance=3.0) if number < 8 else one.with_settings(scale=0.3)

        def ask(number: int = number, one: Generator = one) -> ToDraw:
            threads.append(threading.current_thread())
            return asked(one, number)

        made.append((driven, ask))
    return made


def test_bits_and_order_do_not_depend_on_how_many_draw(generators: tuple[Generator, ...]) -> None:
    threads: list[threading.Thread] = []
    made = asked_for(generators, threads)
    torch.set_num_threads(1)
    alone = list(draw_each(made))
    torch.set_num_threads(2)
    together = list(draw_each(made))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len({picture.tobytes() for picture in alone}) == len(made)
    # What a picture is drawn from is computed in one place: hooks and caches know no other thread.
    assert set(threads) == {threading.main_thread()}
    assert torch.get_num_threads() == 2
    scales = [one.pipeline.unet.attn_processors for one in generators]
    assert {part.scale[0] for parts in scales for part in parts.values() if hasattr(part, "scale")} <= {0.3, 1.0}


def test_a_picture_alone_has_the_bits_that_it_has_among_others(generators: tuple[Generator, ...]) -> None:
    asked = asked_for(generators, [])
    together = list(draw_each(asked))
    elsewhere = cast(Generator, Meeting(threading.Barrier(1), 2))
    elsewhere.device = torch.device("cuda")  # type: ignore[attr-defined]
    for one, picture in zip(asked, together, strict=True):
        np.testing.assert_array_equal(next(draw_each([one])), picture)
    # Beside a picture that needs all cores, it is drawn as alone.
    mixed = list(draw_each([*asked[:3], (elsewhere, partial(asked_of, 0))]))
    for drawn, picture in zip(mixed[:3], together[:3], strict=True):
        np.testing.assert_array_equal(drawn, picture)
    assert torch.get_num_threads() == 2


class Meeting:
    """A generator that only draws if another thread draws at the same time, each without help of a second core."""

    def __init__(self, barrier: threading.Barrier, threads: int = 1) -> None:
        self.threads = threads
        self.barrier, self.guidance, self.scale, self.pipeline = barrier, 1.0, 1.0, self
        self.device, self.is_small, self.together = torch.device("cpu"), True, 1

    def copy(self) -> "Meeting":
        return Meeting(self.barrier)

    def with_settings(self, *, guidance: float, scale: float) -> "Meeting":
        assert (guidance, scale) == (1.0, 1.0)
        return self

    def draw_one(self, asked: ToDraw) -> Any:
        assert torch.get_num_threads() == self.threads
        self.barrier.wait(20)
        return asked.seed

    def draw_together(self, asked: list[ToDraw]) -> list[Any]:
        return [self.draw_one(one) for one in asked]


def test_pictures_are_drawn_at_the_same_time() -> None:
    one = cast(Generator, Meeting(threading.Barrier(2)))
    asked = [(one, partial(asked_of, seed)) for seed in range(4)]
    assert [cast(Any, picture) for picture in draw_each(asked)] == [0, 1, 2, 3]


def asked_of(seed: int) -> ToDraw:
    return ToDraw(torch.zeros(1), torch.zeros(1), "", seed)


def test_who_stops_does_not_wait() -> None:
    """An error is told at once; threads are those from before."""
    started, over, ended = threading.Event(), threading.Event(), threading.Event()

    class Slow(Meeting):
        def copy(self) -> "Slow":
            return self

        def draw_one(self, asked: ToDraw) -> Any:
            started.set()
            over.wait(30)
            ended.set()
            return asked.seed

    def stopped() -> None:
        with drawers(2) as threads:
            threads.submit(cast(Generator, Slow(threading.Barrier(1))), asked_of(0))
            assert started.wait(20)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        stopped()
    assert not ended.is_set()
    over.set()
    assert torch.get_num_threads() == 2


def test_small_generators_on_a_processor_share_its_cores(
    generators: tuple[Generator, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asked_for(generators, [])
    elsewhere = cast(Generator, Meeting(threading.Barrier(1)))
    elsewhere.device = torch.device("cuda")  # type: ignore[attr-defined]
    assert at_once(asked) == 2
    assert at_once(asked[:1]) == 1
    assert at_once([]) == 0
    assert at_once([*asked, (elsewhere, partial(asked_of, 0))]) == 1
    # Where several go together in one call, that call has all cores.
    assert at_once([*asked, (generators[0].with_settings(together=2), partial(asked_of, 0))]) == 1
    torch.set_num_threads(1)
    assert at_once(asked) == 1
    torch.set_num_threads(2)
    monkeypatch.setattr(generators_module, "_SMALL", 10)
    assert at_once(asked) == 1


def test_a_copy_shares_weights_and_nothing_else(generators: tuple[Generator, ...]) -> None:
    first = generators[0]
    other = first.copy()
    assert replace(other, pipeline=first.pipeline) == first
    for name in ("unet", "vae", "text_encoder"):
        one, two = getattr(first.pipeline, name), getattr(other.pipeline, name)
        assert one is not two
        pairs = zip(one.state_dict().values(), two.state_dict().values(), strict=True)
        assert all(mine.data_ptr() == theirs.data_ptr() for mine, theirs in pairs)
    for name in ("tokenizer", "scheduler"):
        assert getattr(first.pipeline, name) is not getattr(other.pipeline, name)
