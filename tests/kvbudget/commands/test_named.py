"""Names and budgets as they are typed."""

import pytest

from kvbudget.allocator import Tokens, solvers
from kvbudget.commands.named import kebab, read_budget, solver_classes, solver_named


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


@pytest.mark.parametrize(
    ("name", "typed"),
    [
        ("Hull", "hull"),
        ("LinearProgram", "linear-program"),
        ("PyramidKV", "pyramid-kv"),
        ("LUKV", "lu-kv"),
        ("KVTuner", "kv-tuner"),
        ("DuoAttention", "duo-attention"),
        ("ZigZagKV", "zig-zag-kv"),
        ("CAKE", "cake"),
        ("D2O", "d2o"),
        ("KV", "kv"),
    ],
)
def test_names_are_words_with_hyphens(name, typed):
    assert kebab(name) == typed


@pytest.mark.parametrize(
    "typed", ["linear-program", "LinearProgram", "linear_program", "LINEARprogram"]
)
def test_a_solver_is_found_however_its_name_is_spelt(typed):
    assert solver_named(typed) == solvers.LinearProgram()


def test_no_two_solvers_differ_only_in_spelling():
    plain = [name.replace("-", "") for name in solver_classes()]
    assert len(set(plain)) == len(plain) == len(solvers.__all__)
