import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import CVaR, Problem, hull_bound
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.coupled.multipliers import admit, prove_bound, reduced_loss
from kvbudget.allocator.coupled.stacked import Stacked, stack
from kvbudget.allocator.relaxation import lagrangian_bound


def random_stack(seed: int, risk: float = 0.5) -> tuple[Problem, Stacked]:
    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 20, (4, 3, 3)).astype(float)
    loss = np.minimum.accumulate(samples.mean(axis=0), axis=1)
    cost = np.cumsum(rng.integers(0, 9, (3, 3)), axis=1)
    limit = ByteLimit(int(cost[:2, 1].sum()) + 1, layers=(0, 1))
    budget = int(cost[:, 1].sum()) + 2
    problem = Problem(loss, cost, budget, (limit,), sample_loss=samples, risk=CVaR(risk))
    return problem, stack(problem)


def least_risk(problem: Problem, stacked: Stacked) -> float:
    choices = [np.array(each) for each in itertools.product(range(3), repeat=3)]
    return min(problem.total_loss(each) for each in choices if stacked.fits(each))


prices = st.lists(st.floats(-1, 5), min_size=2, max_size=2).map(np.array)
weights = st.lists(st.floats(-1, 2), min_size=4, max_size=4).map(np.array)


@given(st.integers(0, 999), st.sampled_from([0.0, 0.3, 0.5, 0.9]), prices, weights)
def test_any_prices_and_weights_prove_a_bound(
    seed: int, risk: float, price: np.ndarray, weight: np.ndarray
) -> None:
    problem, stacked = random_stack(seed, risk)
    multipliers = admit(price, weight, stacked.tail_samples)
    optimum = least_risk(problem, stacked)
    for start in ([0, 0, 0], [2, 1, 0]):
        assert prove_bound(stacked, multipliers, np.array(start)) <= optimum + 1e-9


@given(weights, st.floats(1, 4))
def test_admitted_weights_are_those_of_a_tail(weight: np.ndarray, tail_samples: float) -> None:
    admitted = admit(np.array([-1.0, 2.0]), weight, tail_samples)
    assert admitted.price.tolist() == [0.0, 2.0]
    assert admitted.weight.sum() == pytest.approx(1.0, rel=1e-14)
    assert (admitted.weight >= 0).all()
    assert (admitted.weight <= (1 + 1e-14) / tail_samples).all()


def test_weights_that_need_no_mending_stay() -> None:
    assert admit(np.zeros(1), np.array([0.5, 0.25, 0.25]), 2.0).weight.tolist() == [0.5, 0.25, 0.25]


@given(st.integers(0, 999), st.floats(0, 9))
def test_one_price_proves_what_it_proves_for_the_plain_problem(seed: int, price: float) -> None:
    whole, _ = random_stack(seed)
    plain = Problem(whole.loss, whole.cost_bytes, whole.budget_bytes)
    multipliers = admit(np.array([price]), np.ones(1), 1.0)
    levels = np.zeros(3, dtype=np.int64)
    bound = prove_bound(stack(plain), multipliers, levels)
    assert max(bound, plain.loss[:, -1].sum()) == pytest.approx(
        lagrangian_bound(plain, price, levels), rel=1e-9
    )
    assert bound <= hull_bound(plain) + 1e-9


def test_huge_bytes_cost_the_bound_no_precision() -> None:
    most = 2**61
    problem = Problem([[9.0, 0.0], [8.0, 0.0]], [[0, most], [1, most]], 2 * most - 1)
    stacked = stack(problem)
    multipliers = admit(np.array([8 / most]), np.ones(1), 1.0)
    for levels in ([1, 0], [0, 1], [1, 1], [0, 0]):
        assert prove_bound(stacked, multipliers, np.array(levels)) == pytest.approx(0.0, abs=1e-10)


def test_reduced_losses_are_worked_by_hand() -> None:
    problem = Problem([[9.0, 4.0, 1.0]], [[1, 3, 9]], 9, (ByteLimit(5, layers=(0,)),))
    multipliers = admit(np.array([0.5, 0.25]), np.ones(1), 1.0)
    reduced = reduced_loss(stack(problem), multipliers, np.array([1]))
    assert reduced.tolist() == [[5 - 1.5, 0.0, -3 + 4.5]]
