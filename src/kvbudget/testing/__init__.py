"""What every solver and every heuristic must hold, ready to be run on your own.

It needs neither pytest nor a model:

    from kvbudget.testing import check_heuristic, check_solver

    check_solver(MySolver())
    check_heuristic(MyHeuristic())

With pytest, one test for each thing to hold:

    @pytest.mark.parametrize("check", heuristic_checks(MyHeuristic), ids=str)
    def test_my_heuristic(check):
        check(MyHeuristic())

and in the same way with ``solver_checks()``.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .examples import Example, solver_examples
from .oracle import least_loss
from .solvers import SolverCheck, check_solver, solver_checks

if TYPE_CHECKING:
    from .heuristics import HeuristicCheck, check_heuristic, heuristic_checks

__all__ = [
    "Example",
    "HeuristicCheck",
    "SolverCheck",
    "check_heuristic",
    "check_solver",
    "heuristic_checks",
    "least_loss",
    "solver_checks",
    "solver_examples",
]


def __getattr__(name: str) -> object:
    # heuristics need torch, which solvers do without
    if name not in __all__:
        raise AttributeError(f"module 'kvbudget.testing' has no attribute {name!r}")
    value: object = getattr(import_module("kvbudget.testing.heuristics"), name)
    globals()[name] = value
    return value
