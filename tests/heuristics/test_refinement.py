"""Exact points mend an estimate where it matters, and nothing else is touched."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.heuristics.refinement import refined


class Truth:
    """Exact losses that count how often they are asked for."""

    def __init__(self, loss):
        self.loss, self.asked = loss, []

    def __call__(self, cache, level):
        self.asked.append((cache, level))
        return float(self.loss[cache, level])


@st.composite
def curves(draw, caches=5, levels=9):
    """Falling curves that end in 0."""
    seed = draw(st.integers(0, 10_000))
    steps = np.random.default_rng(seed).exponential(size=(caches, levels - 1)) ** 3
    return np.pad(steps[:, ::-1].cumsum(1)[:, ::-1], ((0, 0), (0, 1)))


@given(curves(), curves(), st.integers(0, 80))
def test_no_point_is_asked_for_twice_and_no_more_than_allowed(estimate, loss, runs):
    truth = Truth(loss)
    mended = refined(estimate, truth, runs)
    assert len(truth.asked) == len(set(truth.asked)) <= runs
    for cache, level in truth.asked:
        assert mended[cache, level] == pytest.approx(loss[cache, level])
    assert (mended >= 0).all()
    assert not mended[:, -1].any()


@given(curves(), curves())
def test_with_enough_runs_falling_curves_are_exact(estimate, loss):
    np.testing.assert_allclose(refined(estimate, Truth(loss), 10 * loss.size), loss, atol=1e-12)


@given(curves(), st.integers(0, 40))
def test_a_right_estimate_stays_as_it_is(loss, runs):
    np.testing.assert_allclose(refined(loss, Truth(loss), runs), loss, atol=1e-12)


@given(curves(), st.lists(st.floats(0.01, 100.0), min_size=5, max_size=5))
def test_one_run_a_cache_mends_curves_that_are_only_scaled_wrong(loss, factors):
    scaled = loss * np.array(factors)[:, None]
    np.testing.assert_allclose(refined(scaled, Truth(loss), 10), loss, rtol=1e-9, atol=1e-12)


def test_caches_without_an_exact_point_keep_their_estimate():
    estimate = np.outer([1.0, 9.0, 5.0], [1.0, 0.5, 0.0])
    truth = Truth(estimate * 3)
    mended = refined(estimate, truth, 2)
    assert truth.asked == [(1, 0), (1, 1)]
    assert np.array_equal(mended[[0, 2]], estimate[[0, 2]])
    assert np.array_equal(mended[1], estimate[1] * 3)


def test_the_steepest_interval_is_halved_first():
    loss = np.array([[8.0, 8.0, 8.0, 8.0, 8.0, 8.0, 1.0, 0.5, 0.0]])
    truth = Truth(loss)
    refined(loss[:, ::-1].cumsum(1)[:, ::-1], truth, 8)
    assert truth.asked[:4] == [(0, 0), (0, 4), (0, 6), (0, 5)]


def test_a_flat_estimate_is_filled_with_a_straight_line():
    loss = np.array([[4.0, 3.0, 2.0, 1.0, 0.0]])
    assert refined(np.zeros((1, 5)), Truth(loss), 1).tolist() == loss.tolist()


def test_one_level_needs_no_run():
    truth = Truth(np.zeros((2, 1)))
    assert refined(np.zeros((2, 1)), truth, 9).tolist() == [[0.0], [0.0]]
    assert truth.asked == []
