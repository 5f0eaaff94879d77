"""Every line that touches the cache and attention interfaces of transformers."""

from .attention import ordinary_attention
from .cache import BudgetedCache
from .delegating import Attend, delegating_cache
from .handoff import refuse_stranded
from .layout import Layout
from .probing import Sighting, probe
from .substitution import cache_served
from .switching import attention_switched

__all__ = [
    "Attend",
    "BudgetedCache",
    "Layout",
    "Sighting",
    "attention_switched",
    "cache_served",
    "delegating_cache",
    "ordinary_attention",
    "probe",
    "refuse_stranded",
]
