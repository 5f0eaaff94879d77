"""A plan says what its own capacities were measured to lose, also where curves rise."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from kvbudget.allocator import (
    CVaR,
    Plan,
    Problem,
    Profile,
    Solver,
    Status,
    allocate,
    search_plans,
    solve,
)
from kvbudget.allocator.constraints import EqualInLayer, MostCapacities, MostTokens
from kvbudget.allocator.measured import measured_loss
from kvbudget.allocator.solvers import (
    Exact,
    Hull,
    LinearProgram,
    MixedInteger,
    OptunaSearch,
    Uniform,
)

RISING = np.array([[[5.0, 1.0, 9.0, 0.0], [5.0, 4.0, 1.0, 0.0]]] * 3)


@pytest.fixture
def rising(make_profile: Callable[..., Profile]) -> Profile:
    return make_profile(loss=RISING, sample_loss=RISING[None])


def least_tied_loss(profile: Profile, budget_bytes: int) -> float:
    """Least measured loss with equal capacities inside each layer, by trying all."""
    tokens = profile.geometry.capacity_tokens(profile.kept_fraction, 100)
    per_token = profile.geometry.bytes_per_token
    losses = []
    for levels in itertools.product(range(4), repeat=3):
        at = np.arange(3), slice(None), np.array(levels)
        if tokens[at].sum() * per_token <= budget_bytes:
            losses.append(float(profile.loss[at].sum()))
    return min(losses)


@pytest.mark.parametrize("solver", [Exact(), MixedInteger(), Hull(), LinearProgram()], ids=repr)
@pytest.mark.parametrize("budget", ["20%", "45%", "70%", "100%"])
def test_tied_caches_get_the_best_measured_plan(
    rising: Profile, solver: Solver, budget: str
) -> None:
    tied = (EqualInLayer(),)
    problem = Problem.from_profile(rising, budget=budget, context_tokens=100, constraints=tied)
    solution = solve(problem, solver)
    best = least_tied_loss(rising, problem.budget_bytes)
    at = np.unravel_index(np.arange(6), (3, 2))
    assert solution.loss == pytest.approx(RISING[(*at, solution.levels)].sum())
    assert solution.bound <= best + 1e-9
    assert solution.loss >= best - 1e-9
    if solution.status is Status.OPTIMAL:
        assert solution.loss == pytest.approx(best)
    if isinstance(solver, Exact):
        assert solution.status is Status.OPTIMAL


def test_the_loss_of_equal_shares_is_that_of_their_capacities(rising: Profile) -> None:
    plan = allocate(rising, budget="55%", context_tokens=100, solver=Uniform())
    assert plan.capacity_tokens.tolist() == [[50, 50], [16, 16], [50, 50]]
    assert plan.loss == 9 + 1 + 9 + 1 + 9 + 1
    of_samples = allocate(
        rising, budget="55%", context_tokens=100, solver=Uniform(), risk=CVaR(0.0)
    )
    assert of_samples.loss == pytest.approx(plan.loss)


def test_few_capacities_are_never_called_optimal_on_a_repaired_curve(rising: Profile) -> None:
    plan = allocate(
        rising,
        budget="55%",
        context_tokens=100,
        constraints=(MostCapacities(2), MostTokens(50)),
        solver=MixedInteger(),
    )
    levels = np.searchsorted([10, 25, 50], plan.capacity_tokens)
    taken = np.take_along_axis(RISING, levels[..., None], axis=2)
    windowed = plan.capacity_tokens == 16
    assert plan.loss >= taken[~windowed[..., None]].sum() - 1e-9


def test_losses_that_were_changed_afterwards_count_as_they_are(rising: Profile) -> None:
    problem = Problem.from_profile(rising, budget="50%", context_tokens=100)
    assert np.array_equal(measured_loss(problem), RISING.reshape(6, 4))
    changed = replace(problem, loss=problem.loss / 2)
    assert measured_loss(changed) is changed.loss
    plain = Problem(problem.loss, problem.cost_bytes, problem.budget_bytes)
    assert measured_loss(plain) is plain.loss


def test_a_search_judges_tied_caches_by_what_was_measured(rising: Profile) -> None:
    seen = []

    def objective(plan: Plan) -> float:
        levels = np.searchsorted([10, 25, 50, 100], plan.capacity_tokens[[0, 2]])
        seen.append((plan.loss, levels))
        return float(plan.capacity_tokens.sum())

    problem = Problem.from_profile(
        rising, budget="70%", context_tokens=100, constraints=(EqualInLayer(),)
    )
    search_plans(problem, OptunaSearch(objective=objective, trials=8))
    for loss, levels in seen:
        full_layers = np.take_along_axis(RISING[[0, 2]], levels[..., None], axis=2).sum()
        assert loss >= full_layers - 1e-9
