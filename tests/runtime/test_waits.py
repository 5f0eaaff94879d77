"""Between evictions a decoded token reads nothing on the host, which on a GPU would wait for it.

Shown on fake tensors, which hold no numbers: whatever would look at one fails.
"""

import copy

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from kvbudget import heuristics
from kvbudget.runtime import budgeted, geometry_of
from kvbudget.runtime.attention_call import AttentionCall, LogitRules
from kvbudget.runtime.eviction import SHORTEST_TAIL

PROMPT = 60


@pytest.fixture
def as_fake(monkeypatch):
    """Copies an object, with a tensor that holds nothing in the place of each of its tensors."""
    mode = FakeTensorMode()

    def fake(tensor, memo):
        with mode:
            twin = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        return memo.setdefault(id(tensor), twin)

    def as_fake(whole):
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "__deepcopy__", fake)
            return copy.deepcopy(whole)

    as_fake.mode = mode
    return as_fake


def decode(layer, model):
    heads, kv_heads = model.config.num_attention_heads, model.config.num_key_value_heads
    counts = (heads, kv_heads, kv_heads)
    queries, *tokens = (torch.zeros(1, n, 1, model.config.head_dim) for n in counts)
    layer.admit(*tokens)
    call = AttentionCall(nn.Module(), queries, *tokens, None, LogitRules(0.25))
    return layer.attend(call)


@pytest.mark.parametrize("name", ["sink_recent", "heavy_hitter", "observation_window"])
@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "MistralForCausalLM"])
@torch.no_grad()
def test_a_token_that_fits_the_tail_reads_nothing(
    model_of, plan_for, random_capacity, as_fake, architecture, name
):
    model = model_of(architecture)
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 16, 19), 2 * PROMPT)
    with budgeted(model, plan, heuristics.get(name)()) as cache:
        prompt = torch.arange(3, 3 + PROMPT)[None]
        model(prompt, past_key_values=cache)
        model(prompt[:, :1], past_key_values=cache)  # evicts, and looks at what it left
        layers = as_fake(cache.stack.layers)
        with as_fake.mode:
            for layer in layers:
                assert layer.store.free_tail >= SHORTEST_TAIL - 1
                for _ in range(layer.store.free_tail):
                    assert decode(layer, model).shape[:2] == (1, 1)
            with pytest.raises(DataDependentOutputException):
                # the next one needs room, for which the host has to count
                decode(layers[0], model)
