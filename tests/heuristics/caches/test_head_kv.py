"""The needle score of HeadKV, against the rule written with sorting."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, HeadKV, LayerView

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]
SOURCE = torch.tensor([-1] * 16 + [3, 4, 5, 6])


@pytest.mark.parametrize(
    ("padding", "needles"), [((0, 0), (4, 4)), ((0, 3), (4, 4)), ((2, 4), (4, 3))]
)
def test_importance_is_the_attention_to_needle_tokens_among_the_most_attended(
    padding: tuple[int, int],
    needles: tuple[int, int],
    make_cache_view: MakeCacheView,
    dense_attention: Oracle,
) -> None:
    view = replace(make_cache_view(tokens=20, padding=padding, group=3), copied_from=SOURCE)
    attention = dense_attention(view.layer)
    heads = []
    for head in range(6):
        hits = []
        for row, size in enumerate(needles):
            needle = set(range(7 - size, 7))
            for token in range(16 + 4 - size, 19):
                shares = attention[row, head, token].tolist()
                most = sorted(range(20), key=lambda place: -shares[place])[:size]
                hits.append(sum(shares[place] for place in most if place in needle))
        heads.append(sum(hits) / len(hits))
    wanted = [sum(heads[:3]) / 3, sum(heads[3:]) / 3]
    assert HeadKV().importance(view).tolist() == pytest.approx(wanted, rel=1e-4)
    assert min(wanted) > 0


def test_a_head_that_spreads_over_everything_else_gets_nothing(
    make_cache_view: MakeCacheView,
) -> None:
    view = replace(make_cache_view(tokens=20, padding=(0, 0), group=1), copied_from=SOURCE)
    queries = torch.ones_like(view.layer.queries)
    keys = torch.zeros_like(view.layer.keys)
    keys[:, 0, 3:7] = -0.1  # a little less than all others: never among the most attended
    keys[:, 1, 3:7] = 9.0
    found = HeadKV().importance(
        replace(view, layer=replace(view.layer, queries=queries, keys=keys))
    )
    assert found.tolist() == pytest.approx([0.0, 1.0], abs=1e-6)


def test_the_probe_hides_one_needle_in_the_prompt() -> None:
    prompt = list(range(1000, 1200))
    probe = HeadKV().probe(prompt, 900, random.Random(5))
    assert len(probe.tokens) == 200
    needle = [token for token in probe.tokens[:168] if token < 1000]
    assert len(needle) == 32
    assert list(probe.tokens[168:]) == needle
    assert probe == HeadKV().probe(prompt, 900, random.Random(5))
    assert probe != HeadKV().probe(prompt, 900, random.Random(6))
    assert HeadKV().probe(prompt[:40], 900, random.Random(5)).copied_from.count(-1) == 30


def test_a_needle_of_one_token_is_refused() -> None:
    with pytest.raises(ValueError, match="`needle_tokens` must be at least 2"):
        HeadKV(needle_tokens=1)
