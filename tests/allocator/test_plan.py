from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import Plan


def test_its_numbers_follow_from_its_capacities(plan: Plan) -> None:
    per_token = plan.geometry.bytes_per_token
    assert plan.used_bytes == int(plan.capacity_tokens.sum()) * per_token * 2
    assert plan.used_bytes <= plan.budget_bytes
    assert np.array_equal(plan.kept_fraction, plan.capacity_tokens / 100)
    assert (plan.loss, plan.bound, plan.gap) == (
        plan.certificate.loss,
        plan.certificate.bound,
        plan.certificate.gap,
    )


def test_a_sliding_layer_keeps_at_most_its_window(plan: Plan) -> None:
    assert (plan.capacity_tokens[1] <= 16).all()


def test_plans_compare_by_content(plan: Plan) -> None:
    assert replace(plan) == plan
    assert replace(plan, model="another") != plan
    assert replace(plan, capacity_tokens=np.ones((3, 2), dtype=int)) != plan
    assert plan != "plan"


def test_capacities_are_a_read_only_copy(plan: Plan) -> None:
    with pytest.raises(ValueError, match="read-only"):
        plan.capacity_tokens[0, 0] = 1


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"capacity_tokens": np.ones((2, 2))}, ValueError, "[layers, kv_heads] = (3, 2)"),
        ({"capacity_tokens": np.ones(6)}, ValueError, "the shape [layers, kv_heads]"),
        (
            {"capacity_tokens": np.zeros((3, 2))},
            ValueError,
            "must be in 1..100, but got 0 at layer",
        ),
        ({"capacity_tokens": np.full((3, 2), 101)}, ValueError, "must be in 1..100, but got 101"),
        ({"capacity_tokens": np.full((3, 2), 1.5)}, ValueError, "must be whole numbers"),
        ({"capacity_tokens": np.full((3, 2), 100)}, ValueError, "must fit `budget_bytes`"),
        ({"budget_bytes": 3}, ValueError, "must fit `budget_bytes`"),
        ({"budget_bytes": 0}, ValueError, "`budget_bytes` must be at least 1"),
        ({"batch_size": True}, TypeError, "`batch_size` must be an integer"),
        ({"context_tokens": 0}, ValueError, "`context_tokens` must be at least 1"),
        ({"certificate": None}, TypeError, "`certificate` must be a Certificate"),
        ({"geometry": None}, TypeError, "`geometry` must be a Geometry"),
        ({"measure": 1}, TypeError, "`measure` must be a string"),
        ({"heuristic_settings": 1}, TypeError, "`heuristic_settings` must be"),
    ],
)
def test_a_bad_field_is_refused(
    plan: Plan, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        replace(plan, **changes)
    assert message in str(caught.value)


def test_a_plan_may_use_exactly_its_budget(plan: Plan) -> None:
    assert replace(plan, budget_bytes=plan.used_bytes).budget_bytes == plan.used_bytes
    with pytest.raises(ValueError, match="must fit"):
        replace(plan, budget_bytes=plan.used_bytes - 1)


def test_it_reads_well(plan: Plan) -> None:
    text = str(plan)
    assert "Plan for tests/tiny: LlamaForCausalLM (3 layers x 2 KV heads" in text
    assert "budget (full cache: 20.2 KiB, batch size 2)" in text
    assert "of 100 tokens," in text
    assert "found by Hull (output_error)" in text
    assert "observation_window(window=32, kernel=7)" in text
    assert len(text.splitlines()) < 10
