"""Applies plans: measures a model, and runs it with caches of exactly the planned sizes."""

from .calibration import measure_importance, measure_profile
from .families import FAMILIES, Family
from .hf import BudgetedCache
from .session import budgeted, geometry_of

__all__ = [
    "FAMILIES",
    "BudgetedCache",
    "Family",
    "budgeted",
    "geometry_of",
    "measure_importance",
    "measure_profile",
]
