"""Capacities divided anew in a running cache: bytes, positions, exactness, and its whole life."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch

from kvbudget import budgeted
from kvbudget.allocator import KVBudgetError, Profile, allocate
from kvbudget.allocator.constraints import LeastTokens
from kvbudget.heuristics import LayerView, ObservationWindow, TokenHeuristic
from kvbudget.runtime import geometry_of
from kvbudget.runtime.adaptation import Global, WithinLayer
from kvbudget.runtime.attention_call import AttentionCall, LogitRules
from kvbudget.runtime.layer_stack import LayerStack

CONTEXT = 90
BOTH = pytest.mark.parametrize("adapt", [WithinLayer(0.2, 1.0), Global(0.2, 1.0)], ids=str)


def a_plan(model, batch_size=1, share="40%", constraints=()):
    """Random importance of caches and curves that go with it."""
    geometry = geometry_of(model)
    rng = np.random.default_rng(0)
    importance = rng.uniform(0.5, 1.5, (geometry.layers, geometry.kv_heads))
    profile = Profile.from_importance(
        importance * geometry.present, geometry, heuristic="observation_window"
    )
    return allocate(
        profile,
        budget=share,
        context_tokens=CONTEXT + 40,
        batch_size=batch_size,
        constraints=constraints,
    )


def a_prompt(rows=1, tokens=CONTEXT, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 97, (rows, tokens), generator=generator)


def held_counts(cache, layers):
    """Tokens held, [layers][rows][kv_heads]."""
    return [[[len(h) for h in row] for row in cache.kept_positions(at)] for at in range(layers)]


HEURISTIC = ObservationWindow(window=4, kernel=3)


@BOTH
def test_bytes_stay_within_the_budget_and_the_division_is_another(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model)
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(a_prompt(), past_key_values=cache)
        counts = np.array(held_counts(cache, 3))[:, 0]
        assert cache.nbytes() <= plan.budget_bytes
    assert counts.sum() == plan.capacity_tokens.sum()
    assert (counts != plan.capacity_tokens).any()
    if not adapt.sees_all_layers:
        assert (counts.sum(1) == plan.capacity_tokens.sum(1)).all()
    else:
        assert (counts.sum(1) != plan.capacity_tokens.sum(1)).any()


@BOTH
@pytest.mark.parametrize(
    "architecture", ["LlamaForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM"]
)
def test_what_follows_equals_dense_attention_under_a_mask(model_of, oracle, adapt, architecture):
    model = model_of(architecture)
    plan = a_plan(model)
    prompt, more = a_prompt(), a_prompt(tokens=12, seed=1)
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(prompt, past_key_values=cache)
        got, held = [], []
        for at in range(more.shape[1]):
            got.append(model(more[:, at : at + 1], past_key_values=cache).logits)
            held.append([cache.kept_positions(layer) for layer in range(plan.geometry.layers)])
            assert cache.nbytes() <= plan.budget_bytes
    with oracle.installed(model) as dense:
        model(prompt, past_key_values=dense)
        for at in range(more.shape[1]):
            oracle.held = held[at]
            expected = model(more[:, at : at + 1], past_key_values=dense).logits
            torch.testing.assert_close(got[at], expected, rtol=1e-4, atol=1e-4)


@BOTH
def test_padded_rows_are_divided_as_if_alone(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model, batch_size=2)
    short = a_prompt(tokens=70, seed=1)
    rows = torch.cat([a_prompt(), torch.nn.functional.pad(short, (CONTEXT - 70, 0))])
    mask = torch.ones_like(rows)
    mask[1, : CONTEXT - 70] = 0
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(rows, attention_mask=mask, past_key_values=cache)
        together = [cache.kept_positions(layer) for layer in range(3)]
        assert cache.nbytes() <= plan.budget_bytes
    with budgeted(model, a_plan(model), HEURISTIC, adapt) as cache:
        model(rows[:1], past_key_values=cache)
        alone = [cache.kept_positions(layer) for layer in range(3)]
    for layer in range(3):
        assert all(map(torch.equal, together[layer][0], alone[layer][0]))
        assert min(int(head.min()) for head in together[layer][1]) >= CONTEXT - 70
        assert sum(map(len, together[layer][1])) <= CONTEXT * 2


@BOTH
def test_a_reset_cache_starts_from_the_plan_again(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    with budgeted(model, a_plan(model), HEURISTIC, adapt) as cache:
        model(a_prompt(seed=5), past_key_values=cache)
        first = held_counts(cache, 3)
        cache.reset()
        model(a_prompt(seed=6), past_key_values=cache)
        second = held_counts(cache, 3)
        cache.reset()
        model(a_prompt(seed=5), past_key_values=cache)
        again = held_counts(cache, 3)
    assert first == again
    assert first != second


@BOTH
def test_a_second_prompt_is_divided_anew_and_stays_exact(model_of, oracle, adapt):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model)
    first, second, last = a_prompt(tokens=60), a_prompt(tokens=40, seed=3), a_prompt(tokens=1)
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(first, past_key_values=cache)
        before = [cache.kept_positions(layer) for layer in range(3)]
        mid = model(second, past_key_values=cache).logits
        after = [cache.kept_positions(layer) for layer in range(3)]
        assert cache.nbytes() <= plan.budget_bytes
        end = model(last, past_key_values=cache).logits
        held = [cache.kept_positions(layer) for layer in range(3)]
    counts = [[len(head) for head in layer[0]] for layer in after]
    assert sum(map(sum, counts)) == plan.capacity_tokens.sum()
    assert counts != [[len(head) for head in layer[0]] for layer in before]
    with oracle.installed(model) as dense:
        model(first, past_key_values=dense)
        oracle.held = before
        torch.testing.assert_close(
            model(second, past_key_values=dense).logits, mid, rtol=1e-4, atol=1e-4
        )
        oracle.held = held
        torch.testing.assert_close(
            model(last, past_key_values=dense).logits, end, rtol=1e-4, atol=1e-4
        )


@BOTH
def test_a_prompt_that_fits_is_divided_when_it_no_longer_does(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model)
    fitting = plan.budget_bytes // int(plan.geometry.token_bytes.sum())
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(a_prompt(tokens=fitting), past_key_values=cache)
        assert {n for layer in held_counts(cache, 3) for n in layer[0]} == {fitting}
        for at in range(3):
            model(a_prompt(tokens=1, seed=at), past_key_values=cache)
            assert cache.nbytes() <= plan.budget_bytes
        counts = np.array(held_counts(cache, 3))[:, 0]
        capacity = plan.capacity_tokens.copy()
        for layer in cache.stack.layers:
            # a layer that the plan has room for in all its heads need not be divided
            if layer.divided is not None:
                capacity[layer.index] = layer.divided[0]
    assert (capacity != plan.capacity_tokens).any()
    assert (counts <= capacity).all()
    assert capacity.sum() == plan.capacity_tokens.sum()


@BOTH
def test_beams_repeats_and_any_choice_of_rows_stay_within_the_budget(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model, batch_size=4)
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(a_prompt(rows=2), past_key_values=cache)
        cache.batch_repeat_interleave(2)
        assert cache.nbytes() <= plan.budget_bytes
        for rows in ([0, 0, 0, 0], [3, 2, 1, 0], [2, 2, 3, 3]):
            cache.reorder_cache(torch.tensor(rows))
            model(a_prompt(rows=4, tokens=1), past_key_values=cache)
            assert cache.nbytes() <= plan.budget_bytes
        cache.batch_select_indices(torch.tensor([1, 3]))
        model(a_prompt(rows=2, tokens=1), past_key_values=cache)
        assert cache.nbytes() <= plan.budget_bytes


def test_rows_of_unequal_divisions_can_be_exchanged(model_of):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model, batch_size=3)
    with budgeted(model, plan, HEURISTIC, Global(0.0, 1.0)) as cache:
        model(a_prompt(rows=3, seed=9), past_key_values=cache)
        sums = torch.tensor(held_counts(cache, 3)).sum(2)  # [layers, rows]
        assert bool((sums != sums[:, :1]).any())
        most = int(sums[0].argmax())
        cache.reorder_cache(torch.tensor([most] * 3))
        assert cache.nbytes() <= plan.budget_bytes
        model(a_prompt(rows=3, tokens=1), past_key_values=cache)
        assert cache.nbytes() <= plan.budget_bytes


@BOTH
def test_generation_stays_within_the_budget(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model)
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        output = model.generate(
            a_prompt(), past_key_values=cache, max_new_tokens=30, do_sample=False
        )
        assert output.shape[1] == CONTEXT + 30
        assert cache.nbytes() <= plan.budget_bytes
        divided = [layer.divided for layer in cache.stack.layers]
        for layer in range(3):
            held = torch.tensor([len(head) for head in cache.kept_positions(layer)[0]])
            assert bool((held <= divided[layer][0]).all())


@dataclass(frozen=True, slots=True)
class BreaksInTheLastLayer(TokenHeuristic):
    """Scores by position until it comes to the last layer with more tokens than a first prompt."""

    reads_queries: ClassVar[bool] = False

    def score(self, view: LayerView) -> torch.Tensor:
        if view.layer == 2 and int(view.positions.max()) >= CONTEXT:
            raise ArithmeticError("no score")
        return view.positions.float()


@BOTH
def test_a_forward_that_broke_off_before_the_division_is_noticed(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    with budgeted(model, a_plan(model), BreaksInTheLastLayer(), adapt) as cache:
        model(a_prompt(), past_key_values=cache)
        with pytest.raises(ArithmeticError, match="no score"):
            model(a_prompt(tokens=36), past_key_values=cache)
        with pytest.raises(KVBudgetError, match="broke off"):
            model(a_prompt(tokens=1), past_key_values=cache)
        cache.reset()
        assert cache.nbytes() == 0
        model(a_prompt(), past_key_values=cache)
        assert 0 < cache.nbytes() <= cache.plan.budget_bytes


@BOTH
def test_a_copy_and_a_saved_cache_go_on_alike(model_of, adapt, tmp_path):
    model = model_of("LlamaForCausalLM")
    plan, more = a_plan(model), a_prompt(tokens=1, seed=8)
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(a_prompt(), past_key_values=cache)
        cache.save(tmp_path / "cache.safetensors")
        fork = copy.deepcopy(cache)
        expected = [model(more, past_key_values=cache).logits for _ in range(5)]
        forked = [model(more, past_key_values=fork).logits for _ in range(5)]
        cache.load(tmp_path / "cache.safetensors")
        loaded = [model(more, past_key_values=cache).logits for _ in range(5)]
        assert cache.nbytes() <= plan.budget_bytes
    assert all(map(torch.equal, expected, forked))
    assert all(map(torch.equal, expected, loaded))


def test_memory_stays_on_its_device(model_of):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model)
    places = ("first", "second", "first")
    stack = LayerStack(plan, HEURISTIC, devices=places, adapt=Global(0.0, 1.0))
    stack.expect(1, CONTEXT)
    for layer in stack.layers:
        keys = torch.randn(1, 2, CONTEXT, 16) * (1 + layer.index)
        layer.admit(keys, keys)
        queries = torch.randn(1, 4, CONTEXT, 16)
        layer.absorb_prompt(AttentionCall(None, queries, keys, keys, None, LogitRules(0.25)))
    held = [sum(len(head) for head in stack.kept_positions(at)[0]) for at in range(3)]
    planned = plan.capacity_tokens.sum(1)
    assert held[1] == planned[1]
    assert held[0] != planned[0]
    assert held[0] + held[2] == planned[0] + planned[2]


@BOTH
def test_a_plan_with_limits_is_refused(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model, constraints=(LeastTokens(20),))
    with (
        pytest.raises(ValueError, match="was made with"),
        budgeted(model, plan, HEURISTIC, adapt),
    ):
        pass


@BOTH
def test_drafts_that_are_taken_back_leave_the_division(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model)
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(a_prompt(), past_key_values=cache)
        before = [layer.divided.clone() for layer in cache.stack.layers]
        model(a_prompt(tokens=24, seed=2), past_key_values=cache)
        cache.crop(-20)
        model(a_prompt(tokens=1), past_key_values=cache)
        after = [layer.divided for layer in cache.stack.layers]
        assert cache.nbytes() <= plan.budget_bytes
    assert all(map(torch.equal, before, after))


@BOTH
def test_a_smaller_and_a_larger_plan_are_divided_anew(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    plan, small = a_plan(model), a_plan(model, share="20%")
    with budgeted(model, plan, HEURISTIC, adapt) as cache:
        model(a_prompt(), past_key_values=cache)
        cache.shrink(small)
        assert cache.nbytes() <= small.budget_bytes
        assert np.array(held_counts(cache, 3)).sum() <= small.capacity_tokens.sum()
        model(a_prompt(tokens=1), past_key_values=cache)
        cache.grow(plan)
        model(a_prompt(tokens=36), past_key_values=cache)
        assert cache.nbytes() <= plan.budget_bytes
        assert np.array(held_counts(cache, 3)).sum() > small.capacity_tokens.sum()


@BOTH
def test_each_longer_block_is_divided_anew(model_of, adapt):
    model = model_of("LlamaForCausalLM")
    with budgeted(model, a_plan(model), HEURISTIC, adapt) as cache:
        model(a_prompt(), past_key_values=cache)
        before = [layer.divided.clone() for layer in cache.stack.layers]
        model(a_prompt(tokens=36, seed=3), past_key_values=cache)
        after = [layer.divided for layer in cache.stack.layers]
    assert not all(map(torch.equal, before, after))


def test_a_division_of_held_tokens_that_broke_off_is_noticed(model_of):
    model = model_of("LlamaForCausalLM")
    plan = a_plan(model, share="75%")
    fitting = plan.budget_bytes // int(plan.geometry.token_bytes.sum())
    assert fitting > CONTEXT
    with budgeted(model, plan, BreaksInTheLastLayer(), Global()) as cache:
        model(a_prompt(tokens=fitting), past_key_values=cache)
        with pytest.raises(ArithmeticError, match="no score"):
            model(a_prompt(tokens=1), past_key_values=cache)
        with pytest.raises(KVBudgetError, match="broke off"):
            model(a_prompt(tokens=1), past_key_values=cache)
