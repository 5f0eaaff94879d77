"""Applies plans: measures a model, and runs it with caches of exactly the planned sizes."""

from .calibration import measure_profile
from .checking import check_profile
from .coalitions import shapley_importance
from .hf import BudgetedCache
from .importance import measure_importance
from .session import budgeted, geometry_of

__all__ = [
    "BudgetedCache",
    "budgeted",
    "check_profile",
    "geometry_of",
    "measure_importance",
    "measure_profile",
    "shapley_importance",
]
