"""Adapters stand in for attention modules without a trace."""

import copy

import pytest
import torch

from kvbudget.runtime.adapters import Adapter
from kvbudget.runtime.anatomy import attention_modules
from kvbudget.runtime.hf import attention_switched

IDS = torch.arange(3, 23)[None]


def names_and_places(model):
    """Every parameter, buffer and module by name, as identities."""
    parts = [*model.named_parameters(), *model.named_buffers(), *model.named_modules()]
    return [(name, id(part)) for name, part in parts]


def adapters(model):
    return [module for module in model.modules() if isinstance(module, Adapter)]


def test_the_context_leaves_every_part_where_it_was(adapted_model):
    before, keys = names_and_places(adapted_model), list(adapted_model.state_dict())
    with attention_switched(adapted_model):
        assert len(adapters(adapted_model)) == 3
        assert list(adapted_model.state_dict()) == keys
    assert names_and_places(adapted_model) == before
    assert list(adapted_model.state_dict()) == keys


def test_parameters_are_shared_not_copied(adapted_model):
    before = {name: id(parameter) for name, parameter in adapted_model.named_parameters()}
    with attention_switched(adapted_model):
        inside = {name: id(parameter) for name, parameter in adapted_model.named_parameters()}
    assert inside == before


def test_an_exception_takes_the_adapters_out(adapted_model):
    with pytest.raises(RuntimeError, match="stop"), attention_switched(adapted_model):
        raise RuntimeError("stop")
    assert not adapters(adapted_model)


def test_contexts_may_overlap(adapted):
    model = adapted("gpt-j")
    first, second = attention_switched(model), attention_switched(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert len(adapters(model)) == 3
    second.__exit__(None, None, None)
    assert not adapters(model)


@torch.inference_mode()
def test_hooks_of_the_parts_and_of_the_layers_work_inside(adapted_model):
    called = []
    module = attention_modules(adapted_model)[0][1]
    projections = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    hooks = [part.register_forward_hook(lambda *_: called.append(1)) for part in projections]
    adapted_model(IDS)
    outside = len(called)
    with attention_switched(adapted_model):
        adapted_model(IDS)
    assert len(called) == 2 * outside > 0
    for hook in hooks:
        hook.remove()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_without_a_cache_are_the_models_own(adapted_model, dtype):
    model = copy.deepcopy(adapted_model).to(dtype)
    plain = model(IDS, use_cache=False).logits
    with attention_switched(model):
        ours = model(IDS, use_cache=False).logits
    assert ours.dtype == dtype
    tolerance = 1e-5 if dtype == torch.float32 else 0.05 * float(plain.abs().max())
    torch.testing.assert_close(ours, plain, atol=tolerance, rtol=0)


def test_gradients_flow_through_the_adapters(adapted_model):
    adapted_model(IDS, use_cache=False, labels=IDS).loss.backward()
    plain = {name: each.grad for name, each in adapted_model.named_parameters()}
    adapted_model.zero_grad()
    with attention_switched(adapted_model):
        adapted_model(IDS, use_cache=False, labels=IDS).loss.backward()
    for name, parameter in adapted_model.named_parameters():
        if plain[name] is not None:
            torch.testing.assert_close(parameter.grad, plain[name], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["bloom", "gpt-j"])
def test_an_adapter_trains_when_its_module_does(adapted, name):
    model = adapted(name).train()
    with attention_switched(model):
        assert all(adapter.training for adapter in adapters(model))
    with attention_switched(model.eval()):
        assert not any(adapter.training for adapter in adapters(model))
