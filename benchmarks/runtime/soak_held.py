"""What a budgeted cache holds, as one mask, and how a fault of it is told."""

import torch
from torch import Tensor

from benchmarks.runtime.soak_dense import LONGEST
from kvbudget.runtime import BudgetedCache


class SoakFault(AssertionError):
    """The cache did something that it must not."""


def held_mask(cache: BudgetedCache, rows: int) -> Tensor:
    """Columns that every head holds, [layers, rows, kv_heads, LONGEST], bool."""
    geometry = cache.plan.geometry
    mask = torch.zeros(geometry.layers, rows, geometry.kv_heads, LONGEST, dtype=torch.bool)
    layers = [cache.kept_positions(layer) for layer in range(geometry.layers)]
    segments = [columns for layer in layers for row in layer for columns in row]
    if not segments:
        return mask
    expect(len(segments) == mask[..., 0].numel(), "the cache has other rows than it should")
    lengths = torch.tensor([len(columns) for columns in segments])
    owner = torch.repeat_interleave(torch.arange(len(segments)), lengths)
    columns = torch.cat(segments)
    expect(bool(((columns >= 0) & (columns < LONGEST)).all()), "a column is none")
    places = owner * LONGEST + columns
    expect(bool((places.diff() > 0).all()), "columns are not sorted, or not unique")
    mask.view(-1)[places] = True
    return mask


def differing_names(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of tensors that only one of the two has, or that are not equal."""
    common = one.keys() & other.keys()
    unequal = {name for name in common if not torch.equal(one[name], other[name])}
    return sorted(unequal | (one.keys() ^ other.keys()))


def expect(holds: bool, otherwise: str) -> None:
    """Refuse what must not be.

    Raises:
        SoakFault: It does not hold.
    """
    if not holds:
        raise SoakFault(otherwise)
