"""Which caches a constraint speaks of: some layers, some KV heads, or both."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

import numpy as np

from .arrays import Ints
from .checks import check_count
from .terms import Bools

if TYPE_CHECKING:
    from .origin import Origin
    from .problem import Problem

Indices = tuple[int, ...] | None
"""Layers or KV heads, counted from 0; ``None`` means all."""


class Selecting(Protocol):
    """A constraint that speaks of some layers and some KV heads."""

    @property
    def layers(self) -> Indices:
        """Layers that it names."""

    @property
    def kv_heads(self) -> Indices:
        """KV heads that it names."""


def check_indices(name: str, value: Iterable[int] | None) -> Indices:
    """Return indices as a sorted tuple without repeats; a range or a list will do.

    Raises:
        TypeError: If it is not a collection of integers.
        ValueError: If it is empty or an index is below 0.
    """
    if value is None:
        return None
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"`{name}` must be a list of indices or None, but got {value!r:.60}.")
    indices = {check_count(name, index, least=0) for index in value}
    if not indices:
        raise ValueError(f"`{name}` must name at least one, but is empty. Leave it out for all.")
    return tuple(sorted(indices))


def check_selection(constraint: "Selecting") -> None:
    """Check the layers and the KV heads that a constraint names, and store them as tuples.

    Raises:
        TypeError: If one of them is not a collection of integers.
        ValueError: If one is empty or holds an index below 0.
    """
    for name in ("layers", "kv_heads"):
        object.__setattr__(constraint, name, check_indices(name, getattr(constraint, name)))


def select(problem: "Problem", layers: Indices, kv_heads: Indices) -> Bools:
    """Units in these layers with these KV heads, [units].

    Raises:
        ValueError: If the problem has no such layer or KV head, or none of the layers has one of
            the KV heads.
    """
    num_layers, num_heads = problem.shape
    chosen = np.outer(mask("layers", layers, num_layers), mask("kv_heads", kv_heads, num_heads))
    if problem.origin is None:
        return chosen.ravel()
    units: Bools = chosen[problem.origin.geometry.present]
    if not units.any():
        raise ValueError(
            "`layers` and `kv_heads` must name a cache of the model, but no layer of"
            f" {layers} has a KV head of {kv_heads}."
        )
    return units


def mask(name: str, indices: Indices, count: int) -> Bools:
    """Mark some of ``count`` places, [count].

    Raises:
        ValueError: If an index is too large.
    """
    if indices is None:
        return np.ones(count, dtype=bool)
    if indices[-1] >= count:
        raise ValueError(f"`{name}` must be in 0..{count - 1}, but got {indices[-1]}.")
    chosen = np.zeros(count, dtype=bool)
    chosen[list(indices)] = True
    return chosen


def name_caches(layers: Indices, kv_heads: Indices) -> str:
    """Name a selection: ``"layers 0, 1"``."""
    parts = (("layers", layers), ("KV heads", kv_heads))
    named = [f"{word} {', '.join(map(str, which))}" for word, which in parts if which is not None]
    return " and ".join(named) or "all caches"


def capacity_of(problem: "Problem", name: str) -> Ints:
    """Tokens that each unit keeps at each level, int64 [units, levels].

    Raises:
        ValueError: If the problem does not know them.
    """
    return origin_of(problem, name).capacity_tokens


def origin_of(problem: "Problem", name: str) -> "Origin":
    """Where a problem came from.

    Args:
        problem: The problem.
        name: Name of the constraint that wants to know.

    Raises:
        ValueError: If it was made from arrays.
    """
    if problem.origin is None:
        raise ValueError(
            f"`constraints` must not hold {name} where a problem was made from arrays, because it"
            " speaks of tokens. Use Problem.from_profile."
        )
    return problem.origin
