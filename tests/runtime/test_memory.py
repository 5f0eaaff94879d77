"""While a prompt is read, the full keys, values and queries of one layer live at a time."""

from dataclasses import dataclass, field

import numpy as np
import torch
import transformers
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kvbudget.heuristics import KeyNorm, LayerView, SinkRecent, TokenHeuristic
from kvbudget.runtime import budgeted, geometry_of


@dataclass
class Spy(TokenHeuristic):
    """Scores like `KeyNorm` and remembers what it was shown, without keeping it alive."""

    shown: list[list[StorageWeakRef]] = field(default_factory=list)
    alive: list[int] = field(default_factory=list)

    def score(self, view: LayerView) -> torch.Tensor:
        earlier = [storage for layer in self.shown for storage in layer]
        self.alive.append(sum(not storage.expired() for storage in earlier))
        tensors = (view.keys, view.values, view.queries)
        self.shown.append([StorageWeakRef(tensor.untyped_storage()) for tensor in tensors])
        return KeyNorm().score(view)


def test_a_layer_is_cut_and_freed_before_the_next_one_is_computed(
    model_of, plan_for, random_capacity
):
    model = model_of("LlamaForCausalLM")
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 8, 20), 64)
    spy = Spy()
    with budgeted(model, plan, spy) as cache, torch.inference_mode():
        model(torch.arange(3, 67)[None], past_key_values=cache, logits_to_keep=1)
        assert cache.nbytes() == plan.budget_bytes
    assert spy.alive == [0] * geometry.layers


def test_nothing_of_the_prompt_outlives_its_forward(model_of, plan_for, random_capacity):
    model = model_of("LlamaForCausalLM")
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 8, 20), 64)
    spy = Spy()
    with budgeted(model, plan, spy) as cache, torch.inference_mode():
        model(torch.arange(3, 67)[None], past_key_values=cache, logits_to_keep=1)
        assert all(storage.expired() for layer in spy.shown for storage in layer)
        assert cache.get_seq_length() == 64


class LiveBytes(TorchDispatchMode):
    """Watches how many bytes live at once of what is computed while it is on."""

    def __init__(self) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._live: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._live[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        self._live = {key: pair for key, pair in self._live.items() if not pair[0].expired()}
        self.peak_bytes = max(self.peak_bytes, sum(size for _, size in self._live.values()))
        return result


def deep_model(layers: int) -> transformers.LlamaForCausalLM:
    """Keys and values outweigh everything else that a forward computes."""
    config = transformers.LlamaConfig(
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=8,
        head_dim=32,
        eos_token_id=None,
    )
    return transformers.LlamaForCausalLM(config).eval()


@torch.inference_mode()
def test_the_peak_of_a_prompt_is_the_budget_and_one_layer_however_many_there_are(plan_for):
    peaks = []
    for layers in (2, 6):
        model = deep_model(layers)
        geometry = geometry_of(model)
        plan = plan_for(geometry, np.full((layers, 8), 16), 128)
        with budgeted(model, plan, KeyNorm()) as cache:
            live = LiveBytes()
            with live:
                model(torch.arange(128)[None] % 32, past_key_values=cache, logits_to_keep=1)
            peaks.append(live.peak_bytes - plan.budget_bytes)
            assert cache.nbytes() == plan.budget_bytes
            # column and row of what is kept, and where each segment lies
            beside = cache.nbytes(overhead=True) - cache.nbytes()
            assert beside <= 6 * 8 * 16 * (4 + 4) + 6 * 8 * (9 + 8)
    one_layer = geometry.full_bytes(128) // 6
    assert peaks[1] - peaks[0] <= one_layer // 8
    assert peaks[1] <= 4.5 * one_layer


@torch.inference_mode()
def test_a_change_of_capacities_moves_one_layer_at_a_time(plan_for):
    """From even shares to capacities: beside the memory there is never more than one layer."""
    model = deep_model(6)
    geometry = geometry_of(model)
    capacity = np.arange(48).reshape(6, 8)[::-1] * 2 + 54
    plan = plan_for(geometry, capacity, 160)
    tokens = torch.arange(160)[None] % 32
    with budgeted(model, plan, SinkRecent()) as cache:
        model(tokens[:, :100], past_key_values=cache, logits_to_keep=1)
        first = [cache.kept_positions(layer) for layer in range(6)]
        assert all(len(columns) == 100 for layer in first for columns in layer[0])
        live = LiveBytes()
        with live:
            cache.stack.expect(1, 30)
        assert all(len(cache.kept_positions(0)[0][head]) <= 100 for head in range(8))
        assert live.peak_bytes - cache.nbytes() <= geometry.full_bytes(100) / 6
        assert cache.nbytes() <= plan.budget_bytes
