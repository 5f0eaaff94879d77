"""Checks of what a search is given."""

import pytest

from kvbudget.allocator import Hull, OptunaSearch
from kvbudget.allocator.search import Sampler, Tpe
from kvbudget.allocator.search.kinds import (
    check_kind,
    check_objective,
    check_problem,
    check_search,
)


@pytest.mark.parametrize("wrong", [Tpe, "tpe", None])
def test_an_object_of_another_kind_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="`sampler` must be an object of Sampler, but got "):
        check_kind("sampler", wrong, Sampler)


@pytest.mark.parametrize("wrong", ["ppl", 1.0, (len,)])
def test_an_objective_that_cannot_be_called_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match=r"`objective` must be a function .* Pass the function"):
        check_objective(wrong)


def test_another_solver_is_sent_to_solve() -> None:
    with pytest.raises(TypeError, match=r"but got Hull\(\)\. .* solve\(\) takes every other"):
        check_search(Hull())


def test_a_search_in_the_place_of_the_problem_is_named() -> None:
    with pytest.raises(TypeError, match=r"`problem` must be a Problem, but got OptunaSearch\("):
        check_problem(OptunaSearch())
