"""What is taken down while a model generates is what the storages hold."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

import kvbudget as kvb
from kvbudget.pictures import MemoryWatch


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        eos_token_id=None,
    )
    return LlamaForCausalLM(config).eval()


def generate(model, cache, watch, rows=1):
    ids = torch.randint(0, 64, (rows, 20))
    return model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        past_key_values=cache,
        max_new_tokens=12,
        do_sample=False,
        pad_token_id=0,
        stopping_criteria=[watch],
    )


def test_the_full_cache_grows_by_a_token_a_step_and_nothing_is_stopped(model):
    cache = DynamicCache()
    held = lambda: sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)  # noqa: E731
    watch = MemoryWatch(held)
    assert generate(model, cache, watch, rows=2).shape == (2, 32)
    trace = watch.trace("full cache")
    assert trace.tokens == tuple(range(20, 32))
    full = kvb.geometry_of(model).full_bytes
    assert trace.held_bytes == tuple(full(tokens, batch_size=2) for tokens in trace.tokens)
    assert trace.budget_bytes is None


def test_a_budgeted_cache_never_holds_more_than_it_may(model):
    geometry = kvb.geometry_of(model)
    profile = kvb.Profile.from_importance([[1, 2], [3, 4]], geometry, heuristic="sink_recent")
    plan = kvb.allocate(profile, budget="30%", context_tokens=32)
    with kvb.budgeted(model, plan) as cache:
        watch = MemoryWatch(cache.nbytes)
        generate(model, cache, watch)
        last = cache.nbytes()
    trace = watch.trace("30%", plan.budget_bytes)
    assert len(trace.tokens) == 12
    assert 0 < max(trace.held_bytes) <= plan.budget_bytes
    assert trace.held_bytes[-1] == last


def test_the_watch_stops_nothing_in_any_row():
    held = iter((5, 9))
    watch = MemoryWatch(lambda: next(held))
    for tokens in (8, 9):
        stop = watch(torch.zeros(3, tokens, dtype=torch.long), None)
        assert (stop.dtype, stop.tolist()) == (torch.bool, [False] * 3)
    trace = watch.trace("a", 20)
    assert (trace.tokens, trace.held_bytes, trace.budget_bytes) == ((7, 8), (5, 9), 20)


def test_a_watch_that_saw_nothing_says_what_to_do():
    with pytest.raises(ValueError, match=r"stopping_criteria=\[watch\]"):
        MemoryWatch(lambda: 0).trace("a")
