import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.knapsack import frontier as frontiers
from kvbudget.allocator.knapsack.core import Core, reduce_to_core
from kvbudget.allocator.knapsack.frontier import (
    NEVER,
    Candidates,
    Frontier,
    complete,
    extend,
    pareto,
    trim,
)
from kvbudget.allocator.relaxation import relax

FAR = 10**9
"""A limit that no choice of a small core reaches."""


def small_core(seed: int, units: int = 4) -> Core:
    """A core that holds all levels, because the plan that is known is very bad."""
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 9, (units, 4)), axis=1)
    loss = np.cumsum(rng.integers(1, 9, (units, 4))[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
    problem = Problem(loss, cost, int(cost[:, 0].sum() + (cost[:, -1] - cost[:, 0]).sum() // 2))
    return reduce_to_core(problem, relax(problem), 1e6)


def choices(core: Core, groups: list[int]) -> list[tuple[int, int]]:
    """Bytes and loss of every choice of rows for some groups."""
    rows = [range(core.first[group], core.first[group + 1]) for group in groups]
    return [
        (int(core.cost_bytes[list(pick)].sum()), int(core.loss[list(pick)].sum()))
        for pick in itertools.product(*rows)
    ]


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_completion_is_below_every_choice_of_the_open_groups(seed: int) -> None:
    core = small_core(seed)
    inside = np.zeros(core.num_groups, dtype=bool)
    inside[0] = True
    completion = complete(core, inside)
    for cost, loss in choices(core, list(range(1, core.num_groups))):
        assert completion.floor(np.array([cost]))[0] <= loss
    assert completion.floor(completion.cost_bytes[:1] - 1)[0] == NEVER
    # at a corner it is what the choice there loses
    assert completion.floor(completion.cost_bytes).tolist() == completion.loss.tolist()


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_a_frontier_holds_all_choices_that_nothing_beats(seed: int) -> None:
    core = small_core(seed)
    frontier = Frontier.empty(core)
    for group in (0, 1):
        frontier = extend(core, frontier, group, FAR, 10**6).frontier
    found = list(zip(frontier.cost_bytes.tolist(), frontier.loss.tolist(), strict=True))
    everything = choices(core, [0, 1])
    low = core.hulls.low_bytes[2:].sum()
    unbeaten = {
        (cost, loss)
        for cost, loss in everything
        if cost + low <= core.left
        and not any(c <= cost and v <= loss and (c, v) != (cost, loss) for c, v in everything)
    }
    assert found == sorted(unbeaten)
    for place, (cost, loss) in enumerate(found):
        rows = frontier.trail.rows(place)
        assert int(core.cost_bytes[rows].sum()) == cost
        assert int(core.loss[rows].sum()) == loss


def test_small_chunks_give_the_same_frontier(monkeypatch: pytest.MonkeyPatch) -> None:
    core = small_core(3, units=6)
    whole = grow(core)
    monkeypatch.setattr(frontiers, "CHUNK", 3)
    parts = grow(core)
    assert parts.cost_bytes.tolist() == whole.cost_bytes.tolist()
    assert parts.loss.tolist() == whole.loss.tolist()


def grow(core: Core) -> Frontier:
    frontier = Frontier.empty(core)
    for group in range(core.num_groups - 1):
        frontier = extend(core, frontier, group, FAR, 10**6).frontier
    return frontier


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_dropped_is_not_below_the_stated_floor(seed: int) -> None:
    core = small_core(seed)
    best = min(
        loss for cost, loss in choices(core, list(range(core.num_groups))) if cost <= core.left
    )
    frontier, dropped = Frontier.empty(core), NEVER
    for group in range(core.num_groups):
        extension = extend(core, frontier, group, FAR, 2)
        frontier, dropped = extension.frontier, min(dropped, extension.dropped)
        assert len(frontier) <= 2
    left = frontier.loss.min(initial=NEVER)
    assert min(left, dropped) <= best


def some(cost: list[int], loss: list[int], floor: list[int]) -> Candidates:
    place = np.arange(len(cost))
    return Candidates(np.array(cost), np.array(loss), np.array(floor), place, place)


def test_of_equal_bytes_only_the_least_loss_is_kept() -> None:
    kept = pareto(some([3, -1, 3, -1, 5], [2, 9, 1, 7, 1], [0] * 5))
    assert kept.cost_bytes.tolist() == [-1, 3]
    assert kept.loss.tolist() == [7, 1]
    assert kept.row.tolist() == [3, 2]


def test_trimming_keeps_the_lowest_floors_and_says_what_it_dropped() -> None:
    core = small_core(0)
    kept, dropped = trim(core, some([0, 1, 2, 3], [9, 8, 7, 6], [5, 1, 4, 1]), 2)
    assert kept.cost_bytes.tolist() == [1, 3]
    assert dropped == 4
    kept, dropped = trim(core, some([0, 1], [9, 8], [5, 1]), 2)
    assert (len(kept.loss), dropped) == (2, NEVER)
