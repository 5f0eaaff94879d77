from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from kvbudget.allocator import (
    Choice,
    CVaR,
    Problem,
    Risk,
    Solver,
    Status,
    WorstSample,
    hull_bound,
    solve,
)
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.coupled import columns
from kvbudget.allocator.coupled.choose import choose_coupled, relaxed_bound
from kvbudget.allocator.solvers import Uniform
from kvbudget.testing import check_solver

FOUR = (
    ByteLimit("22%", layers=range(0, 64)),
    ByteLimit("40%", layers=range(64, 256)),
    ByteLimit("28%", layers=range(0, 256, 2)),
    ByteLimit("33%", layers=range(1, 256, 2)),
)


@dataclass(frozen=True, slots=True)
class SeveralPrices(Solver):
    """Nothing but this way of choosing."""

    honours: ClassVar[frozenset[type]] = frozenset({ByteLimit, WorstSample, CVaR})

    def choose(self, problem: Problem) -> Choice:
        return choose_coupled(problem)


def model_problem(
    seed: int, risk: Risk | None = None, limits: tuple[ByteLimit, ...] = ()
) -> Problem:
    """256 caches of a model, with curves that bend and prompts that differ."""
    rng = np.random.default_rng(seed)
    kept = np.linspace(0.02, 1, 32)
    size = rng.lognormal(0, 1, (1, 256, 1)) * rng.lognormal(0, 0.7, (8, 256, 1))
    samples = size * (1 - kept) ** 2 / (0.05 + kept) ** rng.uniform(0.3, 3, (1, 256, 1))
    samples = samples * rng.lognormal(0, 0.05, samples.shape)
    samples = np.minimum.accumulate(samples, axis=2)
    cost = np.broadcast_to(np.ceil(kept * 32768).astype(int) * 1024, (256, 32))
    budget = int(0.3 * cost[:, -1].sum())
    if risk is None:
        return Problem(samples.mean(axis=0), cost, budget, limits)
    return Problem(samples.mean(axis=0), cost, budget, limits, sample_loss=samples, risk=risk)


def test_it_passes_what_every_solver_must_hold() -> None:
    assert check_solver(SeveralPrices(), examples=10) is None


@pytest.mark.parametrize(
    ("risk", "limits"),
    [(None, FOUR), (WorstSample(), ()), (CVaR(0.6), ()), (CVaR(0.6), FOUR)],
    ids=str,
)
def test_on_the_caches_of_a_model_the_gap_is_small(
    risk: Risk | None, limits: tuple[ByteLimit, ...]
) -> None:
    problem = model_problem(0, risk, limits)
    solution = solve(problem, SeveralPrices())
    assert solution.status is Status.FEASIBLE
    assert 0 < solution.gap < 0.005
    assert solution.loss < 0.7 * solve(problem, Uniform()).loss


def test_more_limits_never_lower_the_bound() -> None:
    bounds = [choose_coupled(model_problem(1, None, FOUR[:count])).bound for count in range(5)]
    assert bounds == sorted(bounds)


def test_the_bound_of_the_risk_rises_with_its_level() -> None:
    levels = (0.0, 0.5, 0.99)
    bounds = [choose_coupled(model_problem(2, CVaR(level))).bound for level in levels]
    assert bounds == sorted(bounds)


def test_bytes_that_remove_no_loss_are_not_spent() -> None:
    problem = Problem([[2.0, 1.0, 1.0]] * 2, [[0, 1, 2]] * 2, 9, (ByteLimit(8),))
    assert choose_coupled(problem).levels.tolist() == [1, 1]


def test_a_linear_program_without_an_answer_costs_only_the_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = model_problem(1, CVaR(0.5), FOUR[:2])
    answered = solve(problem, SeveralPrices())
    monkeypatch.setattr(columns, "solve_held", lambda *_: None)
    solution = solve(problem, SeveralPrices())
    assert solution.bound <= answered.bound
    assert solution.loss >= answered.bound
    assert relaxed_bound(problem) == hull_bound(problem)
