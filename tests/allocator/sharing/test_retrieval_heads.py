import numpy as np

from kvbudget.allocator import Problem
from kvbudget.allocator.sharing.retrieval_heads import whole_or_small

LOSS = [[float(11 - level) for level in range(12)]] * 4
COST = [list(range(12))] * 4
IMPORTANCE = np.array([1.0, 3.0, 0.0, 3.0])


def choose(budget: int, small: list[int], most_whole: int = 4) -> list[int]:
    return whole_or_small(Problem(LOSS, COST, budget), IMPORTANCE, small, most_whole).tolist()


def test_the_most_important_are_whole_and_the_rest_share_what_is_left() -> None:
    assert choose(11 + 6, [2] * 4) == [2, 11, 2, 2]
    assert choose(11 + 11 + 4, [2] * 4) == [2, 11, 2, 11]
    assert choose(11 + 11 + 7, [2] * 4) == [4, 11, 3, 11]


def test_ties_go_to_the_lower_unit() -> None:
    assert choose(11 + 8, [1] * 4) == [3, 11, 3, 2]


def test_no_more_are_whole_than_allowed() -> None:
    assert choose(11 + 21, [2] * 4, 1) == [7, 11, 7, 7]
    assert choose(20, [2] * 4, 0) == [5, 5, 5, 5]


def test_if_small_caches_do_not_fit_all_are_equal() -> None:
    assert choose(15, [4] * 4) == [4, 4, 4, 3]


def test_the_first_that_cannot_be_whole_ends_the_list() -> None:
    cost = [[0, 2], [0, 9], [0, 2], [0, 2]]
    problem = Problem([[1.0, 0.0]] * 4, cost, 4)
    # unit 1 is first and too large, so all share in equal parts: 1 byte each
    assert whole_or_small(problem, IMPORTANCE, [0] * 4, 4).tolist() == [1, 0, 1, 0]


def test_many_ties_go_to_the_lower_units() -> None:
    problem = Problem([[1.0, 0.0]] * 100, [[0, 2]] * 100, 2 * 37)
    levels = whole_or_small(problem, np.tile([0.0, 1.0], 50), [0] * 100, 100)
    assert np.flatnonzero(levels).tolist() == list(range(1, 74, 2))
