from fractions import Fraction

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.allocator import Problem
from kvbudget.allocator.sharing.winners import winning_bytes


@given(st.integers(0, 2**32), st.integers(0, 24))
def test_on_single_tokens_the_winners_are_the_top_of_all_weights(seed: int, budget: int) -> None:
    weights = -np.sort(-np.random.default_rng(seed).exponential(size=(4, 6)))
    loss = weights.sum(axis=1, keepdims=True) - np.cumsum(np.pad(weights, ((0, 0), (1, 0))), axis=1)
    problem = Problem(np.maximum(loss, 0.0), np.arange(7)[None].repeat(4, axis=0), budget)
    top = np.argsort(-weights.ravel())[:budget] // 6
    won = winning_bytes(problem, [0] * 4, [Fraction(budget)], [0] * 4)
    assert won == np.bincount(top, minlength=4).tolist()


PROBLEM = Problem([[9.0, 1.0, 0.0], [4.0, 2.0, 1.0]], [[0, 2, 4], [0, 2, 4]], 8)


def test_groups_buy_for_themselves_and_the_last_segment_may_be_bought_in_part() -> None:
    halves = [Fraction(5, 2), Fraction(1, 2)]
    assert winning_bytes(PROBLEM, [0, 1], halves, [0, 0]) == [Fraction(5, 2), Fraction(1, 2)]
    assert winning_bytes(PROBLEM, [0, 0], [Fraction(3)], [0, 0]) == [2, 1]


def test_what_a_unit_holds_beforehand_is_not_bought_again() -> None:
    # 2 bytes buy what unit 0 lacks of the best segment; unit 1 holds the next best already
    assert winning_bytes(PROBLEM, [0, 0], [Fraction(5)], [1, 2]) == [3, 2]
    assert winning_bytes(PROBLEM, [0, 0], [Fraction(2)], [1, 2]) == [1, 2]


def test_buying_ends_where_no_loss_is_left() -> None:
    flat = Problem([[3.0, 1.0, 1.0]], [[0, 1, 9]], 9)
    assert winning_bytes(flat, [0], [Fraction(9)], [0]) == [1]
