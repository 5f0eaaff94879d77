"""How much caches deserve: given by the user, or read from a problem's own curves."""

import numpy as np

from kvbudget.allocator.arrays import Floats, Ints, float_array, refuse, to_array
from kvbudget.allocator.layers import layer_of_units, sum_in_layers, units_in_layers
from kvbudget.allocator.problem import Problem

Importance = tuple[float, ...] | tuple[tuple[float, ...], ...]
"""One number per layer, [layers], or per cache, [layers, kv_heads]; at least 0."""


def check_importance(value: object, name: str = "importance") -> Importance | None:
    """Return numbers per layer or cache as nested tuples, so that they compare and hash.

    Args:
        value: Numbers as nested sequences or an array, [layers] or [layers, kv_heads]; or
            ``None``, which is returned.
        name: Name of the argument, for messages.

    Raises:
        TypeError: If they are not real numbers.
        ValueError: If one is negative or not finite, or they have another number of axes.
    """
    if value is None:
        return None
    array = to_array(name, value)  # type: ignore[arg-type]
    axes = ("layers",) if array.ndim == 1 else ("layers", "kv_heads")
    checked = float_array(name, array, axes)
    refuse(name, checked, checked < 0, axes, "must be at least 0")
    if array.ndim == 1:
        return tuple(checked.tolist())
    return tuple(tuple(row) for row in checked.tolist())


def per_cache(problem: Problem, importance: Importance, name: str = "importance") -> Floats:
    """Importance of each cache, [units]; that of a layer holds for all its caches.

    In a problem without an origin every unit is a layer with one head. If the heads of all layers
    were merged, there still is a number for each of them, and the layer takes their mean, to which
    heads that it does not have add 0.

    Raises:
        ValueError: If it is not one number per layer or per cache of the problem, or not 0 where
            a layer has no such KV head.
    """
    given = np.array(importance)
    layers, kv_heads = problem.shape
    if problem.origin is None and given.ndim == 2:
        # divided first, so that the sum cannot overflow
        given = (given / given.shape[1]).sum(axis=1)
    if given.shape not in ((layers,), (layers, kv_heads)):
        heads = "kv_heads" if problem.origin is None else kv_heads
        raise ValueError(
            f"`{name}` must have the shape ({layers},) or ({layers}, {heads}), but got"
            f" {np.shape(importance)}. In a problem that was not made from a profile, or some of"
            " whose heads must be equal, every unit is a layer of its own."
        )
    if given.ndim == 1:
        return of_layer(problem, given)
    if problem.origin is None:
        return given.ravel()
    present = problem.origin.geometry.present
    rule = "must be 0 where the layer has no such KV head"
    refuse(name, given, (given != 0) & ~present, ("layers", "kv_heads"), rule)
    return given[present]


def cache_importance(problem: Problem, importance: Importance | None) -> Floats:
    """Importance as given, or the loss that memory can remove, [units]."""
    if importance is None:
        return removable_loss(problem)
    return per_cache(problem, importance)


def layer_importance(problem: Problem, importance: Importance | None) -> Floats:
    """Mean importance of each layer's caches, [layers]."""
    each = cache_importance(problem, importance)
    # divided first, so that the sum cannot overflow
    mean = sum_in_layers(problem, each / of_layer(problem, units_in_layers(problem)))
    # within the layer's values, so that equal ones have one mean however many they are
    first = np.flatnonzero(np.diff(layer_of_units(problem), prepend=-1))
    low, high = np.minimum.reduceat(each, first), np.maximum.reduceat(each, first)
    within: Floats = np.clip(mean, low, high)
    return within


def removable_loss(problem: Problem) -> Floats:
    """Loss at the lowest level minus loss at the highest, [units]."""
    removable: Floats = problem.loss[:, 0] - problem.loss[:, -1]
    return removable


def of_layer(problem: Problem, layer_values: Floats | Ints) -> Floats:
    """A value per layer as one per unit, [units], as an array."""
    values: Floats = layer_values[layer_of_units(problem)].astype(np.float64)
    return values


def of_units(problem: Problem, layer_values: Floats) -> list[float]:
    """A value per layer as one per unit, [units]: all caches of a layer get the same."""
    values: list[float] = of_layer(problem, layer_values).tolist()
    return values
