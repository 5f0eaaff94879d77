from itertools import pairwise

from kvbudget.allocator import DEFAULT_LEVELS


def test_the_default_menu_rises_from_little_to_everything() -> None:
    assert all(lower < higher for lower, higher in pairwise(DEFAULT_LEVELS))
    assert 0 < DEFAULT_LEVELS[0] <= 0.02
    assert DEFAULT_LEVELS[-1] == 1.0


def test_the_default_menu_holds_the_budgets_that_people_name() -> None:
    assert {0.05, 0.1, 0.2, 0.25, 0.5, 1.0} <= set(DEFAULT_LEVELS)
