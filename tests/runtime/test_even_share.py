"""While all caches hold equally many tokens, no limit of the plan is exceeded, and none wasted."""

from dataclasses import replace

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget.allocator import CacheShape, Geometry
from kvbudget.runtime.even_share import EvenShare

CONTEXT = 60
SHAPES = [CacheShape(4, 8, 8), CacheShape(2, 16, 8), CacheShape(4, 8, 4)]
GEOMETRY = Geometry.of_layers("Any", SHAPES, "float16", (None, 20, None))


def allocated(budget, limits=(), batch_size=1, **arguments):
    importance = np.random.default_rng(5).lognormal(sigma=1.5, size=(3, 4))
    profile = kvb.Profile.from_importance(np.where(GEOMETRY.present, importance, 0.0), GEOMETRY)
    size = {"context_tokens": CONTEXT, "batch_size": batch_size}
    return kvb.allocate(profile, budget=budget, constraints=limits, **size, **arguments)


def token_bytes(layers):
    return int(GEOMETRY.token_bytes[list(layers)].sum())


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_without_limits_it_is_the_budget_in_equal_parts(batch):
    plan = allocated("50%", batch_size=2)
    tokens = EvenShare.of(plan).tokens(batch)
    assert tokens * token_bytes(range(3)) * batch <= plan.budget_bytes
    assert (tokens + 1) * token_bytes(range(3)) * batch > plan.budget_bytes


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "limits",
    [
        {(0, 1): 9_000, (2,): 2_000},
        {(0, 1): 2_500, (2,): 30_000},
        {(0, 1, 2): 4_000},
        {(1,): 100_000},
    ],
)
def test_the_tightest_limit_decides(limits, batch):
    constraints = tuple(
        kvb.constraints.ByteLimit(most, layers=layers) for layers, most in limits.items()
    )
    plan = allocated("80%", constraints, batch_size=2)
    tokens = EvenShare.of(plan).tokens(batch)
    limits = {**limits, (0, 1, 2): min(plan.budget_bytes, limits.get((0, 1, 2), 10**9))}
    needed = {layers: token_bytes(layers) * batch for layers in limits}
    assert all(tokens * needed[layers] <= most for layers, most in limits.items())
    assert any((tokens + 1) * needed[layers] > most for layers, most in limits.items())


def test_shares_and_heads_count_as_they_did_for_the_solver():
    limit = kvb.constraints.ByteLimit("10%", kv_heads=(0,))
    tokens = EvenShare.of(allocated("80%", (limit,))).tokens(1)
    # the second layer needs 20 of 60 tokens
    full = int((GEOMETRY.token_bytes[:, 0] * [60, 20, 60]).sum())
    assert tokens == full // 10 // int(GEOMETRY.token_bytes[:, 0].sum())


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_limits_that_are_forgotten_leave_the_smallest_capacity(batch):
    limit = kvb.constraints.ByteLimit("30%", layers=(0, 1))
    plan = replace(allocated("80%", (limit,), batch_size=2), curves=None)
    smallest = plan.capacity_tokens[GEOMETRY.present].min()
    assert EvenShare.of(plan).tokens(batch) == smallest * 2 // batch


def test_a_plan_that_never_had_limits_needs_no_curves():
    plan = allocated("80%")
    assert EvenShare.of(replace(plan, curves=None)) == EvenShare.of(plan)
