"""Heuristics: which tokens a cache keeps, how much a cache deserves, and what cutting costs."""

from . import measures
from .cache_view import CacheView
from .caches import Baklava, HeadInput, HeadWeight, LayerScore, Reduction
from .checks import check_kind, checked_importance, checked_scores
from .cut_view import Cut, CutView
from .heuristic import CacheHeuristic, TokenHeuristic
from .layer_view import LayerView
from .registry import (
    Heuristic,
    build,
    get,
    name_of,
    names,
    register,
    registration_scope,
    settings_of,
)
from .tokens import HeavyHitter, KeyNorm, ObservationWindow, SinkRecent

__all__ = [
    "Baklava",
    "CacheHeuristic",
    "CacheView",
    "Cut",
    "CutView",
    "HeadInput",
    "HeadWeight",
    "HeavyHitter",
    "Heuristic",
    "KeyNorm",
    "LayerScore",
    "LayerView",
    "ObservationWindow",
    "Reduction",
    "SinkRecent",
    "TokenHeuristic",
    "build",
    "check_kind",
    "checked_importance",
    "checked_scores",
    "get",
    "measures",
    "name_of",
    "names",
    "register",
    "registration_scope",
    "settings_of",
]
