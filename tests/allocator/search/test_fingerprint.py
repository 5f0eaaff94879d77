"""What tells one study from another."""

from dataclasses import replace

import numpy as np

from kvbudget.allocator import Problem, Profile, WorstSample
from kvbudget.allocator.search import LayerGroups, PriceAndGroups
from kvbudget.allocator.search.fingerprint import fingerprint, origin_text


def test_equal_searches_have_equal_fingerprints(deep: Problem) -> None:
    copy = Problem(deep.loss.copy(), deep.cost_bytes, deep.budget_bytes, origin=deep.origin)
    one, other = (fingerprint(each, PriceAndGroups(), "loss") for each in (deep, copy))
    assert one == other
    assert len(one) == 64


def test_everything_that_values_depend_on_changes_the_fingerprint(deep: Problem) -> None:
    assert deep.origin is not None
    samples = np.stack([deep.loss, deep.loss])
    risky = replace(deep, sample_loss=samples, risk=WorstSample())
    changes = [
        (deep, PriceAndGroups(), "loss"),
        (replace(deep, loss=deep.loss * 1.5), PriceAndGroups(), "loss"),
        (replace(deep, cost_bytes=deep.cost_bytes + 1), PriceAndGroups(), "loss"),
        (replace(deep, budget_bytes=deep.budget_bytes + 1), PriceAndGroups(), "loss"),
        (risky, PriceAndGroups(), "loss"),
        (replace(risky, sample_loss=samples * [[[1.0]], [[2.0]]]), PriceAndGroups(), "loss"),
        (replace(deep, origin=None), PriceAndGroups(), "loss"),
        (replace(deep, origin=replace(deep.origin, model="other")), PriceAndGroups(), "loss"),
        (replace(deep, origin=replace(deep.origin, context_tokens=121)), PriceAndGroups(), "loss"),
        (deep, PriceAndGroups(groups=3), "loss"),
        (deep, LayerGroups(), "loss"),
        (deep, PriceAndGroups(), "bytes and loss"),
    ]
    assert len({fingerprint(*each) for each in changes}) == len(changes)


def test_studies_of_equal_layers_are_told_apart_as_ever(
    problem: Problem, unequal_profile: Profile
) -> None:
    assert "windows=(None, 16, None))" in origin_text(problem)
    unequal = Problem.from_profile(unequal_profile, budget="50%", context_tokens=100)
    assert "layer_shapes=(CacheShape(kv_heads=3" in origin_text(unequal)
