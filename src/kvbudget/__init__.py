"""Divide a memory budget over the KV caches of a language model, and generate inside it.

A whole program:

    import kvbudget as kvb

    profile = kvb.measure_profile(model, prompts, kvb.heuristics.ObservationWindow())
    plan = kvb.allocate(profile, budget="25%", context_tokens=32_768)
    with kvb.budgeted(model, plan) as cache:
        output = model.generate(**inputs, past_key_values=cache)

Names are looked up on first use, so that `import kvbudget` loads neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvbudget import evaluation as evaluation
    from kvbudget import heuristics as heuristics
    from kvbudget import pictures as pictures
    from kvbudget import testing as testing
    from kvbudget.allocator import BadFile as BadFile
    from kvbudget.allocator import CacheShape as CacheShape
    from kvbudget.allocator import Choice as Choice
    from kvbudget.allocator import Comparison as Comparison
    from kvbudget.allocator import CVaR as CVaR
    from kvbudget.allocator import Geometry as Geometry
    from kvbudget.allocator import InfeasibleBudget as InfeasibleBudget
    from kvbudget.allocator import KVBudgetError as KVBudgetError
    from kvbudget.allocator import Mean as Mean
    from kvbudget.allocator import Path as Path
    from kvbudget.allocator import Plan as Plan
    from kvbudget.allocator import Problem as Problem
    from kvbudget.allocator import Profile as Profile
    from kvbudget.allocator import ProfileCheck as ProfileCheck
    from kvbudget.allocator import Solution as Solution
    from kvbudget.allocator import Solver as Solver
    from kvbudget.allocator import Tokens as Tokens
    from kvbudget.allocator import UnsupportedModel as UnsupportedModel
    from kvbudget.allocator import WorstSample as WorstSample
    from kvbudget.allocator import WrongModel as WrongModel
    from kvbudget.allocator import allocate as allocate
    from kvbudget.allocator import compare as compare
    from kvbudget.allocator import constraints as constraints
    from kvbudget.allocator import search as search
    from kvbudget.allocator import search_front as search_front
    from kvbudget.allocator import search_plans as search_plans
    from kvbudget.allocator import solve as solve
    from kvbudget.allocator import solve_path as solve_path
    from kvbudget.allocator import solvers as solvers
    from kvbudget.evaluation import Evaluation as Evaluation
    from kvbudget.evaluation import evaluate as evaluate
    from kvbudget.reference import reference_model as reference_model
    from kvbudget.report import save_report as save_report
    from kvbudget.runtime import Adaptation as Adaptation
    from kvbudget.runtime import BudgetedCache as BudgetedCache
    from kvbudget.runtime import Global as Global
    from kvbudget.runtime import WithinLayer as WithinLayer
    from kvbudget.runtime import budgeted as budgeted
    from kvbudget.runtime import check_profile as check_profile
    from kvbudget.runtime import device_bytes as device_bytes
    from kvbudget.runtime import device_limits as device_limits
    from kvbudget.runtime import geometry_of as geometry_of
    from kvbudget.runtime import measure_importance as measure_importance
    from kvbudget.runtime import measure_profile as measure_profile
    from kvbudget.runtime import shapley_importance as shapley_importance

__version__ = "0.1.0"

_HOME = {
    "Adaptation": "kvbudget.runtime",
    "BadFile": "kvbudget.allocator",
    "BudgetedCache": "kvbudget.runtime",
    "CVaR": "kvbudget.allocator",
    "CacheShape": "kvbudget.allocator",
    "Choice": "kvbudget.allocator",
    "Comparison": "kvbudget.allocator",
    "Evaluation": "kvbudget.evaluation",
    "Geometry": "kvbudget.allocator",
    "Global": "kvbudget.runtime",
    "InfeasibleBudget": "kvbudget.allocator",
    "KVBudgetError": "kvbudget.allocator",
    "Mean": "kvbudget.allocator",
    "Path": "kvbudget.allocator",
    "Plan": "kvbudget.allocator",
    "Problem": "kvbudget.allocator",
    "Profile": "kvbudget.allocator",
    "ProfileCheck": "kvbudget.allocator",
    "Solution": "kvbudget.allocator",
    "Solver": "kvbudget.allocator",
    "Tokens": "kvbudget.allocator",
    "UnsupportedModel": "kvbudget.allocator",
    "WithinLayer": "kvbudget.runtime",
    "WorstSample": "kvbudget.allocator",
    "WrongModel": "kvbudget.allocator",
    "allocate": "kvbudget.allocator",
    "budgeted": "kvbudget.runtime",
    "check_profile": "kvbudget.runtime",
    "compare": "kvbudget.allocator",
    "constraints": "kvbudget.allocator",
    "device_bytes": "kvbudget.runtime",
    "device_limits": "kvbudget.runtime",
    "evaluate": "kvbudget.evaluation",
    "geometry_of": "kvbudget.runtime",
    "measure_importance": "kvbudget.runtime",
    "measure_profile": "kvbudget.runtime",
    "reference_model": "kvbudget.reference",
    "save_report": "kvbudget.report",
    "search": "kvbudget.allocator",
    "search_front": "kvbudget.allocator",
    "search_plans": "kvbudget.allocator",
    "shapley_importance": "kvbudget.runtime",
    "solve": "kvbudget.allocator",
    "solve_path": "kvbudget.allocator",
    "solvers": "kvbudget.allocator",
}

__all__ = [
    "Adaptation",
    "BadFile",
    "BudgetedCache",
    "CVaR",
    "CacheShape",
    "Choice",
    "Comparison",
    "Evaluation",
    "Geometry",
    "Global",
    "InfeasibleBudget",
    "KVBudgetError",
    "Mean",
    "Path",
    "Plan",
    "Problem",
    "Profile",
    "ProfileCheck",
    "Solution",
    "Solver",
    "Tokens",
    "UnsupportedModel",
    "WithinLayer",
    "WorstSample",
    "WrongModel",
    "allocate",
    "budgeted",
    "check_profile",
    "compare",
    "constraints",
    "device_bytes",
    "device_limits",
    "evaluate",
    "evaluation",
    "geometry_of",
    "heuristics",
    "measure_importance",
    "measure_profile",
    "pictures",
    "reference_model",
    "save_report",
    "search",
    "search_front",
    "search_plans",
    "shapley_importance",
    "solve",
    "solve_path",
    "solvers",
    "testing",
]


def __getattr__(name: str) -> object:
    if name in ("evaluation", "heuristics", "pictures", "testing"):
        return import_module(f"kvbudget.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'kvbudget' has no attribute {name!r}")
    value: object = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
