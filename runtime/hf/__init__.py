"""Every line that touches the cache and attention interfaces of transformers."""

from .attention import ordinary_attention
from .cache import BudgetedCache
from .delegating import Attend, delegating_cache
from .handoff import refuse_stranded
from .layout import CachedLayer, Layout, text_layout
from .probing import Sighting, probe
from .switching import attention_switched

__all__ = [
    "Attend",
    "BudgetedCache",
    "CachedLayer",
    "Layout",
    "Sighting",
    "attention_switched",
    "delegating_cache",
    "ordinary_attention",
    "probe",
    "refuse_stranded",
    "text_layout",
]
