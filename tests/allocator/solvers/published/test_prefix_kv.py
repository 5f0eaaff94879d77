import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.solvers.published import PrefixKV


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_choice_makes_the_worst_unit_better(data: st.DataObject) -> None:
    units, num_levels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    row = st.lists(st.integers(0, 6), min_size=num_levels, max_size=num_levels)
    cost = np.cumsum([data.draw(row) for _ in range(units)], axis=1)
    loss = 50.0 - np.cumsum([data.draw(row) for _ in range(units)], axis=1)
    budget = data.draw(st.integers(cost[:, 0].sum(), cost[:, -1].sum() + 2))
    problem = Problem(loss, cost, budget)
    removable = loss - loss[:, -1:]
    at = np.arange(units)

    def worst(levels: np.ndarray) -> float:
        return float(removable[at, levels].max())

    every = (np.array(x) for x in itertools.product(range(num_levels), repeat=units))
    best = min(worst(levels) for levels in every if cost[at, levels].sum() <= budget)
    assert worst(PrefixKV().choose(problem).levels) == best


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32), each=st.integers(3, 30))
def test_the_least_mass_that_a_layer_keeps_is_as_large_as_it_can_be(
    seed: int,
    each: int,
    mass: Callable[..., Any],
    on_tokens: Callable[..., Problem],
    kept_tokens: Callable[..., Any],
) -> None:
    loss = mass(seed, layers=3, kv_heads=2, tokens=10)
    lost = loss.sum(axis=1)  # [layers, tokens], when both caches keep as many
    kept = kept_tokens(on_tokens(loss, 2 * each), PrefixKV())
    best = min(
        max(lost[layer, n - 1] for layer, n in enumerate(split))
        for split in itertools.product(range(1, 11), repeat=3)
        if sum(split) == each
    )
    # an even number of tokens suits layers of two caches, so nothing is left for single ones
    assert (kept[:, 0] == kept[:, 1]).all()
    assert max(lost[layer, n - 1] for layer, n in enumerate(kept[:, 0])) == pytest.approx(best)
    assert kept.sum() == 2 * each


def test_the_common_level_is_reached_exactly() -> None:
    # 4 is what all can lose at most with 2, 1 and 1 bytes; less would take more than there are
    loss = [[9.0, 8.0, 4.0, 0.0], [6.0, 4.0, 1.0, 0.0], [8.0, 7.0, 5.0, 3.0]]
    cost = [[0, 1, 2, 9], [0, 1, 5, 9], [0, 1, 2, 3]]
    assert PrefixKV().choose(Problem(loss, cost, 4)).levels.tolist() == [2, 1, 1]
    # two more bytes only suit the last one
    assert PrefixKV().choose(Problem(loss, cost, 6)).levels.tolist() == [2, 1, 3]


def test_loss_that_no_memory_removes_does_not_count() -> None:
    problem = Problem([[109.0, 101.0, 100.0], [9.0, 5.0, 0.0]], [[0, 1, 2]] * 2, 2)
    assert PrefixKV().choose(problem).levels.tolist() == [1, 1]


def test_what_no_layer_can_use_goes_to_single_caches_that_lose_most(
    on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    line = np.arange(8, 0, -1.0) - 1
    problem = on_tokens([[line, line * 3], [line * 2, line * 2]], 9)
    # one token above two each: the cache that loses most gets it
    assert kept_tokens(problem, PrefixKV()).tolist() == [[2, 3], [2, 2]]


def test_a_layer_that_cannot_be_paid_for_does_not_stop_the_others() -> None:
    problem = Problem([[9.0, 0.0], [4.0, 3.0]], [[0, 9], [0, 2]], 5)
    assert PrefixKV().choose(problem).levels.tolist() == [0, 1]


def test_what_a_flat_cache_of_a_layer_saves_goes_to_the_others(
    on_tokens: Callable[..., Problem], kept_tokens: Callable[..., Any]
) -> None:
    flat, line = [3.0, 0.0, 0.0, 0.0, 0.0, 0.0], [10.0, 8.0, 6.0, 4.0, 2.0, 0.0]
    # four tokens each, of which the first cache needs two
    assert kept_tokens(on_tokens([[flat, line]], 8), PrefixKV()).tolist() == [[2, 5]]


def test_of_levels_of_equal_cost_and_loss_the_lowest_is_taken() -> None:
    problem = Problem([[9.0, 3.0, 3.0]], [[2, 2, 2]], 2)
    assert PrefixKV().choose(problem).levels.tolist() == [1]
