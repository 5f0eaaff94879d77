"""Limits beside the total budget, one file each."""

from .byte_limit import ByteLimit
from .custom import Custom
from .equal_in_layer import EqualInLayer
from .least_tokens import LeastTokens
from .most_capacities import MostCapacities
from .most_tokens import MostTokens
from .protected import Protected
from .whole_pages import WholePages

__all__ = [
    "ByteLimit",
    "Custom",
    "EqualInLayer",
    "LeastTokens",
    "MostCapacities",
    "MostTokens",
    "Protected",
    "WholePages",
]
