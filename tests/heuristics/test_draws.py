"""Numbers drawn by hashing."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from kvbudget.heuristics import LayerView
from kvbudget.heuristics.draws import columns_before, gumbel, oldest_column, uniform

MakeView = Callable[..., LayerView]
MANY = torch.arange(400)


def test_numbers_are_uniform_and_never_0_or_1() -> None:
    numbers = uniform(3, 1, MANY.view(-1, 1), MANY).flatten()
    assert numbers.dtype == torch.float32
    assert 0 < numbers.min() < 1e-4
    assert 1 - 1e-4 < numbers.max() < 1
    share = numbers.histc(16, 0, 1) / len(numbers)
    # standard error 0.0006
    torch.testing.assert_close(share, torch.full((16,), 1 / 16), atol=0.003, rtol=0)


@pytest.mark.parametrize("axis", [0, 1])
def test_neighbours_are_not_alike(axis: int) -> None:
    numbers = uniform(0, 0, MANY.view(-1, 1), MANY).double() - 0.5
    pairs = (numbers * numbers.roll(1, dims=axis)).mean() * 12  # correlation
    assert abs(pairs.item()) < 0.01  # standard error 0.0025


def test_a_number_depends_on_every_argument_and_on_nothing_else() -> None:
    here, there = torch.tensor(5), torch.tensor(9)
    one = uniform(0, 0, here, there)
    assert uniform(0, 0, here, there) == one
    others = [
        uniform(1, 0, here, there),
        uniform(0, 1, here, there),
        uniform(0, 0, here + 1, there),
        uniform(0, 0, here, there + 1),
        uniform(0, 0, there, here),
        uniform(1, 0, here - 1, there),
    ]
    assert len({one.item(), *(other.item() for other in others)}) == 7
    table = uniform(0, 0, MANY.view(-1, 1), MANY)
    assert table[5, 9] == one


def test_no_generator_is_advanced() -> None:
    torch.manual_seed(4)
    before = torch.get_rng_state()
    uniform(0, 0, MANY)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("seed", [-1, 0, 2**40 + 3])
def test_any_whole_number_is_a_seed(seed: int) -> None:
    numbers = uniform(seed, 0, MANY)
    assert ((numbers > 0) & (numbers < 1)).all()


def test_gumbel_numbers_have_the_distribution_function_of_gumbel() -> None:
    numbers = gumbel(0, 0, MANY.view(-1, 1), MANY).flatten()
    assert numbers.isfinite().all()
    for bound in (-1.0, 0.0, 1.0, 3.0):
        share = (numbers <= bound).float().mean().item()
        assert share == pytest.approx(math.exp(-math.exp(-bound)), abs=0.006)


def test_columns_are_counted_from_the_oldest_held_token(make_view: MakeView) -> None:
    view = make_view(padding=(0, 5))
    assert oldest_column(view).squeeze(-1).tolist() == [[0, 0], [5, 5]]
    assert columns_before(view)[1, 0, 5:].tolist() == list(range(7))
    later = replace(view, positions=view.positions + 100)
    assert torch.equal(columns_before(later), columns_before(view))
