"""While a prompt is read, the full keys, values and queries of one layer live at a time."""

from dataclasses import dataclass, field

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from kvbudget.heuristics import KeyNorm, LayerView, TokenHeuristic
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
