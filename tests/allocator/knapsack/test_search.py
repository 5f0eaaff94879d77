import itertools
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.knapsack.core import Core, reduce_to_core
from kvbudget.allocator.knapsack.search import NARROW, search
from kvbudget.allocator.relaxation import relax, used_bytes

MANY = 10**9


def core_of(seed: int, units: int = 4, most: int = 9) -> tuple[Problem, Core]:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, most, (units, 4)), axis=1)
    loss = np.cumsum(rng.integers(1, most, (units, 4))[:, ::-1], axis=1)[:, ::-1]
    budget = int(cost[:, 0].sum() + (cost[:, -1] - cost[:, 0]).sum() // 2)
    problem = Problem(loss.astype(np.float64), cost, budget)
    return problem, reduce_to_core(problem, relax(problem), 1e6)


def optimum(core: Core) -> int:
    groups = [range(a, b) for a, b in itertools.pairwise(core.first.tolist())]
    picks = (list(pick) for pick in itertools.product(*groups))
    return min(
        int(core.loss[pick].sum()) for pick in picks if core.cost_bytes[pick].sum() <= core.left
    )


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_it_finds_and_proves_the_best_rows(seed: int) -> None:
    problem, core = core_of(seed)
    found = search(core, 10**6, 0, 10**6, MANY, patient=True)
    best = optimum(core)
    assert found.best == found.proven == best
    assert found.complete
    assert int(core.loss[found.rows].sum()) == best
    assert used_bytes(problem, core.levels(relax(problem).levels, found.rows)) <= (
        problem.budget_bytes
    )


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_knowing_the_optimum_it_finds_nothing_but_proves_it(seed: int) -> None:
    _, core = core_of(seed)
    best = optimum(core)
    found = search(core, best, 0, 10**6, MANY, patient=True)
    assert len(found.rows) == 0
    assert found.best == found.proven == best
    assert found.complete


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 5))
def test_with_little_room_it_claims_no_more_than_is_true(seed: int, width: int) -> None:
    _, core = core_of(seed, units=6)
    found = search(core, 10**6, 0, width, MANY, patient=True)
    best = optimum(core)
    assert found.proven <= best <= found.best
    assert found.complete == (found.proven == found.best)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 20))
def test_a_tolerance_is_the_most_that_it_misses(seed: int, tolerance: int) -> None:
    _, core = core_of(seed)
    best = optimum(core)
    found = search(core, 10**6, tolerance, 10**6, MANY, patient=True)
    assert best <= found.best <= best + tolerance
    assert found.best - tolerance <= found.proven <= best


def many_ties() -> Core:
    """Loss all but proportional to bytes in very many units."""
    rng = np.random.default_rng(1)
    cost = np.cumsum(rng.integers(1, 1000, (150, 30)), axis=1)
    loss = cost[:, -1:] - cost + 10.0 * np.arange(30)[::-1]
    budget = int(cost[:, 0].sum() + 0.6 * (cost[:, -1] - cost[:, 0]).sum())
    problem = Problem(loss, cost, budget)
    return reduce_to_core(problem, relax(problem), math.inf)


def test_impatient_it_gives_up_what_it_cannot_prove() -> None:
    core = many_ties()
    patient = search(core, 10**6, 0, 64, MANY, patient=True)
    hasty = search(core, patient.best, 0, 64, MANY, patient=False)
    assert patient.proven > -(10**6)
    assert hasty.examined < patient.examined
    assert hasty.proven < core.bound
    assert not hasty.complete


def test_when_the_states_are_used_up_the_sides_become_narrow() -> None:
    core = many_ties()
    narrow = search(core, 10**6, 0, 10**6, 1, patient=True)
    least = search(core, 10**6, 0, NARROW, MANY, patient=True)
    assert narrow.examined == least.examined
    assert narrow.proven <= narrow.best
