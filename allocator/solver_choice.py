"""A solver for constraints that somebody else chose."""

from . import solvers
from .constraint import Constraint, coupling_kinds
from .solver import Solver
from .solvers.hull import Hull

PREFERRED = ("Hull", "LinearProgram", "MixedInteger")
"""Where several solvers honour the constraints, the first of these is taken."""


def solver_for(constraints: tuple[Constraint, ...]) -> Solver:
    """``Hull()``, unless constraints couple caches and another solver honours them."""
    asked = coupling_kinds(constraints)
    names = [*filter(solvers.__all__.__contains__, PREFERRED), *solvers.__all__]
    makes: list[type[Solver]] = [getattr(solvers, name) for name in names]
    return next((make() for make in makes if asked <= make.honours), Hull())
