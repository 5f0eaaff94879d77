import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.knapsack.core import (
    Core,
    count_losses,
    hull_steps,
    lowest_bit,
    order_units,
    reduce_to_core,
)
from kvbudget.allocator.relaxation import relax, used_bytes
from kvbudget.allocator.rounding import fill


def random_problem(seed: int, units: int = 40, levels: int = 12) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 300, (units, levels)) * 8, axis=1)
    loss = np.sort(rng.exponential(size=(units, levels)), axis=1)[:, ::-1]
    return Problem(loss, cost, int(cost[:, 0].sum() + 0.4 * (cost[:, -1] - cost[:, 0]).sum()))


def core_of(problem: Problem) -> Core:
    relaxed = relax(problem)
    levels = fill(problem, relaxed.levels)
    return reduce_to_core(problem, relaxed, total(problem, levels))


def total(problem: Problem, levels: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
    return math.fsum(problem.loss[np.arange(len(levels)), levels].tolist())


@settings(deadline=None)
@given(st.integers(0, 2**32), st.data())
def test_rows_add_up_to_the_bytes_and_losses_of_their_plan(seed: int, data: st.DataObject) -> None:
    problem = random_problem(seed)
    relaxed, core = relax(problem), core_of(problem)
    ends = zip(core.first[:-1], core.first[1:] - 1, strict=True)
    rows = np.array([data.draw(st.integers(int(a), int(b))) for a, b in ends], dtype=np.int64)
    levels = core.levels(relaxed.levels, rows)
    step = np.gcd.reduce(problem.cost_bytes - problem.cost_bytes[:, :1], axis=None)
    extra = used_bytes(problem, levels) - used_bytes(problem, relaxed.levels)
    assert step >= 8
    assert extra % step == 0
    lost = int(core.loss[rows].sum()) * core.quantum
    allowed = (core.error + 1) * core.quantum + 1e-12
    assert abs(total(problem, levels) - total(problem, relaxed.levels) - lost) <= allowed
    fits = int(core.cost_bytes[rows].sum()) <= core.left
    assert fits == (used_bytes(problem, levels) <= problem.budget_bytes)
    assert (core.slack[rows].sum() - core.price * core.left) >= core.bound


@settings(deadline=None)
@given(st.integers(0, 2**32))
def test_within_a_group_bytes_rise_and_losses_fall(seed: int) -> None:
    core = core_of(random_problem(seed))
    for group in range(core.num_groups):
        rows = slice(core.first[group], core.first[group + 1])
        assert (np.diff(core.cost_bytes[rows]) > 0).all()
        assert (np.diff(core.loss[rows]) < 0).all()
        assert ((core.cost_bytes[rows] == 0) & (core.loss[rows] == 0)).sum() == 1
        assert (core.rows.group[rows] == group).all()


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32))
def test_the_core_still_holds_a_best_plan(seed: int) -> None:
    problem = random_problem(seed, units=6, levels=4)
    relaxed = relax(problem)
    plans = np.array(list(itertools.product(range(4), repeat=6)))
    cost = problem.cost_bytes[np.arange(6), plans].sum(axis=1)
    loss = problem.loss[np.arange(6), plans].sum(axis=1)
    optimum = loss[cost <= problem.budget_bytes].min()
    # a poor plan leaves room for several moves at once
    core = reduce_to_core(problem, relaxed, total(problem, relaxed.levels) + 1e-9)
    groups = [range(a, b) for a, b in itertools.pairwise(core.first.tolist())]
    picks = np.array(list(itertools.product(*groups)), dtype=np.int64)
    fits = core.cost_bytes[picks].sum(axis=1) <= core.left
    best = picks[fits][core.loss[picks[fits]].sum(axis=1).argmin()]
    assert total(problem, core.levels(relaxed.levels, best)) == pytest.approx(optimum, rel=1e-12)


def test_the_least_slack_of_a_group_leaves_out_its_base() -> None:
    core = core_of(random_problem(1))
    for group, least in enumerate(core.least_slack()):
        rows = range(core.first[group], core.first[group + 1])
        moved = [row for row in rows if core.cost_bytes[row] != 0]
        assert least == core.slack[moved].min()


def test_most_levels_of_a_random_problem_are_out() -> None:
    problem = random_problem(3, units=300)
    assert len(core_of(problem).loss) < problem.loss.size / 10


def test_a_level_beyond_the_whole_budget_is_out() -> None:
    # the hull's next corner costs more than everything that may be spent
    problem = Problem([[5.0, 0.0], [3.0, 2.0]], [[0, 100], [0, 1]], 2)
    core = core_of(problem)
    assert core.num_groups == 0


@pytest.mark.parametrize("scale", [1.0, 3.0, 2.0**-40, 2.0**40])
def test_whole_multiples_of_a_power_of_two_are_counted_without_error(scale: float) -> None:
    loss, base = np.array([7.0, 3.0, -4.0]) * scale, np.array([3.0, 3.0, 0.0]) * scale
    quanta, quantum, error = count_losses(loss, base, np.array([0, 2]))
    assert error == 0.0
    assert (quanta * quantum).tolist() == (loss - base).tolist()


def test_other_losses_are_counted_within_the_stated_error() -> None:
    rng = np.random.default_rng(0)
    loss, base = rng.exponential(size=50), rng.exponential(size=50) * 1e-9
    quanta, quantum, error = count_losses(loss, base, np.arange(50))
    assert 0 < error * quantum < 1e-12
    assert abs(math.fsum(quanta * quantum) - math.fsum(loss - base)) <= error * quantum
    assert np.abs(quanta).sum() < 2**61


def test_the_lowest_bit_is_the_largest_common_power_of_two() -> None:
    assert lowest_bit(np.array([0.75, 2.0, 0.0])) == -2
    assert lowest_bit(np.array([-24.0])) == 3
    assert lowest_bit(np.array([5e-324])) == -1074
    assert lowest_bit(np.zeros(2)) == 1023


def test_units_of_about_equal_slack_take_turns_going_up_and_down() -> None:
    out = np.inf
    slack = np.array([[0.0, out], [0.0, out], [out, 0.0], [out, 0.0], [out, out]])
    base = np.array([1, 1, 0, 0, 0])
    assert order_units(base, slack, 1.0).tolist() == [0, 2, 1, 3]


def test_hulls_start_at_their_first_corner_and_are_sorted_by_worth() -> None:
    group = np.array([0, 0, 0, 1, 1, 1])
    cost, loss = np.array([-2, 0, 1, 0, 1, 4]), np.array([10, 0, -9, 0, -1, -40])
    hulls = hull_steps(group, cost, loss, np.array([3, 3]))
    assert hulls.low_bytes.tolist() == [-2, 0]
    assert hulls.low_loss.tolist() == [10, 0]
    # of the first group the middle row is no corner, of the second neither
    assert hulls.group.tolist() == [1, 0]
    assert hulls.cost_bytes.tolist() == [4, 3]
    assert hulls.gain.tolist() == [40, 19]
    assert (hulls.worth >= np.array([10.0, 19 / 3])).all()
