"""The units of a problem by the layers that they lie in.

A problem's units are the caches of a model, layer by layer; layers may have unequal numbers of
them. Without an origin every unit is a layer of its own.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, Ints

if TYPE_CHECKING:
    from .problem import Problem


def layer_of_units(problem: "Problem") -> Ints:
    """Layer of each unit, int64 [units]."""
    if problem.origin is None:
        return np.arange(len(problem.loss))
    return np.nonzero(problem.origin.geometry.present)[0]


def units_in_layers(problem: "Problem") -> Ints:
    """Number of units in each layer, int64 [layers], at least 1."""
    return np.bincount(layer_of_units(problem))


def on_grid(problem: "Problem", values: NDArray[Any]) -> NDArray[Any]:
    """Spread values of units over layers and KV heads, 0 where a layer has fewer heads.

    Args:
        problem: The problem.
        values: Values of the units, [units, ...].

    Returns:
        The values as [layers, kv_heads, ...].
    """
    if problem.origin is None:
        return values[:, None]
    return problem.origin.geometry.on_grid(values)


def sum_in_layers(problem: "Problem", values: NDArray[Any]) -> NDArray[Any]:
    """Sums over the units of each layer, [layers, ...], from [units, ...]."""
    sums: NDArray[Any] = on_grid(problem, values).sum(axis=1)
    return sums


def mean_in_layers(problem: "Problem", values: Floats) -> Floats:
    """Means over the units of each layer, [layers], from [units]."""
    means: Floats = sum_in_layers(problem, values) / units_in_layers(problem)
    return means
