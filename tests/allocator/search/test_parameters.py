"""What every kind of parameters must hold."""

import numpy as np
import pytest

from kvbudget.allocator import Problem, hull_bound
from kvbudget.allocator.search import LayerGroups, Parameters, PriceAndGroups, ShareAndRatio
from kvbudget.allocator.search.with_budget import WithBudget

KINDS = [PriceAndGroups(), ShareAndRatio(), LayerGroups(), LayerGroups(group_size=1)]
every_kind = pytest.mark.parametrize("kind", [*KINDS, WithBudget(PriceAndGroups())], ids=repr)


@every_kind
def test_dimensions_have_distinct_names_and_starts_lie_in_them(
    kind: Parameters, layered: Problem
) -> None:
    dimensions = kind.dimensions(layered)
    assert len({dimension.name for dimension in dimensions}) == len(dimensions)
    for start in kind.starts(layered):
        for dimension, value in zip(dimensions, start, strict=True):
            assert dimension.low <= value <= dimension.high  # type: ignore[attr-defined]


@every_kind
def test_the_largest_budget_gives_the_best_levels(kind: Parameters, layered: Problem) -> None:
    whole = Problem(layered.loss, layered.cost_bytes, layered.ceiling_bytes)
    levels = kind.levels(whole, np.array(kind.starts(whole)[0]))
    assert whole.total_loss(levels) == 0.0


@every_kind
def test_the_smallest_budget_gives_the_lowest_levels(kind: Parameters, layered: Problem) -> None:
    least = Problem(layered.loss, layered.cost_bytes, layered.floor_bytes)
    levels = kind.levels(least, np.array(kind.starts(least)[0]))
    assert not levels.any()


@every_kind
def test_the_first_start_is_not_far_from_the_best(kind: Parameters, layered: Problem) -> None:
    levels = kind.levels(layered, np.array(kind.starts(layered)[0]))
    assert layered.total_loss(levels) <= 1.7 * hull_bound(layered)
