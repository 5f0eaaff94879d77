"""The examples are many kinds of trouble, and always the same."""

import numpy as np
import pytest

from kvbudget.allocator import CVaR, Problem, WorstSample
from kvbudget.allocator.constraints import ByteLimit, Custom, MostCapacities
from kvbudget.allocator.solve import not_honoured
from kvbudget.allocator.solvers import Exact
from kvbudget.testing import Example, solver_examples
from kvbudget.testing.examples import larger_problem, random_problem

RANDOM = [random_problem(seed) for seed in range(40)]


def test_the_same_seed_gives_the_same_problem() -> None:
    assert [random_problem(seed) for seed in range(40)] == RANDOM
    assert RANDOM[0] != RANDOM[1]


def test_names_differ_and_random_problems_come_on_top() -> None:
    names = [example.name for example in solver_examples(7)]
    assert len(set(names)) == len(names) == len(solver_examples(0)) + 7


@pytest.mark.parametrize(
    "claim",
    [
        lambda p: p.loss.shape[1] == 1,
        lambda p: p.loss.shape == (1, 1),
        lambda p: np.isinf(p.loss).any(),
        lambda p: p.loss.min() < 0,
        lambda p: p.cost_bytes.max() > 2**56,
        lambda p: p.budget_bytes == p.floor_bytes - 1,
        lambda p: p.floor_bytes < p.budget_bytes == p.ceiling_bytes,
        lambda p: p.budget_bytes > p.ceiling_bytes,
        lambda p: (np.diff(p.cost_bytes) == 0).any(),
        lambda p: not p.cost_bytes[:, 0].all(),
        lambda p: len(np.unique(p.loss)) < p.loss.size / 2,
        lambda p: (np.diff(np.diff(np.nan_to_num(p.loss))) < 0).any(),
    ],
    ids=[
        *("one level", "one unit and level", "infinite", "below zero", "huge", "below the floor"),
        *("everything", "more", "equal costs", "no cost", "ties", "not convex"),
    ],
)
def test_forty_random_problems_have_every_trouble(claim) -> None:
    assert 0 < sum(bool(claim(problem)) for problem in RANDOM) < 40


@pytest.mark.parametrize("kind", [ByteLimit, MostCapacities, Custom, WorstSample, CVaR])
def test_everything_that_a_solver_may_honour_comes_up_alone_feasible(kind: type) -> None:
    alone = [x for x in solver_examples(0) if not_honoured(x.problem, Exact()) == [kind.__name__]]
    assert any(example.least_loss < np.inf for example in alone)


@pytest.mark.parametrize("kind", [ByteLimit, Custom])
def test_a_limit_that_cannot_hold_comes_up(kind: type) -> None:
    alone = [x for x in solver_examples(0) if not_honoured(x.problem, Exact()) == [kind.__name__]]
    assert any(example.least_loss == np.inf for example in alone)


def test_what_an_example_prints_can_be_typed_in() -> None:
    example = Example("mine", Problem([[np.inf, 1.0]], [[0, 7]], 9))
    assert str(example) == "mine: Problem([[inf, 1.0]], [[0, 7]], 9)"
    assert eval(str(example).split(": ")[1], {"Problem": Problem, "inf": np.inf}) == example.problem


def test_a_large_example_prints_its_size() -> None:
    assert str(Example("large", larger_problem())) == "large: 60 units with 12 levels"


def test_a_constraint_is_printed() -> None:
    (example,) = [x for x in solver_examples(0) if x.name == "one capacity"]
    assert str(example).endswith("14, MostCapacities(count=1))")
