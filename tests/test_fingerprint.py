"""What identifies weights: values count, and neither their dtype nor the file that they lie in."""

import numpy as np
import pytest
import torch

from ireu_cli.encoders.files.fingerprint import fingerprint_by, fingerprint_from, fingerprint_of, print_of, prints_by

DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def state(seed: int = 0) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(3, 5, generator=draw), "b": torch.randn(5, generator=draw)}


@pytest.mark.parametrize("held", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_dtype_does_not_count(held: torch.dtype, dtype: torch.dtype) -> None:
    """Values that some dtype holds, in any dtype that holds them; the last ones are the smallest of their kind."""
    values = torch.cat([torch.randn(20_000, generator=torch.Generator().manual_seed(1)), torch.tensor([0.0, -1.0])])
    tiny = torch.tensor([torch.finfo(held).tiny * 3], dtype=torch.float64)
    short = torch.cat([values.double(), tiny]).to(held)
    wide = short.to(dtype)
    if not torch.equal(wide.double(), short.double()):
        pytest.skip("not held by the other dtype")
    assert print_of(wide) == print_of(short)


@pytest.mark.parametrize("dtype", DTYPES[:3])
@pytest.mark.parametrize("place", [0, 4095, 4096, 9999])
def test_every_value_counts(dtype: torch.dtype, place: int) -> None:
    before = torch.randn(10_000, generator=torch.Generator().manual_seed(1)).to(dtype)
    after = before.clone()
    after[place] = torch.nextafter(after[place].float(), torch.tensor(9.0)) if dtype == torch.float32 else 3.0
    assert print_of(before).digest != print_of(after).digest


def test_shapes_and_names_count() -> None:
    plain = state()
    assert print_of(plain["a"]).digest != print_of(plain["a"].reshape(5, 3)).digest
    assert print_of(torch.zeros(0, 3)).digest != print_of(torch.zeros(3, 0)).digest
    assert fingerprint_of(plain) != fingerprint_of({"a": plain["a"], "c": plain["b"]})
    assert fingerprint_of(plain) != fingerprint_of({"a": plain["a"]})
    assert fingerprint_of(plain) == fingerprint_of(dict(reversed(plain.items())))
    laid_out = {"a": plain["a"].T.contiguous().T, "b": plain["b"]}
    assert fingerprint_of(plain) == fingerprint_by(plain, laid_out.__getitem__)
    turned = {"a": plain["a"].T.contiguous(), "b": plain["b"]}
    assert fingerprint_of(turned) != fingerprint_of(plain)


def test_what_changes_alone_is_read_again() -> None:
    plain, other = state(), state(1)
    prints = prints_by(plain, plain.__getitem__)
    assert fingerprint_from(prints | {"b": print_of(other["b"])}) == fingerprint_of(plain | {"b": other["b"]})


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_seen(dtype: torch.dtype, value: float) -> None:
    values = torch.ones(9000, dtype=dtype)
    assert print_of(values).is_finite
    values[8000] = value
    assert not print_of(values).is_finite


def test_a_sum_that_overflows_is_no_value_that_does() -> None:
    assert print_of(torch.full((10,), 3e38)).is_finite
    assert print_of(torch.full((100,), 60_000.0, dtype=torch.float16)).is_finite


def test_whole_numbers_and_scalars_have_prints() -> None:
    assert print_of(torch.arange(5)) == print_of(torch.arange(5).float())
    assert print_of(torch.tensor(2.5)).digest != print_of(torch.tensor([2.5])).digest


def test_values_behind_short_ones_count_in_full() -> None:
    before = torch.ones(10_000)
    after = before.clone()
    after[9999] = torch.nextafter(torch.tensor(1.0), torch.tensor(2.0))
    assert print_of(before).digest != print_of(after).digest
