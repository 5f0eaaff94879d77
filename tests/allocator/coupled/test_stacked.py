import numpy as np
import pytest

from kvbudget.allocator import CVaR, Problem
from kvbudget.allocator.constraints import ByteLimit
from kvbudget.allocator.coupled.stacked import stack

LOSS, COST = np.array([[9.0, 5.0, 1.0]] * 3), np.array([[1, 2, 4]] * 3)


def test_the_budget_is_the_first_limit() -> None:
    stacked = stack(Problem(LOSS, COST, 9, (ByteLimit(4, layers=(0, 2)), ByteLimit(3, layers=[1]))))
    assert stacked.most_bytes.tolist() == [9, 4, 3]
    assert (stacked.cost_bytes[0] == COST).all()
    assert stacked.cost_bytes[1].tolist() == [[1, 2, 4], [0, 0, 0], [1, 2, 4]]
    assert stacked.spare_bytes(np.array([2, 1, 0])).tolist() == [2, -1, 1]
    assert not stacked.fits(np.array([2, 1, 0]))
    assert stacked.fits(np.array([1, 1, 1]))


def test_a_limit_beyond_all_there_is_does_not_overflow() -> None:
    stacked = stack(Problem(LOSS, COST * 2**58, 2**62, (ByteLimit(2**99),)))
    assert stacked.most_bytes.tolist() == [2**58 * 12, 2**58 * 12]


def test_the_mean_is_the_risk_of_one_sample() -> None:
    samples = np.stack((LOSS, LOSS + 3))
    problem = Problem(LOSS, COST, 9, sample_loss=samples)
    stacked = stack(problem)
    assert stacked.sample_loss.shape == (1, 3, 3)
    levels = np.array([0, 1, 2])
    assert stacked.risk(stacked.totals(levels)) == problem.total_loss(levels) == 15.0


def test_a_risk_has_every_sample() -> None:
    samples = np.stack((LOSS, LOSS + 3, LOSS / 2))
    problem = Problem(samples.mean(axis=0), COST, 9, sample_loss=samples, risk=CVaR(0.5))
    stacked = stack(problem)
    levels = np.array([0, 1, 2])
    assert stacked.tail_samples == 1.5
    assert stacked.totals(levels).tolist() == [15.0, 24.0, 7.5]
    assert stacked.risk(stacked.totals(levels)) == pytest.approx(problem.total_loss(levels))


def test_what_fits_alone_is_what_fits_with_all_others_lowest() -> None:
    stacked = stack(Problem(LOSS, COST, 5, (ByteLimit(2, layers=(0, 1)),)))
    assert stacked.fits_alone().tolist() == [[True, False, False]] * 2 + [[True, True, False]]
