"""A live cache goes over to another budget: memory is really given back, and attention is exact."""

import numpy as np
import pytest
import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from kvbudget.allocator import (
    InfeasibleBudget,
    KVBudgetError,
    Profile,
    WrongModel,
    solve_path,
)
from kvbudget.heuristics import HeavyHitter, KeyNorm
from kvbudget.runtime import budgeted, geometry_of

PROMPT, CONTEXT = 40, 120


@pytest.fixture(params=["LlamaForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM"])
def model(request, model_of):
    return model_of(request.param)


@pytest.fixture
def path(model):
    """All plans of a made-up profile."""
    return path_of(model)


def path_of(model, batch_size=1, seed=0):
    geometry, levels = geometry_of(model), np.array([0.05, 0.1, 0.2, 0.4, 0.7, 1.0])
    worth = np.random.default_rng(seed).random((geometry.layers, geometry.kv_heads, 1)) + 0.1
    loss = worth * (1 - levels) ** 2
    profile = Profile(
        loss=loss,
        sample_loss=loss[None],
        kept_fraction=levels,
        geometry=geometry,
        model="tiny",
        heuristic="key_norm",
        heuristic_settings=(),
        measure="made up",
    )
    return solve_path(profile, context_tokens=CONTEXT, batch_size=batch_size)


def tokens_of(rows=1, total=CONTEXT, seed=0):
    return torch.randint(3, 97, (rows, total), generator=torch.Generator().manual_seed(seed))


def storages(cache):
    """Bytes of every storage that a layer's keys and values are views of."""
    found = {}
    for layer in cache.stack.layers:
        store = layer.store
        for tensor in (store.keys, store.values, store.tail_keys, store.tail_values):
            storage = tensor.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return sum(found.values())


def held_columns(cache):
    return [cache.kept_positions(layer) for layer in range(len(cache.stack.layers))]


BUDGETS = ["60%", "25%", "15%", "40%", "30%", "80%"]


@torch.inference_mode()
def test_every_budget_of_a_path_holds_at_once_and_logits_stay_those_of_what_is_held(
    model, path, oracle
):
    tokens, ours, held, first = tokens_of(), [], [], 0
    with budgeted(model, path.plan("100%"), HeavyHitter()) as cache:
        for turn, budget in enumerate([None, *BUDGETS]):
            if budget is not None:
                plan = path.plan(budget)
                smaller = plan.budget_bytes < cache.plan.budget_bytes
                (cache.shrink if smaller else cache.grow)(plan)
                assert storages(cache) == cache.nbytes() <= plan.budget_bytes
                assert cache.plan is plan
                check_capacities(cache, plan)
            for new in [PROMPT] if turn == 0 else [1, 3, 1, 1, 1, 1, 1]:
                before = held_columns(cache) if first else []
                block = tokens[:, first : first + new]
                ours.append(model(block, past_key_values=cache).logits)
                held.append(before if new > 1 else held_columns(cache))
                first += new
                assert storages(cache) == cache.nbytes() <= cache.plan.budget_bytes
    with oracle.installed(model) as everything:
        first = 0
        for logits, columns in zip(ours, held, strict=True):
            oracle.held = columns
            end = first + logits.shape[1]
            theirs = model(tokens[:, first:end], past_key_values=everything).logits
            torch.testing.assert_close(logits, theirs, atol=1e-5, rtol=0)
            first = end


def check_capacities(cache, plan):
    """Every cache holds at most its capacity, unless everything fits."""
    fits = cache.stack._room.everything_fits(1, cache.get_seq_length())
    for layer in range(len(cache.stack.layers)):
        for head, columns in enumerate(cache.kept_positions(layer)[0]):
            assert fits or len(columns) <= plan.capacity_tokens[layer, head]


def test_a_budget_that_holds_everything_evicts_nothing(model, path):
    tokens = tokens_of(total=PROMPT)
    plain = model.generate(tokens, do_sample=False, max_new_tokens=20)
    sizes = iter(["90%", "95%", "85%"])

    class Rebudget(StoppingCriteria):
        def __call__(self, ids, scores, **_):
            if ids.shape[1] % 6 == 0 and (size := next(sizes, None)):
                plan = path.plan(size)
                shrinks = plan.budget_bytes <= cache.plan.budget_bytes
                (cache.shrink if shrinks else cache.grow)(plan)
                passed.append(size)
            return torch.zeros(1, dtype=torch.bool)

    passed = []
    with budgeted(model, path.plan("100%")) as cache:
        criteria = StoppingCriteriaList([Rebudget()])
        ours = model.generate(
            tokens,
            do_sample=False,
            max_new_tokens=20,
            past_key_values=cache,
            stopping_criteria=criteria,
        )
    assert passed == ["90%", "95%", "85%"]
    assert torch.equal(plain, ours)


def test_shrinking_a_batch_equals_having_had_the_smaller_plan(model_of):
    """Nothing was cut before, so the same tokens are chosen as by a plan that was small at once."""
    model, kept = model_of("LlamaForCausalLM"), []
    path = path_of(model, batch_size=2)
    with torch.inference_mode():
        for late in (False, True):
            with budgeted(model, path.plan("100%" if late else "20%"), KeyNorm()) as cache:
                model(tokens_of(2, PROMPT), past_key_values=cache)
                if late:
                    cache.shrink(path.plan("20%"))
                kept.append(held_columns(cache))
    for early, later in zip(*kept, strict=True):
        for one, other in zip(early, later, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_an_empty_cache_takes_over_a_plan(model, path):
    with torch.inference_mode(), budgeted(model, path.plan("100%")) as cache:
        cache.shrink(path.plan("25%"))
        model(tokens_of(total=100), past_key_values=cache)
        assert 0 < cache.nbytes() <= path.plan("25%").budget_bytes
        cache.reset()
        assert cache.nbytes() == 0
        cache.grow(path.plan("50%"))
        model(tokens_of(total=100), past_key_values=cache)
        assert cache.nbytes() > path.plan("25%").budget_bytes


def test_what_does_not_suit_the_cache_is_refused_and_changes_nothing(model_of):
    model = model_of("LlamaForCausalLM")
    path, other = path_of(model, 2), path_of(model_of("Gemma2ForCausalLM"))
    tokens = tokens_of(2, PROMPT + 1)
    with torch.inference_mode(), budgeted(model, path.plan("50%"), KeyNorm()) as cache:
        model(tokens[:, :PROMPT], past_key_values=cache)
        before, size = held_columns(cache), cache.nbytes()
        with pytest.raises(ValueError, match=r"at most .* bytes.*Use cache.grow\(plan\)"):
            cache.shrink(path.plan("60%"))
        with pytest.raises(ValueError, match=r"at least .* bytes.*Use cache.shrink\(plan\)"):
            cache.grow(path.plan("40%"))
        with pytest.raises(WrongModel, match="like the cache, but it was made for Gemma2"):
            cache.shrink(other.plan("20%"))
        with pytest.raises(TypeError, match="`plan` must be a Plan"):
            cache.grow("30%")
        with pytest.raises(InfeasibleBudget, match="Allocate with batch_size=2"):
            cache.shrink(path_of(model, 1).plan("20%"))
        assert cache.plan == path.plan("50%")
        assert (cache.nbytes(), str(held_columns(cache))) == (size, str(before))
        model(tokens[:, PROMPT:], past_key_values=cache)


def test_a_heuristic_that_fails_while_a_cache_shrinks_leaves_none_to_be_used(model_of):
    model = model_of("LlamaForCausalLM")
    path, calls = path_of(model), []

    class Failing(KeyNorm):
        def score(self, view):
            calls.append(view.layer)
            if view.layer == 1:
                raise RuntimeError("no scores")
            return super().score(view)

    with torch.inference_mode(), budgeted(model, path.plan("100%"), Failing()) as cache:
        model(tokens_of(total=PROMPT), past_key_values=cache)
        with pytest.raises(RuntimeError, match="no scores"):
            cache.shrink(path.plan("10%"))
        with pytest.raises(KVBudgetError, match="broke off"):
            model(tokens_of(total=1), past_key_values=cache)
        cache.reset()
        assert cache.nbytes() == 0
    assert calls == [0, 1]
