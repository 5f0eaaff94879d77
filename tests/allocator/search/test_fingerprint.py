"""What tells one study from another."""

from dataclasses import replace

import numpy as np

from kvbudget.allocator import Problem, WorstSample
from kvbudget.allocator.search import LayerGroups, PriceAndGroups
from kvbudget.allocator.search.fingerprint import fingerprint


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
