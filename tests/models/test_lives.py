"""Special layers in situations that single forwards do not reach."""

import gc

import numpy as np
import pytest
import torch
from plans import plan_of
from transformers import DynamicCache
from zoo import build

from kvbudget.allocator import InfeasibleBudget, KVBudgetError
from kvbudget.heuristics import ObservationWindow
from kvbudget.runtime import Global, budgeted, geometry_of

HEURISTIC = ObservationWindow(window=8, kernel=3)


def uneven(geometry, seed):
    """Capacities from 10 to 39 tokens."""
    return np.random.default_rng(seed).integers(10, 40, (geometry.layers, geometry.kv_heads))


def words(tokens, rows=1, seed=0):
    """Token ids, [rows, tokens]."""
    return torch.randint(3, 90, (rows, tokens), generator=torch.Generator().manual_seed(seed))


def storage_bytes_behind(cache):
    """Bytes of all tensors that the layers of a cache lead to, the model's own left out."""
    found, seen, waiting = {}, set(), [cache.stack]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, (torch.nn.Module, type)):
            continue
        seen.add(id(each))
        if isinstance(each, torch.Tensor):
            storage = each.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
        elif isinstance(each, (dict, list, tuple)) or type(each).__module__.startswith("kvbudget"):
            waiting.extend(gc.get_referents(each))
    return sum(found.values())


@torch.inference_mode()
@pytest.mark.parametrize(
    "name", ["LlamaForCausalLM", "DeepseekV3ForCausalLM", "DiffLlamaForCausalLM"]
)
def test_nothing_is_kept_besides_what_is_counted(name):
    model = build(name)
    with budgeted(model, plan_of(geometry_of(model), 20), HEURISTIC) as cache:
        for step in (500, 1, 1, 3, 1):
            model(input_ids=words(step), past_key_values=cache)
            # some numbers of no size, such as capacities, are not worth counting
            assert storage_bytes_behind(cache) <= cache.nbytes(overhead=True) + 2000


@torch.inference_mode()
def test_long_blocks_have_sinks_of_their_own_queries():
    model = build("Inkling2ForCausalLM")
    plan = plan_of(geometry_of(model), 400)
    tokens = words(305)
    plain = DynamicCache(config=model.config.get_text_config(decoder=True))
    model(input_ids=tokens[:, :5], past_key_values=plain)
    wanted = model(input_ids=tokens[:, 5:], past_key_values=plain).logits
    with budgeted(model, plan, HEURISTIC) as cache:
        model(input_ids=tokens[:, :5], past_key_values=cache)
        found = model(input_ids=tokens[:, 5:], past_key_values=cache).logits
    torch.testing.assert_close(found, wanted, atol=5e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("seed", range(3))
def test_a_division_that_is_forgotten_takes_its_memory_layout_along(seed):
    model = build("LlamaForCausalLM")
    plan = plan_of(geometry_of(model), uneven(geometry_of(model), seed))
    with budgeted(model, plan, HEURISTIC, adapt=Global()) as cache:
        model(input_ids=words(90), past_key_values=cache)
        cache.crop(-85)
        for step in (30, 1, 1):
            model(input_ids=words(step), past_key_values=cache)
            assert cache.nbytes() <= plan.budget_bytes


@torch.inference_mode()
def test_a_refused_repeat_leaves_a_divided_cache_usable():
    model = build("LlamaForCausalLM")
    plan = plan_of(geometry_of(model), uneven(geometry_of(model), 0))
    with budgeted(model, plan, HEURISTIC, adapt=Global()) as cache:
        model(input_ids=words(90), past_key_values=cache)
        before = cache.kept_positions(0)
        with pytest.raises(InfeasibleBudget):
            cache.batch_repeat_interleave(2)
        assert all(map(torch.equal, before[0], cache.kept_positions(0)[0]))
        for step in range(40):
            model(input_ids=words(1, seed=step), past_key_values=cache)


@torch.inference_mode()
def test_an_interrupted_shrink_ends_within_the_new_budget(monkeypatch):
    model = build("LlamaForCausalLM")
    large, small = (plan_of(geometry_of(model), tokens) for tokens in (60, 20))
    with budgeted(model, large, HEURISTIC) as cache:
        model(input_ids=words(100), past_key_values=cache)

        def interrupt(*_):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(type(cache.stack.layers[1]), "shrink_to", interrupt)
            with pytest.raises(KeyboardInterrupt):
                cache.shrink(small)
        with pytest.raises(KVBudgetError, match="reset"):
            model(input_ids=words(1), past_key_values=cache)
        cache.reset()
        model(input_ids=words(100), past_key_values=cache)
        assert cache.nbytes() <= cache.plan.budget_bytes == small.budget_bytes


@torch.inference_mode()
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "DeepseekV3ForCausalLM"])
def test_a_prompt_that_fits_to_the_last_token_is_kept_whole(name):
    model = build(name)
    geometry = geometry_of(model)
    with budgeted(model, plan_of(geometry, 40), HEURISTIC) as cache:
        model(input_ids=words(40), past_key_values=cache)
        for layer in range(geometry.layers):
            assert len(cache.kept_positions(layer)[0][0]) == 40


@torch.inference_mode()
def test_latent_tokens_that_were_just_read_survive_two_cuts():
    model = build("DeepseekV3ForCausalLM")
    plans = [plan_of(geometry_of(model), tokens) for tokens in (120, 100, 60)]
    with budgeted(model, plans[0], HEURISTIC) as cache:
        model(input_ids=words(150), past_key_values=cache)
        for step in range(20):
            model(input_ids=words(1, seed=step), past_key_values=cache)
        cache.shrink(plans[1])
        newest = cache.kept_positions(0)[0][0][-20:]
        cache.shrink(plans[2])
        assert torch.equal(cache.kept_positions(0)[0][0][-20:], newest)


@torch.inference_mode()
@pytest.mark.parametrize("rows", [torch.tensor([2, 0]), torch.tensor([True, False, True])])
@pytest.mark.parametrize("name", ["LlamaForCausalLM", "JambaForCausalLM"])
def test_rows_are_selected_in_every_kind_of_layer(name, rows):
    model = build(name)
    tokens = words(60, rows=3)
    kept = rows.nonzero().flatten() if rows.dtype == torch.bool else rows
    with budgeted(model, plan_of(geometry_of(model), 30, batch=3), HEURISTIC) as cache:
        model(input_ids=tokens[:, :50], past_key_values=cache)
        cache.batch_select_indices(rows)
        found = model(input_ids=tokens[kept, 50:51], past_key_values=cache).logits
        cache.reset()
        model(input_ids=tokens[kept, :50], past_key_values=cache)
        wanted = model(input_ids=tokens[kept, 50:51], past_key_values=cache).logits
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def test_a_model_switched_to_training_inside_the_context_is_in_training_afterwards():
    model = build("GPTJForCausalLM")
    with budgeted(model, plan_of(geometry_of(model), 40), HEURISTIC) as cache:
        model(input_ids=words(10), past_key_values=cache)
        model.train()
    assert all(module.training for module in model.modules())
