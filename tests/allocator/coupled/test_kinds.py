import itertools

import numpy as np
import pytest

from kvbudget.allocator import Problem, terms_of
from kvbudget.allocator.constraints import ByteLimit, MostCapacities
from kvbudget.allocator.coupled.columns import relax_stacked
from kvbudget.allocator.coupled.kinds import attempt, choose_kinds, restrict, start_kinds
from kvbudget.allocator.coupled.multipliers import admit
from kvbudget.allocator.coupled.stacked import stack
from kvbudget.allocator.coupling import violation
from kvbudget.allocator.terms import Distinct
from kvbudget.testing import least_loss


def random_problem(seed: int, most: int, units: int = 5) -> Problem:
    rng = np.random.default_rng(seed)
    cost = np.cumsum(rng.integers(1, 50, (units, 4)), axis=1)
    loss = np.sort(rng.exponential(size=(units, 4)), axis=1)[:, ::-1]
    limits = (MostCapacities(most), ByteLimit("60%", layers=(0, 1)))
    return Problem(loss, cost, int(cost[:, 1].sum() + cost[:, 2].sum()) // 2, limits)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("most", [1, 2, 3])
def test_what_it_finds_honours_all_and_is_near_the_best(seed: int, most: int) -> None:
    problem = random_problem(seed, most)
    stacked = stack(problem)
    relaxed = relax_stacked(problem, stacked)
    distinct = terms_of(problem).distinct
    levels = choose_kinds(stacked, relaxed.multipliers, distinct, relaxed.share)
    assert levels is not None
    assert stacked.fits(levels)
    assert violation(problem, levels) == ""
    assert problem.total_loss(levels) <= 1.3 * least_loss(problem)


def test_with_one_kind_it_tries_every_one() -> None:
    problem = random_problem(1, 1)
    stacked = stack(problem)
    multipliers = admit(np.zeros(2), np.ones(1), 1.0)
    top = np.zeros(problem.loss.shape)
    top[:, -1] = 1.0
    levels = choose_kinds(stacked, multipliers, terms_of(problem).distinct, top)
    assert levels is not None
    assert problem.total_loss(levels) == least_loss(problem)


def test_kinds_that_no_unit_has_in_common_leave_nothing() -> None:
    problem = Problem([[1.0, 0.0]] * 2, [[1, 2]] * 2, 4)
    apart = Distinct(np.array([[0, 1], [2, 3]]), 1)
    relaxed = relax_stacked(problem, stack(problem))
    assert choose_kinds(stack(problem), relaxed.multipliers, (apart,), relaxed.share) is None


def test_the_most_used_kinds_come_first() -> None:
    kind = np.array([[0, 1, 2], [0, 2, 3]])
    share = np.array([[0.0, 0.3, 0.7], [0.0, 0.1, 0.9]])
    assert np.flatnonzero(start_kinds(Distinct(kind, 2), share)).tolist() == [2, 3]
    assert start_kinds(Distinct(kind, 9), share).all()


def test_an_attempt_uses_only_what_is_open_and_fits() -> None:
    problem = random_problem(3, 2)
    stacked = stack(problem)
    multipliers = admit(np.zeros(2), np.ones(1), 1.0)
    distinct = terms_of(problem).distinct
    for pair in itertools.combinations(range(4), 2):
        in_use = np.isin(np.arange(4), pair)
        trial = attempt(stacked, multipliers, distinct, [in_use])
        if np.isfinite(trial.loss):
            assert set(trial.levels.tolist()) <= set(pair)
            assert stacked.fits(trial.levels)
            assert trial.loss == pytest.approx(problem.total_loss(trial.levels))
        else:
            assert not stacked.fits(np.full(5, pair[0]))


def test_levels_stand_in_for_others_in_every_array() -> None:
    stacked = stack(random_problem(0, 2))
    stand_in = np.tile([0, 0, 2, 2], (5, 1))
    menu = restrict(stacked, stand_in)
    assert (menu.cost_bytes[:, :, 1] == stacked.cost_bytes[:, :, 0]).all()
    assert (menu.sample_loss[:, :, 3] == stacked.sample_loss[:, :, 2]).all()
    assert menu.most_bytes is stacked.most_bytes
