"""Searches for losses that are not sums: measured numbers, a few parameters, Optuna's trials.

    Parameters (few numbers) --levels--> Plan --objective--> value --Sampler--> the next numbers

Import cost: NumPy only; Optuna is loaded by the first search.
"""

from .dimension import Dimension, Real, Whole
from .layer_groups import LayerGroups
from .objective import Objective
from .parameters import Parameters
from .price_and_groups import PriceAndGroups
from .result import SearchResult
from .sampler import CmaEs, NsgaII, Sampler, Tpe
from .search_plans import search_front, search_plans
from .share_and_ratio import ShareAndRatio
from .trial_record import Outcome, TrialRecord

__all__ = [
    "CmaEs",
    "Dimension",
    "LayerGroups",
    "NsgaII",
    "Objective",
    "Outcome",
    "Parameters",
    "PriceAndGroups",
    "Real",
    "Sampler",
    "SearchResult",
    "ShareAndRatio",
    "Tpe",
    "TrialRecord",
    "Whole",
    "search_front",
    "search_plans",
]
