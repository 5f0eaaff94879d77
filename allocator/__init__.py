"""Decides how much memory each KV cache gets. Needs NumPy, never torch.

Profile --Problem.from_profile--> Problem --solve--> Solution --.plan--> Plan
"""

from . import solvers
from .budget import Budget, Tokens, parse_budget
from .bytes_text import format_bytes
from .certificate import Certificate
from .compare import Comparison, ComparisonRow, compare
from .curves import lower_hull, running_minimum
from .errors import BadFile, InfeasibleBudget, KVBudgetError, UnsupportedModel, WrongModel
from .geometry import DTYPE_BYTES, Geometry
from .levels import DEFAULT_LEVELS
from .origin import Origin
from .plan import Plan
from .problem import Problem
from .profile import Profile
from .relaxation import hull_bound
from .solution import Solution
from .solve import allocate, solve
from .solver import Choice, Solver
from .solvers import Greedy, Hull, LinearProgram, Uniform
from .status import Status

__all__ = [
    "DEFAULT_LEVELS",
    "DTYPE_BYTES",
    "BadFile",
    "Budget",
    "Certificate",
    "Choice",
    "Comparison",
    "ComparisonRow",
    "Geometry",
    "Greedy",
    "Hull",
    "InfeasibleBudget",
    "KVBudgetError",
    "LinearProgram",
    "Origin",
    "Plan",
    "Problem",
    "Profile",
    "Solution",
    "Solver",
    "Status",
    "Tokens",
    "Uniform",
    "UnsupportedModel",
    "WrongModel",
    "allocate",
    "compare",
    "format_bytes",
    "hull_bound",
    "lower_hull",
    "parse_budget",
    "running_minimum",
    "solve",
    "solvers",
]
