"""The parts of a plan are the plan, and fit its budget and its limits."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kvbudget as kvb
from kvbudget.allocator import CacheShape, Certificate, Geometry, Plan
from kvbudget.runtime.even_share import EvenShare
from kvbudget.runtime.head_split import WHOLE, HeadSplit
from kvbudget.runtime.plan_part import part_of

CONTEXT = 60


@st.composite
def plans(draw):
    """A plan by hand and a number of processes; layers may differ in their heads."""
    parts = draw(st.integers(2, 4))
    shapes = [
        CacheShape(
            parts * draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 9))
        )
        for _ in range(draw(st.integers(1, 4)))
    ]
    geometry = Geometry.of_layers("Any", shapes, "float16", (None,) * len(shapes))
    seed = draw(st.integers(0, 99))
    capacity = np.random.default_rng(seed).integers(1, CONTEXT, geometry.present.shape)
    capacity = np.where(geometry.present, capacity, 0)
    batch_size = draw(st.integers(1, 3))
    used = int((capacity * geometry.token_bytes).sum()) * batch_size
    plan = Plan(
        capacity_tokens=capacity,
        context_tokens=CONTEXT,
        batch_size=batch_size,
        budget_bytes=used + draw(st.integers(0, 2 * used)),
        certificate=Certificate("by hand", "FEASIBLE", 1.0, 0.0, 1.0),
        geometry=geometry,
        model="",
        heuristic="",
        heuristic_settings=(),
        measure="none",
    )
    return plan, [part_of(plan, HeadSplit(part, parts)) for part in range(parts)]


@given(plans())
def test_the_parts_side_by_side_are_the_plan(given_plans):
    plan, parts = given_plans
    for layer, shape in enumerate(plan.geometry.shapes):
        rows = [
            part.capacity_tokens[layer, : part.geometry.shape_of(layer).kv_heads] for part in parts
        ]
        assert (
            np.concatenate(rows).tolist() == plan.capacity_tokens[layer, : shape.kv_heads].tolist()
        )
    assert sum(part.used_bytes for part in parts) == plan.used_bytes
    assert sum(part.geometry.caches for part in parts) == plan.geometry.caches


@given(plans())
def test_the_parts_fit_the_budget_together_and_waste_none(given_plans):
    plan, parts = given_plans
    assert sum(part.budget_bytes for part in parts) <= plan.budget_bytes
    for part in parts:
        useful = EvenShare.of(plan).tokens(1) * int(part.geometry.token_bytes.sum())
        assert part.used_bytes <= part.budget_bytes
        even_part = (plan.budget_bytes - plan.used_bytes) // len(parts)
        assert part.budget_bytes == min(part.used_bytes + even_part, max(part.used_bytes, useful))


def limited(budget, limits, risk=None):
    geometry = Geometry("Any", 3, 4, 8, 8, "float16", (None,) * 3)
    importance = np.random.default_rng(5).lognormal(sigma=1.5, size=(3, 4))
    profile = kvb.Profile.from_importance(importance, geometry)
    arguments = {} if risk is None else {"risk": risk}
    return kvb.allocate(
        profile, budget=budget, context_tokens=CONTEXT, constraints=limits, **arguments
    )


LIMITS = tuple(
    kvb.constraints.ByteLimit(share, kv_heads=heads)
    for share, heads in (("45%", range(2)), ("15%", range(2, 4)))
)


@pytest.mark.parametrize("budget", ["25%", "60%", "100%"])
@pytest.mark.parametrize("knows_limits", [True, False])
def test_a_part_is_within_the_limit_of_its_process(budget, knows_limits):
    plan = limited(budget, LIMITS)
    if not knows_limits:
        plan = replace(plan, curves=None)
    half = plan.geometry.full_bytes(CONTEXT) // 2
    for part, share in enumerate((0.45, 0.15)):
        ours = part_of(plan, HeadSplit(part, 2))
        assert ours.used_bytes <= ours.budget_bytes <= half * share
        assert EvenShare.of(ours).tokens(1) * int(ours.geometry.token_bytes.sum()) <= half * share


def test_a_part_keeps_the_curves_of_its_heads():
    plan = limited("50%", ())
    second = part_of(plan, HeadSplit(1, 2))
    assert second.curves.loss.tolist() == plan.curves.loss[:, 2:].tolist()
    assert part_of(replace(plan, curves=None), HeadSplit(1, 2)).curves is None


def test_the_part_of_a_whole_model_is_the_plan():
    plan = limited("50%", LIMITS)
    assert part_of(plan, WHOLE) is plan
