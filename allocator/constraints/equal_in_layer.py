"""Dense storage: all heads of a layer keep equally many tokens."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvbudget.allocator.caches import Indices, check_indices, select
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.layers import layer_of_units
from kvbudget.allocator.terms import Terms

if TYPE_CHECKING:
    from kvbudget.allocator.problem import Problem


@dataclass(frozen=True, slots=True)
class EqualInLayer(Constraint):
    """All KV heads of a layer get the same capacity, as storage without ragged heads needs it.

    Args:
        layers: Layers it holds for, counted from 0; all if ``None``.

    Raises:
        TypeError: If the layers are not indices.
        ValueError: If an index is out of range.
    """

    layers: Indices = None

    def __post_init__(self) -> None:
        """Check the layers."""
        object.__setattr__(self, "layers", check_indices("layers", self.layers))

    def terms(self, problem: "Problem") -> Terms:
        """Units of a chosen layer form a group; every other unit stays alone."""
        units = np.arange(len(problem.loss))
        layer = layer_of_units(problem)
        first_of_layer = np.searchsorted(layer, layer)
        return Terms(group=np.where(select(problem, self.layers, None), first_of_layer, units))
