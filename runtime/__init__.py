"""Applies plans: measures a model, and runs it with caches of exactly the planned sizes."""

from .adaptation import Adaptation, Global, WithinLayer
from .calibration import measure_profile
from .checking import check_profile
from .coalitions import shapley_importance
from .device_map import device_bytes, device_limits, layer_devices
from .hf import BudgetedCache
from .importance import measure_importance
from .session import budgeted, geometry_of

__all__ = [
    "Adaptation",
    "BudgetedCache",
    "Global",
    "WithinLayer",
    "budgeted",
    "check_profile",
    "device_bytes",
    "device_limits",
    "geometry_of",
    "layer_devices",
    "measure_importance",
    "measure_profile",
    "shapley_importance",
]
