"""Decides how much memory each KV cache gets. Needs NumPy, never torch.

Profile --Problem.from_profile--> Problem --solve--> Solution --.plan--> Plan
"""

from . import constraints, search, solvers
from .budget import Budget, Tokens, parse_budget
from .bytes_text import format_bytes
from .cache_shape import CacheShape
from .certificate import Certificate
from .compare import Comparison, ComparisonRow, compare
from .constraint import Constraint
from .curves import lower_hull, running_minimum
from .errors import BadFile, InfeasibleBudget, KVBudgetError, UnsupportedModel, WrongModel
from .geometry import DTYPE_BYTES, Geometry
from .levels import DEFAULT_LEVELS
from .origin import Origin
from .path import Path
from .plan import Plan
from .plan_curves import Curves
from .problem import Problem
from .profile import Profile
from .profile_check import ProfileCheck
from .relaxation import hull_bound
from .risk import CVaR, Mean, Risk, WorstSample
from .search import search_front, search_plans
from .solution import Solution
from .solve import allocate, solve
from .solve_path import solve_path
from .solver import Choice, Solver
from .solvers import Exact, Greedy, Hull, LinearProgram, MixedInteger, OptunaSearch, Uniform
from .status import Status
from .terms import Terms, terms_of

__all__ = [
    "DEFAULT_LEVELS",
    "DTYPE_BYTES",
    "BadFile",
    "Budget",
    "CVaR",
    "CacheShape",
    "Certificate",
    "Choice",
    "Comparison",
    "ComparisonRow",
    "Constraint",
    "Curves",
    "Exact",
    "Geometry",
    "Greedy",
    "Hull",
    "InfeasibleBudget",
    "KVBudgetError",
    "LinearProgram",
    "Mean",
    "MixedInteger",
    "OptunaSearch",
    "Origin",
    "Path",
    "Plan",
    "Problem",
    "Profile",
    "ProfileCheck",
    "Risk",
    "Solution",
    "Solver",
    "Status",
    "Terms",
    "Tokens",
    "Uniform",
    "UnsupportedModel",
    "WorstSample",
    "WrongModel",
    "allocate",
    "compare",
    "constraints",
    "format_bytes",
    "hull_bound",
    "lower_hull",
    "parse_budget",
    "running_minimum",
    "search",
    "search_front",
    "search_plans",
    "solve",
    "solve_path",
    "solvers",
    "terms_of",
]
