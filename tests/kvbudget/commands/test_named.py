"""Names and budgets as they are typed."""

import pytest

from kvbudget.allocator import Tokens, solvers
from kvbudget.commands.named import read_budget, solver_classes, solver_named


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("25%", "25%"),
        (" 2GiB ", "2GiB"),
        ("1000", 1000),
        ("-1", -1),
        ("256tokens", Tokens(256)),
        ("1 token", Tokens(1)),
        ("banana", "banana"),
    ],
)
def test_budgets_are_read(text, budget):
    assert read_budget(text) == budget


def test_every_solver_has_a_name():
    assert set(solver_classes().values()) == {getattr(solvers, name) for name in solvers.__all__}
    assert "linear-program" in solver_classes()


@pytest.mark.parametrize("name", solver_classes())
def test_a_name_gives_a_solver_of_that_class(name):
    assert type(solver_named(name)) is solver_classes()[name]
