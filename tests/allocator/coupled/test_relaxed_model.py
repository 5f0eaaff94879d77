from typing import Any

import cvxpy as cp
import numpy as np
import pytest

from kvbudget.allocator import Problem, Status, hull_bound
from kvbudget.allocator.constraints import Custom, MostCapacities
from kvbudget.allocator.coupled import relaxed_model
from kvbudget.allocator.coupled.relaxed_model import choose_relaxed, neighbours
from kvbudget.testing import least_loss


def asked(*constraints: Any, budget: int = 14) -> Problem:
    loss = [[9.0, 5.0, 2.0, 0.0], [8.0, 6.0, 1.0, 0.0], [7.0, 3.0, 2.0, 1.0], [9.0, 2.0, 1.0, 0.0]]
    return Problem(
        loss, [[1, 3, 4, 8], [1, 2, 6, 7], [2, 3, 4, 5], [0, 3, 5, 9]], budget, constraints
    )


def choose(problem: Problem) -> Any:
    return choose_relaxed(problem, tolerance=1e-9, seconds=9.0)


def test_a_custom_constraint_lifts_the_bound() -> None:
    problem = asked(Custom(lambda share: [cp.sum(share[:, 0]) >= 2]))
    choice = choose(problem)
    assert hull_bound(problem) + 0.1 < choice.bound <= least_loss(problem)


def test_a_number_of_capacities_lifts_the_bound() -> None:
    problem = asked(MostCapacities(1))
    choice = choose(problem)
    assert hull_bound(problem) + 0.1 < choice.bound <= least_loss(problem)


def test_levels_near_the_mix_are_tried_before_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    choose_whole = relaxed_model.choose_whole

    def watch(problem: Problem, *, seconds: float, among: Any = None) -> Any:
        seen.append(among)
        return choose_whole(problem, seconds=seconds, among=among)

    monkeypatch.setattr(relaxed_model, "choose_whole", watch)
    monkeypatch.setattr(relaxed_model, "known_plan", lambda *_: None)
    choice = choose(asked(Custom(lambda share: [share[0, 1] == 1])))
    assert choice.levels[0] == 1
    assert len(seen) == 1
    monkeypatch.setattr(relaxed_model, "neighbours", lambda _: np.eye(4, dtype=bool)[[0, 0, 0, 0]])
    seen.clear()
    choice = choose(asked(Custom(lambda share: [share[0, 1] == 1])))
    assert choice.levels[0] == 1
    assert len(seen) == 2
    assert seen[1] is None


def test_what_even_mixed_levels_cannot_meet_is_infeasible() -> None:
    problem = asked(Custom(lambda share: [cp.sum(share[:, 3]) >= 4]))
    assert choose(problem).status is Status.INFEASIBLE


def test_neighbours_are_beside_what_is_in_use() -> None:
    in_use = np.zeros((2, 7), dtype=bool)
    in_use[0, 3] = in_use[1, 1] = in_use[1, 5] = True
    near = neighbours(in_use)
    assert np.flatnonzero(near[0]).tolist() == [0, 2, 3, 4, 6]
    assert np.flatnonzero(near[1]).tolist() == [0, 1, 2, 4, 5, 6]
    assert in_use.sum() == 3
