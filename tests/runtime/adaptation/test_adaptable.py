"""Which plans may be divided anew."""

from dataclasses import replace

import numpy as np
import pytest

from kvbudget.allocator import CacheShape, Geometry, Plan, Profile, allocate
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import ByteLimit, LeastTokens
from kvbudget.runtime.adaptation import Global, WithinLayer
from kvbudget.runtime.adaptation.adaptable import check_adaptable

SHAPES = (CacheShape(2, 4, 4), CacheShape(1, 8, 8))
IMPORTANCE = np.array([[1.0, 3.0], [4.0, 0.0]])


def a_plan(*constraints: Constraint) -> Plan:
    """A plan for a layer of two small caches and one of one large cache."""
    geometry = Geometry.of_layers("TinyForCausalLM", SHAPES, "float32", (None, None))
    profile = Profile.from_importance(IMPORTANCE, geometry, kept_fraction=[0.1, 0.5, 1.0])
    return allocate(profile, budget="50%", context_tokens=100, constraints=constraints)


@pytest.mark.parametrize("adaptation", [WithinLayer(), Global()])
def test_a_plan_without_limits_may_be_adapted(adaptation):
    for plan in (a_plan(), replace(a_plan(), curves=None)):
        assert check_adaptable(plan, adaptation) is None


@pytest.mark.parametrize("adaptation", [WithinLayer(), Global()])
@pytest.mark.parametrize("limit", [LeastTokens(20), ByteLimit("60%", kv_heads=(0,))])
def test_a_plan_with_limits_on_caches_is_refused(adaptation, limit):
    with pytest.raises(ValueError, match="was made with"):
        check_adaptable(a_plan(limit), adaptation)


def test_a_limit_on_whole_layers_holds_within_layers():
    plan = a_plan(ByteLimit("60%", layers=(1,)))
    check_adaptable(plan, WithinLayer())
    with pytest.raises(ValueError, match="would not keep"):
        check_adaptable(plan, Global())


@pytest.mark.parametrize("wrong", [WithinLayer, "global", 0.2])
def test_an_adaptation_must_be_one(wrong):
    with pytest.raises(TypeError, match="such as WithinLayer"):
        check_adaptable(a_plan(), wrong)
