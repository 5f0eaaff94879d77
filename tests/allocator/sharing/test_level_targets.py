from fractions import Fraction

import numpy as np

from kvbudget.allocator import Problem
from kvbudget.allocator.sharing.level_targets import highest_within, round_to_levels


def test_the_unit_nearest_to_its_next_level_gets_the_leftover() -> None:
    problem = Problem([[9.0, 0.0], [9.0, 0.0]], [[0, 100], [0, 10]], 100)
    assert round_to_levels(problem, [Fraction(91), Fraction(9)]).tolist() == [1, 0]
    assert round_to_levels(problem, [Fraction(89), Fraction(9)]).tolist() == [0, 1]
    assert round_to_levels(problem, [Fraction(90), Fraction(9)]).tolist() == [1, 0]


def test_a_leftover_buys_one_level_at_most() -> None:
    problem = Problem([[9.0, 6.0, 3.0, 0.0]], [[0, 4, 5, 6]], 9)
    assert round_to_levels(problem, [Fraction(3)]).tolist() == [1]


def test_a_free_level_that_loses_less_is_taken() -> None:
    problem = Problem([[9.0, 6.0, 3.0]], [[2, 2, 4]], 3)
    assert round_to_levels(problem, [Fraction(2)]).tolist() == [1]


def test_of_levels_that_lose_the_same_the_lowest_is_taken() -> None:
    problem = Problem([[9.0, 3.0, 3.0]], [[0, 1, 2]], 2)
    assert round_to_levels(problem, [Fraction(2)]).tolist() == [1]


def test_what_a_flat_stretch_saves_is_spent_on_others() -> None:
    flat, steep = [9.0, 3.0, 3.0, 3.0], [9.0, 6.0, 3.0, 0.0]
    problem = Problem([flat, steep, steep], [[0, 1, 2, 3]] * 3, 6)
    # unit 0 gives a byte back, and unit 1 is the first of those that lose less with one more
    assert round_to_levels(problem, [Fraction(2)] * 3).tolist() == [1, 3, 2]


def test_a_step_that_brings_nothing_is_not_bought() -> None:
    problem = Problem([[9.0, 3.0, 3.0], [9.0, 3.0, 1.0]], [[0, 1, 2]] * 2, 3)
    assert round_to_levels(problem, [Fraction(3, 2)] * 2).tolist() == [1, 2]


def test_the_worth_of_a_step_is_that_of_the_best_level_of_its_cost() -> None:
    problem = Problem([[9.0, 9.0, 3.0]], [[0, 2, 2]], 2)
    assert round_to_levels(problem, [Fraction(1)]).tolist() == [2]


def test_of_levels_of_equal_cost_and_loss_the_lowest_is_taken() -> None:
    problem = Problem([[9.0, 3.0, 3.0]], [[2, 2, 2]], 2)
    assert round_to_levels(problem, [Fraction(2)]).tolist() == [1]


def test_ties_go_to_the_lower_unit() -> None:
    problem = Problem([[2.0, 1.0]] * 4, [[0, 1]] * 4, 2)
    assert round_to_levels(problem, [Fraction(1, 2)] * 4).tolist() == [1, 1, 0, 0]


def test_a_group_keeps_its_total_as_nearly_as_can_be() -> None:
    problem = Problem([[3.0, 2.0, 1.0, 0.0]] * 5, [[0, 1, 2, 3]] * 5, 3)
    targets = [Fraction(part, 10) for part in (5, 5, 6, 7, 7)]
    assert round_to_levels(problem, targets).tolist() == [0, 0, 1, 1, 1]
    assert round_to_levels(problem, targets, [0, 0, 1, 1, 1]).tolist() == [1, 0, 0, 1, 1]


def test_what_no_group_can_use_alone_is_spent_together() -> None:
    problem = Problem([[3.0, 2.0, 1.0, 0.0]] * 2, [[0, 2, 4, 6]] * 2, 6)
    assert round_to_levels(problem, [Fraction(3), Fraction(3)], [0, 1]).tolist() == [2, 1]


def test_the_highest_level_within_a_limit_is_the_last_of_its_cost() -> None:
    cost = np.array([[0, 1, 1, 5], [2, 2, 2, 2]])
    assert highest_within(cost, [4, 2]).tolist() == [2, 3]
    assert highest_within(cost, [0, 9]).tolist() == [0, 3]
