"""Trying every plan, against sums by hand."""

import itertools
import math

import numpy as np
import pytest

from kvbudget.allocator import CVaR, Problem, Risk, WorstSample
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import (
    ByteLimit,
    Custom,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    Protected,
)
from kvbudget.testing import least_loss
from kvbudget.testing.coupled import from_profile

LOSS = [[4.0, 1.0, 0.0], [9.0, 5.0, 0.0]]
COST = [[1, 2, 6], [1, 3, 5]]


@pytest.mark.parametrize(
    ("budget", "least"),
    [(1, math.inf), (2, 13.0), (3, 10.0), (4, 9.0), (5, 6.0), (6, 4.0), (7, 1.0), (11, 0.0)],
)
def test_the_least_loss_of_two_units(budget: int, least: float) -> None:
    assert least_loss(Problem(LOSS, COST, budget)) == least


@pytest.mark.parametrize(
    ("constraint", "least"),
    [
        (ByteLimit(3, layers=(1,)), 6.0),
        (ByteLimit(1, layers=(1,)), 9.0),
        (MostCapacities(1), 6.0),
        (Custom(lambda share: [share[0, 0] >= 1]), 4.0),
        (Custom(lambda share: [share[0, 0] >= 2]), math.inf),
    ],
)
def test_constraints_rule_plans_out(constraint: Constraint, least: float) -> None:
    assert least_loss(Problem(LOSS, COST, 7, constraints=(constraint,))) == least


def test_an_infinite_loss_is_no_plan() -> None:
    assert least_loss(Problem([[math.inf, 2.0]], [[1, 3]], 2)) == math.inf
    assert least_loss(Problem([[math.inf, 2.0]], [[1, 3]], 3)) == 2.0


@pytest.mark.parametrize(
    ("risk", "least"), [(CVaR(0.0), 2.5), (CVaR(0.25), 3.0), (CVaR(0.5), 3.0), (WorstSample(), 3.0)]
)
def test_risk_is_what_is_minimised(risk: Risk, least: float) -> None:
    # the second unit is worth more on average, the first one where most is lost
    samples = np.array([[[5.0, 0.0], [3.0, 0.0]], [[0.0, 0.0], [3.0, 0.0]]])
    problem = Problem(samples.mean(axis=0), [[0, 1]] * 2, 1, sample_loss=samples, risk=risk)
    assert least_loss(problem) == pytest.approx(least)


@pytest.mark.parametrize(
    ("constraint", "allows"),
    [
        (EqualInLayer(), lambda tokens: tokens[0] == tokens[1] and tokens[2] == tokens[3]),
        (EqualInLayer(layers=(1,)), lambda tokens: tokens[2] == tokens[3]),
        (LeastTokens(8), lambda tokens: min(tokens) >= 8),
        (Protected(layers=(1,)), lambda tokens: tokens[2:] == [16, 16]),
    ],
)
def test_limits_on_tokens_rule_plans_out(constraint: Constraint, allows) -> None:
    problem = from_profile("50%", constraint)
    capacity = problem.origin.capacity_tokens
    found = math.inf
    for levels in itertools.product(range(3), repeat=4):
        tokens = [int(capacity[unit, level]) for unit, level in enumerate(levels)]
        if allows(tokens) and sum(tokens) * 32 <= problem.budget_bytes:
            found = min(found, sum(problem.loss[unit, level] for unit, level in enumerate(levels)))
    assert least_loss(problem) == pytest.approx(found)
    assert least_loss(from_profile("50%")) < found < math.inf
