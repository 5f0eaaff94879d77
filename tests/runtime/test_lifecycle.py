"""A plan that keeps everything gives the same tokens as plain Hugging Face, whatever is called."""

import copy

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from kvbudget.allocator import InfeasibleBudget
from kvbudget.heuristics import HeavyHitter, SinkRecent
from kvbudget.runtime import budgeted, geometry_of

PROMPT, NEW = 30, 24


@pytest.fixture(params=["LlamaForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM"])
def model(request, model_of):
    """Full attention, sliding windows, and sinks."""
    return model_of(request.param)


@pytest.fixture
def everything(model, plan_for):
    """A plan with room for all tokens that the tests read and write, for four rows."""
    geometry = geometry_of(model)
    total = PROMPT * 2 + NEW * 2
    capacity = [[min(total, w or total)] * geometry.kv_heads for w in geometry.windows]
    capacity = torch.tensor(capacity).numpy()
    return plan_for(geometry, capacity, total, 4, geometry.full_bytes(total, 4))


@pytest.fixture
def inputs():
    """Two prompts, the second padded on the left."""
    tokens = torch.randint(3, 97, (2, PROMPT), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(tokens)
    mask[1, :5] = 0
    return {"input_ids": tokens.masked_fill(mask == 0, 0), "attention_mask": mask}


GENERATIONS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20},
    "beam search": {"num_beams": 2},
    "several returned beams": {"num_beams": 2, "num_return_sequences": 2},
    "chunked prefill": {"prefill_chunk_size": 8},
    "wide chunks": {"prefill_chunk_size": 20},
}


@pytest.mark.parametrize("how", GENERATIONS.values(), ids=GENERATIONS.keys())
def test_keeping_everything_gives_the_tokens_of_plain_generate(model, everything, inputs, how):
    options = {"do_sample": False, **how, "max_new_tokens": NEW}
    torch.manual_seed(11)
    plain = model.generate(**inputs, **options)
    torch.manual_seed(11)
    with budgeted(model, everything) as cache:
        ours = model.generate(**inputs, **options, past_key_values=cache)
        assert cache.nbytes() <= everything.budget_bytes
    assert torch.equal(plain, ours)


@pytest.mark.parametrize("how", ["prompt lookup", "assistant"])
def test_keeping_everything_survives_rollbacks(model, everything, inputs, how, model_of):
    repeated = inputs["input_ids"][:1, :10].repeat(1, 3)
    options = {"do_sample": False, "max_new_tokens": NEW}
    plain = model.generate(repeated, **options)
    helped = {"prompt_lookup_num_tokens": 6}
    if how == "assistant":
        helped = {"assistant_model": model_of("LlamaForCausalLM")}
    with budgeted(model, everything) as cache:
        ours = model.generate(repeated, **options, **helped, past_key_values=cache)
    assert torch.equal(plain, ours)


def test_keeping_everything_serves_a_second_turn(model, everything, inputs):
    tokens = inputs["input_ids"][:1]
    options = {"do_sample": False, "max_new_tokens": NEW}
    with budgeted(model, everything) as cache:
        first = model.generate(tokens, **options, past_key_values=cache)
        second_prompt = torch.cat([first, tokens.flip(1)], 1)
        second = model.generate(second_prompt, **options, past_key_values=cache)
    assert torch.equal(second, model.generate(second_prompt, **options))


@pytest.fixture
def tight(model, plan_for):
    """A plan that keeps everything of one row, with not a byte to spare for sliding layers."""
    geometry, total = geometry_of(model), PROMPT + NEW + 6
    capacity = [[min(total, w or total)] * geometry.kv_heads for w in geometry.windows]
    return plan_for(geometry, torch.tensor(capacity).numpy(), total, 1)


@pytest.mark.parametrize("chunk", [5, 8, 20, 29])
def test_chunks_of_any_size_are_exact_when_everything_is_kept(model, tight, inputs, chunk):
    tokens = inputs["input_ids"][:1]
    options = {"do_sample": False, "max_new_tokens": NEW, "prefill_chunk_size": chunk}
    with budgeted(model, tight) as cache:
        ours = model.generate(tokens, **options, past_key_values=cache)
        assert cache.nbytes() <= tight.budget_bytes
    assert torch.equal(model.generate(tokens, **options), ours)


def test_a_short_second_turn_is_exact_when_everything_is_kept(model, tight, inputs):
    tokens = inputs["input_ids"][:1]
    with torch.inference_mode(), budgeted(model, tight) as cache:
        model(tokens[:, :25], past_key_values=cache)
        ours = model(tokens[:, 25:], past_key_values=cache).logits
        theirs = model(tokens).logits[:, 25:]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("how", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 4}])
def test_an_ordinary_cache_inside_the_context_is_served_as_ever(model, tight, inputs, how):
    tokens = inputs["input_ids"][:1]
    options = {"do_sample": False, "max_new_tokens": NEW, **how}
    plain = model.generate(tokens, **options)
    own = DynamicCache(config=model.config)
    with (
        pytest.warns(UserWarning, match="never used"),
        budgeted(model, tight),
    ):
        assert torch.equal(model.generate(tokens, **options, past_key_values=own), plain)


def test_a_copied_cache_goes_on_by_itself(model, tight, inputs):
    tokens = inputs["input_ids"][:1]
    with torch.inference_mode(), budgeted(model, tight) as cache:
        model(tokens, past_key_values=cache)
        copied = copy.deepcopy(cache)
        first = model(tokens[:, :3], past_key_values=cache).logits
        second = model(tokens[:, :3], past_key_values=copied).logits
    assert torch.equal(first, second)
    weights = {id(p) for p in model.parameters()}
    held = [layer.layer.judge.rules.sinks for layer in copied.layers]
    assert all(sinks is None or id(sinks) not in weights for sinks in held)


def test_bytes_stay_below_the_budget_inside_the_forward_that_starts_evicting(model_of, plan_for):
    model = model_of("LlamaForCausalLM")
    plan = plan_for(geometry_of(model), np.array([[100, 100], [10, 10], [10, 10]]), 200)
    seen = []
    with torch.inference_mode(), budgeted(model, plan) as cache:
        for layer in model.model.layers:
            layer.register_forward_hook(lambda *_: seen.append(cache.nbytes()))
        model(torch.arange(38)[None] + 3, past_key_values=cache)
        model(torch.arange(80)[None] + 3, past_key_values=cache)
    assert max(seen) <= plan.budget_bytes


def test_branching_into_the_planned_rows_stays_inside_the_budget(model_of, plan_for):
    model = model_of("LlamaForCausalLM")
    plan = plan_for(geometry_of(model), np.full((3, 2), 20), 64, 4)
    with torch.inference_mode(), budgeted(model, plan) as cache:
        model(torch.arange(60)[None] + 3, past_key_values=cache)
        cache.batch_repeat_interleave(4)
        assert cache.nbytes() <= plan.budget_bytes
        model(torch.full((4, 1), 7), past_key_values=cache)
        assert cache.nbytes() <= plan.budget_bytes


def test_inference_mode_may_come_and_go(model, tight, inputs):
    tokens = inputs["input_ids"][:1]
    with budgeted(model, tight) as cache:
        with torch.inference_mode():
            model(tokens[:, :20], past_key_values=cache)
            model(tokens[:, 20:21], past_key_values=cache)
        cache.crop(-2)
        with torch.no_grad():
            assert model(tokens[:, 19:22], past_key_values=cache).logits.isfinite().all()
        assert cache.get_seq_length() == 22


def test_reset_makes_the_cache_as_new(model, everything, inputs):
    options = {"do_sample": False, "max_new_tokens": 6}
    with budgeted(model, everything) as cache:
        first = model.generate(**inputs, **options, past_key_values=cache)
        cache.reset()
        assert cache.nbytes() == 0
        again = model.generate(**inputs, **options, past_key_values=cache)
    assert torch.equal(first, again)


def test_a_plan_of_exactly_the_final_length_evicts_nothing(model, plan_for, inputs):
    geometry, total = geometry_of(model), PROMPT + NEW - 1
    capacity = [[min(total, w or total)] * geometry.kv_heads for w in geometry.windows]
    plan = plan_for(geometry, torch.tensor(capacity).numpy(), total, 2)
    options = {"do_sample": False, "max_new_tokens": NEW}
    with budgeted(model, plan) as cache:
        ours = model.generate(**inputs, **options, past_key_values=cache)
        assert cache.nbytes() <= plan.budget_bytes
    assert torch.equal(model.generate(**inputs, **options), ours)


@pytest.mark.parametrize("heuristic", [SinkRecent(), HeavyHitter()], ids=["recent", "heavy"])
@pytest.mark.parametrize("rows", [1, 2])
def test_bytes_equal_the_plan_at_every_step_of_a_long_generation(
    model, plan_for, random_capacity, inputs, heuristic, rows
):
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 5, PROMPT - 6), PROMPT, rows)
    tokens = inputs["input_ids"][:rows].clamp_min(3)
    with budgeted(model, plan, heuristic) as cache, torch.inference_mode():
        for _ in range(60):
            logits = model(tokens, past_key_values=cache).logits
            assert cache.nbytes() <= plan.budget_bytes
            tokens = logits[:, -1:].argmax(-1)
        held = sum(
            len(columns)
            for layer in range(geometry.layers)
            for row in cache.kept_positions(layer)
            for columns in row
        )
    windowless = all(window is None for window in geometry.windows)
    assert held <= plan.capacity_tokens.sum() * rows
    if windowless:
        assert cache.nbytes() == plan.used_bytes == plan.budget_bytes
    assert cache.nbytes(overhead=True) > cache.nbytes()


def test_more_rows_than_planned_share_the_bytes_or_are_refused(model, plan_for, inputs):
    geometry = geometry_of(model)
    capacity = torch.full((geometry.layers, geometry.kv_heads), 16).numpy()
    plan = plan_for(geometry, capacity, PROMPT, 1)
    with (
        budgeted(model, plan) as cache,
        pytest.raises(InfeasibleBudget, match="Allocate with batch_size=2"),
    ):
        model.generate(**inputs, max_new_tokens=2, past_key_values=cache)


def test_beams_follow_their_own_rows_after_eviction(model_of, plan_for, random_capacity, oracle):
    model = model_of("LlamaForCausalLM")
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 8, 20), PROMPT, 3)
    tokens = torch.randint(3, 97, (3, PROMPT), generator=torch.Generator().manual_seed(5))
    swap = torch.tensor([2, 0, 0])
    with budgeted(model, plan) as cache, torch.inference_mode():
        model(tokens, past_key_values=cache)
        before = [cache.kept_positions(layer) for layer in range(geometry.layers)]
        cache.reorder_cache(swap)
        after = [cache.kept_positions(layer) for layer in range(geometry.layers)]
        ours = model(tokens[swap][:, -1:], past_key_values=cache).logits
        held = [cache.kept_positions(layer) for layer in range(geometry.layers)]
    for layer in range(geometry.layers):
        for row, source in enumerate(swap.tolist()):
            for head in range(geometry.kv_heads):
                assert torch.equal(after[layer][row][head], before[layer][source][head])
    with oracle.installed(model) as everything, torch.inference_mode():
        model(tokens[swap], past_key_values=everything)
        oracle.held = held
        theirs = model(tokens[swap][:, -1:], past_key_values=everything).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
