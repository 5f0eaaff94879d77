"""Rules divide tokens: caches that need equally much get equally many, whatever a token takes."""

from dataclasses import replace

import numpy as np
import pytest

from kvbudget.allocator import (
    CacheShape,
    Geometry,
    Problem,
    Profile,
    Solver,
    Tokens,
    Uniform,
    allocate,
    solvers,
)
from kvbudget.allocator.search.parameters import Parameters
from kvbudget.allocator.search.share_and_ratio import ShareAndRatio
from kvbudget.allocator.solvers.published.evolkv import GroupBudgets

ALIKE: list[Solver] = [
    solvers.AdaKV(window_tokens=4),
    solvers.BaKlaVa(shrunk_shares=()),
    solvers.CAKE(window_tokens=4),
    solvers.CoKV(),
    solvers.CompressKV(least_tokens=4),
    solvers.D2O(whole_layers=()),
    solvers.DuoAttention(sink_tokens=6, recent_tokens=7),
    solvers.HeadKV(),
    solvers.LAVa(window_tokens=4),
    solvers.PrefixKV(),
    solvers.PyramidKV(beta=1),
    solvers.RazorAttention(retrieval_share=0),
    solvers.SqueezeAttention(),
    solvers.ZigZagKV(),
    Uniform(),
]


@pytest.fixture(scope="module")
def needy() -> Profile:
    """Unequal layers all of whose caches lose the same for the same tokens."""
    shapes = [CacheShape(3, 4, 4), CacheShape(1, 8, 6), CacheShape(2, 2, 3), CacheShape(2, 4, 4)]
    geometry = Geometry.of_layers("Gemma4", shapes, "bfloat16", (None,) * 4)
    menu = np.arange(1, 41) / 40
    loss = geometry.present[..., None] * (1 - menu) ** 2
    return Profile(loss, loss[None], menu, geometry, "", "", (), "")


@pytest.mark.parametrize("solver", ALIKE, ids=lambda solver: type(solver).__name__)
@pytest.mark.parametrize("tokens", [10, 14])
def test_equally_needy_caches_get_equal_tokens(solver: Solver, tokens: int, needy: Profile) -> None:
    plan = allocate(needy, budget=Tokens(tokens), context_tokens=40, solver=solver)
    assert plan.capacity_tokens[needy.geometry.present].tolist() == [tokens] * 8


def test_the_most_winning_tokens_are_those_that_remove_most_per_byte(needy: Profile) -> None:
    # in proportion to bytes, so that a byte removes equally much everywhere
    loss = needy.loss * (needy.geometry.token_bytes / 4)[..., None]
    equal = replace(needy, loss=loss, sample_loss=loss[None])
    plan = allocate(
        equal, budget=Tokens(10), context_tokens=40, solver=solvers.DynamicKV(window_tokens=4)
    )
    assert plan.capacity_tokens[needy.geometry.present].tolist() == [10] * 8


@pytest.mark.parametrize("parameters", [GroupBudgets((1.0,) * 4, 1, 3), ShareAndRatio()])
def test_a_search_starts_from_equal_tokens(parameters: Parameters, needy: Profile) -> None:
    problem = Problem.from_profile(needy, budget=Tokens(10), context_tokens=40)
    start = np.array(parameters.starts(problem)[-1])
    # a little is lost to rounding, and spent where it removes most
    assert np.isin(parameters.levels(problem, start) + 1, [9, 10, 11]).all()


def test_importance_of_a_cache_that_is_not_there_is_refused(needy: Profile) -> None:
    importance = tuple(map(tuple, np.ones((4, 3)).tolist()))
    solver = solvers.HeadKV(importance=importance)
    with pytest.raises(ValueError, match="`importance` must be 0 where the layer has no such KV"):
        allocate(needy, budget="50%", context_tokens=40, solver=solver)


@pytest.mark.parametrize("per_layer", [True, False])
def test_the_mean_over_a_layer_leaves_out_caches_that_are_not_there(
    per_layer: bool, needy: Profile
) -> None:
    each = np.array([1.0, 3.0, 1.0, 1.0])
    grid = needy.geometry.present * each[:, None]
    solver = solvers.ZigZagKV(
        least_share=0.0, importance=tuple(each.tolist() if per_layer else map(tuple, grid.tolist()))
    )
    plan = allocate(needy, budget=Tokens(10), context_tokens=40, solver=solver)
    # 1280 bytes: 100 for a token in all other caches, and 28 for one here, with three times as many
    assert plan.capacity_tokens[:, 0].tolist() == pytest.approx([7, 21, 7, 7], abs=1)
