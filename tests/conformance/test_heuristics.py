"""What every registered heuristic holds: what others run on theirs, and a little more."""

import pytest

from kvbudget import heuristics
from kvbudget.heuristics import CacheHeuristic
from kvbudget.testing import HeuristicCheck, check_heuristic, heuristic_checks
from kvbudget.testing.views import cache_view

NAMES = heuristics.names()
CHECKS = [(name, check) for name in NAMES for check in heuristic_checks(heuristics.get(name))]

every_heuristic = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize(("name", "assert_holds"), CHECKS, ids=str)
def test_every_heuristic_passes_what_others_run_on_theirs(
    name: str, assert_holds: HeuristicCheck
) -> None:
    assert_holds(heuristics.build(name))


def test_the_whole_suite_is_one_call() -> None:
    assert check_heuristic(heuristics.KeyNorm()) is None


@every_heuristic
def test_it_is_final_takes_no_more_memory_than_its_settings_and_says_what_it_does(
    name: str,
) -> None:
    cls = heuristics.get(name)
    assert not cls.__subclasses__()
    assert not hasattr(cls(), "__dict__")
    assert cls.__doc__


@pytest.mark.parametrize("name", heuristics.names(CacheHeuristic))
@pytest.mark.parametrize("kind", [{}, {"softcap": 3.0}, {"prompt_columns": 60}], ids=str)
def test_no_cache_is_worth_nothing(name: str, kind: dict[str, object]) -> None:
    heuristic = heuristics.build(name)
    assert isinstance(heuristic, CacheHeuristic)
    assert (heuristic.importance(cache_view(**kind)) > 0).all()
