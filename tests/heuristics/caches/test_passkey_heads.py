"""What streaming caches change at passkeys, against dense attention."""

import random
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import CacheView, LayerView, PasskeyHeads

MakeCacheView = Callable[..., CacheView]
Oracle = Callable[[LayerView], Tensor]
Streaming = Callable[[LayerView, int, int], Tensor]
SOURCE = torch.tensor([-1] * 32 + [12, 13, 14, 15, 6, 7, 8, 9])
LOOKUPS = (32, 33, 34, 36, 37, 38)


def test_importance_equals_the_formula_written_with_loops(
    make_cache_view: MakeCacheView, dense_attention: Oracle, dense_streaming: Streaming
) -> None:
    view = replace(make_cache_view(tokens=40, padding=(0, 7), group=3), copied_from=SOURCE)
    layer, weight = view.layer, view.output_weight.double()
    values = layer.values.double().nan_to_num(0.0)
    full, small = dense_attention(layer), dense_streaming(layer, 2, 3)
    wanted = [0.0, 0.0]
    rows = [(0, token) for token in LOOKUPS] + [(1, 32), (1, 33), (1, 34), (1, 37), (1, 38)]
    for row, token in rows:
        after = view.residual[row, token].double()
        for head in range(6):
            after = after + full[row, head, token] @ values[row, head // 3] @ weight[head]
        for kv_head in range(2):
            change = torch.zeros_like(after)
            for head in range(3 * kv_head, 3 * kv_head + 3):
                lost = full[row, head, token] - small[row, head, token]
                change += lost @ values[row, kv_head] @ weight[head]
            wanted[kv_head] += float(change @ change / (after @ after)) / len(rows)
    rule = PasskeyHeads(sink_tokens=2, recent_tokens=3)
    assert rule.importance(view).tolist() == pytest.approx(wanted, rel=1e-4)


def test_other_tokens_do_not_count(make_cache_view: MakeCacheView) -> None:
    view = replace(make_cache_view(tokens=40, padding=(0, 0)), copied_from=SOURCE)
    queries = view.layer.queries.clone()
    rest = [token for token in range(40) if token not in LOOKUPS]
    queries[:, :, rest] += 1.0
    other = replace(view, layer=replace(view.layer, queries=queries))
    assert torch.equal(PasskeyHeads().importance(other), PasskeyHeads().importance(view))


def test_query_heads_that_cancel_each_other_lose_nothing(make_cache_view: MakeCacheView) -> None:
    view = replace(make_cache_view(tokens=40, padding=(0, 0), group=2), copied_from=SOURCE)
    queries, weight = view.layer.queries.clone(), view.output_weight.clone()
    queries[:, 1], weight[1] = queries[:, 0], -weight[0]
    view = replace(view, layer=replace(view.layer, queries=queries), output_weight=weight)
    found = PasskeyHeads().importance(view)
    assert found[0].item() == pytest.approx(0.0, abs=1e-10)
    assert found[1].item() > 1e-3


def test_the_probe_hides_as_many_passkeys_as_fit_and_repeats_them() -> None:
    prompt = list(range(1000, 2024))
    rule = PasskeyHeads()
    probe = rule.probe(prompt, 600, random.Random(0))
    assert len(probe.tokens) == 1024
    passkeys = [token for token in probe.tokens[:768] if token < 1000]
    assert len(set(passkeys)) == 8 * 32
    assert sorted(probe.tokens[768:]) == sorted(passkeys)
    assert [source >= 0 for source in probe.copied_from] == [False] * 768 + [True] * 256
    assert probe == rule.probe(prompt, 600, random.Random(0))
    assert probe != rule.probe(prompt, 600, random.Random(1))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"passkeys": 0}, "passkeys"),
        ({"passkey_tokens": 1}, "passkey_tokens"),
        ({"sink_tokens": -1}, "sink_tokens"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least .*, but got {name}="):
        PasskeyHeads(**settings)
