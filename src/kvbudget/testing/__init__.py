"""What every solver must hold, ready to be run on a solver of your own.

It needs neither pytest nor a model:

    from kvbudget.testing import check_solver

    check_solver(MySolver())

With pytest, one test for each thing to hold:

    @pytest.mark.parametrize("check", solver_checks(), ids=str)
    def test_my_solver(check):
        check(MySolver())
"""

from .examples import Example, solver_examples
from .oracle import least_loss
from .solvers import SolverCheck, check_solver, solver_checks

__all__ = [
    "Example",
    "SolverCheck",
    "check_solver",
    "least_loss",
    "solver_checks",
    "solver_examples",
]
