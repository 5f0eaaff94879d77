"""`generate` without a cache of its own gets the budgeted one, and stays what it was."""

import copy
import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import (
    DynamicCache,
    Lfm2Config,
    Lfm2ForCausalLM,
    PreTrainedModel,
    StaticCache,
)

from kvbudget.allocator import KVBudgetError, Plan
from kvbudget.heuristics import KVZip, SinkRecent
from kvbudget.runtime import BudgetedCache, budgeted, geometry_of

PROMPT, NEW = 30, 20
GREEDY = {"do_sample": False, "max_new_tokens": NEW}

WAYS = {
    "greedy": {},
    "sampling": {"do_sample": True, "top_k": 20},
    "several samples": {"do_sample": True, "top_k": 20, "num_return_sequences": 2},
    "beam search": {"num_beams": 2},
    "several returned beams": {"num_beams": 2, "num_return_sequences": 2},
    "chunked prefill": {"prefill_chunk_size": 8},
    "wide chunks": {"prefill_chunk_size": 20},
    "without a cache": {"use_cache": False},
    "guidance": {"guidance_scale": 1.5},
}


@pytest.fixture(params=["LlamaForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM"])
def model(request: pytest.FixtureRequest, model_of: Callable[[str], PreTrainedModel]):
    """Full attention, sliding windows, and sinks."""
    return model_of(request.param)


@pytest.fixture
def llama(model_of):
    return model_of("LlamaForCausalLM")


@pytest.fixture
def plan_of(plan_for) -> Callable[..., Plan]:
    """A plan that keeps a number of tokens everywhere."""

    def build(model: PreTrainedModel, tokens: int, rows: int = 1) -> Plan:
        geometry = geometry_of(model)
        capacity = [[min(tokens, w or tokens)] * geometry.kv_heads for w in geometry.windows]
        # columns outside a window are kept as well, for drafts that are taken back
        caches = geometry.layers * geometry.kv_heads
        budget = caches * tokens * geometry.bytes_per_token * rows
        return plan_for(geometry, np.array(capacity), PROMPT * 4, rows, budget)

    return build


@pytest.fixture
def inputs():
    """Two prompts, the second padded on the left."""
    tokens = torch.randint(3, 97, (2, PROMPT), generator=torch.Generator().manual_seed(3))
    mask = torch.ones_like(tokens)
    mask[1, :5] = 0
    return {"input_ids": tokens.masked_fill(mask == 0, 0), "attention_mask": mask}


def watched(model: PreTrainedModel, cache: BudgetedCache, seen: list[int]) -> None:
    """Note the bytes that the cache holds after every forward."""
    model.register_forward_hook(lambda *_: seen.append(cache.nbytes()))


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_it_equals_plain_hugging_face_while_everything_fits(model, plan_of, inputs, way):
    if "guidance_scale" in way:
        inputs = {"input_ids": inputs["input_ids"][:1]}
    torch.manual_seed(11)
    plain = model.generate(**inputs, **{**GREEDY, **way})
    torch.manual_seed(11)
    with budgeted(model, plan_of(model, PROMPT + NEW, 4)) as cache:
        ours = model.generate(**inputs, **{**GREEDY, **way})
        served = cache.stack.was_used
        cache.stack.was_used = True  # no warning where nothing was to be served
    assert torch.equal(plain, ours)
    assert served == (way.get("use_cache") is not False)


def test_drafts_are_taken_back_from_it(model, plan_of, inputs):
    tokens = inputs["input_ids"][:1, :10].repeat(1, 3)
    plain = model.generate(tokens, **GREEDY)
    with budgeted(model, plan_of(model, PROMPT + NEW + 8)) as cache:
        ours = model.generate(tokens, **GREEDY, prompt_lookup_num_tokens=4)
        assert cache.get_seq_length() == PROMPT + NEW - 1
    assert torch.equal(ours, plain)


def test_a_model_may_draft_with_its_own_first_layers(llama, plan_of, inputs):
    tokens = inputs["input_ids"][:1]
    plain = llama.generate(tokens, **GREEDY)
    with budgeted(llama, plan_of(llama, PROMPT + NEW + 8)) as cache:
        ours = llama.generate(tokens, **GREEDY, assistant_early_exit=1)
        assert cache.get_seq_length() == PROMPT + NEW - 1
    assert torch.equal(ours, plain)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Qwen3ForCausalLM"])
def test_an_assistant_works_beside_it_and_in_a_budget_of_its_own(
    model, model_of, plan_of, inputs, architecture
):
    tokens, helper = inputs["input_ids"][:1], model_of(architecture)
    plain = model.generate(tokens, **GREEDY)
    with budgeted(model, plan_of(model, PROMPT + NEW + 8)) as cache:
        assert torch.equal(model.generate(tokens, **GREEDY, assistant_model=helper), plain)
        assert cache.get_seq_length() == PROMPT + NEW - 1
        with budgeted(helper, plan_of(helper, 20)) as small:
            for _ in range(2):
                ours = model.generate(tokens, **GREEDY, assistant_model=helper)
                assert torch.equal(ours, plain)
            assert 0 < small.nbytes() <= small.plan.budget_bytes


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_it_stays_in_the_budget_and_equals_the_cache_passed_on(model, plan_of, inputs, way):
    if "guidance_scale" in way:
        inputs = {"input_ids": inputs["input_ids"][:1]}
    plan, seen, found = plan_of(model, 12, 4), [], []
    for explicit in (True, False):
        torch.manual_seed(11)
        with budgeted(model, plan, SinkRecent()) as cache:
            watched(model, cache, seen)
            given = {"past_key_values": cache} if explicit and "use_cache" not in way else {}
            found.append(model.generate(**inputs, **{**GREEDY, **way}, **given))
            cache.stack.was_used = True
        model._forward_hooks.clear()
    assert torch.equal(*found)
    assert max(seen) <= plan.budget_bytes


def test_every_call_starts_afresh(model, plan_of, inputs):
    prompts = [inputs["input_ids"][:1, start:] for start in range(10)]
    plain = [model.generate(prompt, **GREEDY) for prompt in prompts]
    with budgeted(model, plan_of(model, PROMPT + NEW)) as cache:
        for prompt, expected in zip(prompts, plain, strict=True):
            assert torch.equal(model.generate(prompt, **GREEDY), expected)
            assert cache.get_seq_length() == prompt.shape[1] + NEW - 1
            assert cache.nbytes() <= cache.plan.budget_bytes


def test_tokens_that_were_passed_on_are_not_wiped(llama, plan_of, inputs):
    tokens = inputs["input_ids"][:1]
    with budgeted(llama, plan_of(llama, 60)) as cache:
        llama.generate(tokens, **GREEDY, past_key_values=cache)
        for call in (llama.generate, lambda ids: llama(ids, use_cache=True)):
            with pytest.raises(KVBudgetError, match=r"would forget them: pass past_key_values"):
                call(tokens)
        assert cache.get_seq_length() == PROMPT + NEW - 1
        cache.reset()
        plain = llama.generate(tokens, **GREEDY)
    assert torch.equal(plain, llama.generate(tokens, **GREEDY))


def test_drafts_are_taken_back_where_layers_keep_states_besides(plan_of):
    shape = {"vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    config = Lfm2Config(
        **shape,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(0)
    hybrid = Lfm2ForCausalLM(config).eval()
    tokens = torch.randint(3, 97, (1, 10)).repeat(1, 3)
    drafts = {**GREEDY, "prompt_lookup_num_tokens": 4}
    expected = hybrid.generate(tokens, **GREEDY)
    with budgeted(hybrid, plan_of(hybrid, PROMPT + NEW + 8)) as cache:
        for _ in range(2):
            for asked in (drafts, GREEDY):
                ours = hybrid.generate(tokens, **asked)
                assert cache.get_seq_length() == PROMPT + NEW - 1
                assert torch.equal(ours, expected)


def test_rows_may_end_at_different_times(model, plan_of, inputs):
    free = model.generate(**inputs, **GREEDY)[:, PROMPT:]
    ends = {"eos_token_id": [int(free[0, 4]), int(free[1, 11])]}
    plain = model.generate(**inputs, **GREEDY, **ends)
    assert plain.shape[1] < PROMPT + NEW
    with budgeted(model, plan_of(model, PROMPT + NEW, 2)) as cache:
        assert torch.equal(model.generate(**inputs, **GREEDY, **ends), plain)
        cache.reset()
        ours = model.generate(**inputs, **GREEDY, **ends, past_key_values=cache)
    assert torch.equal(ours, plain)


def test_ten_turns_of_a_conversation_equal_plain_hugging_face(model, plan_of, inputs):
    said, asked = inputs["input_ids"][:1], {**GREEDY, "max_new_tokens": 4}
    with budgeted(model, plan_of(model, 100)) as cache:
        for turn in range(10):
            expected = model.generate(said, **asked, use_cache=False)
            assert torch.equal(model.generate(said, **asked, past_key_values=cache), expected)
            said = torch.cat([expected, inputs["input_ids"][:1, turn : turn + 3]], 1)
        assert cache.get_seq_length() == PROMPT + 9 * 7 + 3
        assert cache.nbytes() <= cache.plan.budget_bytes


def test_a_conversation_may_go_on_where_a_plain_call_ended(llama, plan_of, inputs):
    tokens = inputs["input_ids"][:1]
    asked = {**GREEDY, "return_dict_in_generate": True}
    plain = llama.generate(tokens, **GREEDY)
    turn = torch.cat([plain, tokens.flip(1)], 1)
    expected = llama.generate(turn, **GREEDY)
    with budgeted(llama, plan_of(llama, 100)) as cache:
        first = llama.generate(tokens, **asked)
        assert isinstance(first.past_key_values, BudgetedCache)
        assert torch.equal(first.sequences, plain)
        second = llama.generate(turn, **asked, past_key_values=first.past_key_values)
        assert torch.equal(second.sequences, expected)
        llama.generate(tokens, **GREEDY)
        go_on = llama.generate(turn, **asked, past_key_values=cache)
    assert torch.equal(go_on.sequences, expected)


def test_what_an_earlier_call_returned_is_refused_once_a_later_one_has_its_memory(
    llama, plan_of, inputs
):
    tokens = inputs["input_ids"][:1]
    with budgeted(llama, plan_of(llama, 60)):
        first = llama.generate(tokens, **GREEDY, return_dict_in_generate=True)
        llama.generate(tokens.flip(1), **GREEDY)
        with pytest.raises(KVBudgetError, match="emptied for another"):
            llama.generate(first.sequences, **GREEDY, past_key_values=first.past_key_values)


def test_a_forward_gets_the_cache_only_if_it_asks_for_one(llama, plan_of, inputs):
    tokens = inputs["input_ids"][:1]
    expected = llama(tokens).logits
    with torch.no_grad(), budgeted(llama, plan_of(llama, 12), SinkRecent()) as cache:
        assert torch.equal(llama(tokens).logits, llama(tokens, use_cache=False).logits)
        assert cache.nbytes() == 0
        output = llama(tokens, use_cache=True)
        torch.testing.assert_close(output.logits, expected, atol=1e-5, rtol=0)
        assert 0 < cache.nbytes() <= cache.plan.budget_bytes
        llama(tokens[:, :1], past_key_values=output.past_key_values)
        assert cache.get_seq_length() == PROMPT + 1


def test_a_loop_that_keeps_the_cache_it_was_given_is_served(llama, plan_of, inputs):
    """As custom ways to generate may do, which get the cache that `generate` made."""
    lengths = []

    def greedy(model, input_ids, past_key_values, **_: object) -> torch.Tensor:
        new = input_ids
        for _ in range(NEW):
            logits = model(new, past_key_values=past_key_values, use_cache=True).logits
            lengths.append(past_key_values.get_seq_length())
            new = logits[:, -1:].argmax(-1)
            input_ids = torch.cat([input_ids, new], 1)
        past_key_values.crop(-3)
        return input_ids

    tokens = inputs["input_ids"][:1]
    plain = llama.generate(tokens, **GREEDY)
    plan = plan_of(llama, PROMPT + NEW)
    with budgeted(llama, plan) as cache:
        assert torch.equal(llama.generate(tokens, **GREEDY, custom_generate=greedy), plain)
        assert lengths == list(range(PROMPT, PROMPT + NEW))
        assert cache.get_seq_length() == PROMPT + NEW - 4


@pytest.mark.parametrize("make", [DynamicCache, lambda config: StaticCache(config, 80)])
def test_a_cache_of_the_users_own_is_left_alone(model, plan_of, inputs, make):
    tokens = inputs["input_ids"][:1]
    plain = model.generate(tokens, **GREEDY, past_key_values=make(config=model.config))
    first = model(tokens, past_key_values=make(config=model.config)).logits
    with budgeted(model, plan_of(model, 12)) as cache, torch.no_grad():
        own = make(config=model.config)
        assert torch.equal(model.generate(tokens, **GREEDY, past_key_values=own), plain)
        ours = model(tokens, past_key_values=make(config=model.config), use_cache=True).logits
        torch.testing.assert_close(ours, first, atol=1e-4, rtol=0)
        assert cache.nbytes() == 0
        cache.stack.was_used = True


@pytest.mark.parametrize("kind", ["static", "offloaded"])
def test_a_kind_of_cache_asked_of_generate_is_left_alone(llama, plan_of, inputs, kind):
    if kind == "offloaded" and not torch.accelerator.is_available():
        pytest.skip("an offloaded cache needs an accelerator")
    tokens, asked = inputs["input_ids"][:1], {**GREEDY, "cache_implementation": kind}
    plain = llama.generate(tokens, **asked)
    with pytest.warns(UserWarning, match="never used"), budgeted(llama, plan_of(llama, 12)):
        assert torch.equal(llama.generate(tokens, **asked), plain)


def test_a_prompt_that_is_read_twice_is_read_twice(llama, plan_of, inputs):
    plan, heuristic = plan_of(llama, 24, 2), KVZip(instruction="4 4")
    found, kept = [], []
    for explicit in (True, False):
        with budgeted(llama, plan, heuristic) as cache:
            given = {"past_key_values": cache} if explicit else {}
            found.append(llama.generate(**inputs, **GREEDY, **given))
            kept.append([c.tolist() for row in cache.kept_positions(1) for c in row])
    assert torch.equal(*found)
    assert kept[0] == kept[1]


def test_a_fork_goes_on_beside_the_cache(llama, plan_of, inputs):
    tokens = inputs["input_ids"][:1]
    with torch.no_grad(), budgeted(llama, plan_of(llama, 60)) as cache:
        output = llama(tokens, use_cache=True)
        forks = [copy.deepcopy(cache), copy.deepcopy(output.past_key_values)]
        llama.generate(tokens.flip(1), **GREEDY)
        assert cache.get_seq_length() == PROMPT + NEW - 1
        for fork in forks:
            logits = llama(tokens[:, :3], past_key_values=fork).logits
            whole = llama(torch.cat([tokens, tokens[:, :3]], 1)).logits[:, PROMPT:]
            torch.testing.assert_close(logits, whole, atol=1e-5, rtol=0)
            assert fork.get_seq_length() == PROMPT + 3


def test_a_call_that_breaks_off_leaves_the_next_one_alone(llama, plan_of, inputs):
    tokens = inputs["input_ids"][:1]
    plain = llama.generate(tokens, **GREEDY)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with budgeted(llama, plan_of(llama, 60)) as cache:
        hook = llama.model.layers[1].register_forward_pre_hook(stop)
        with pytest.raises(KeyboardInterrupt):
            llama.generate(tokens, **GREEDY)
        hook.remove()
        assert torch.equal(llama.generate(tokens, **GREEDY), plain)
        assert cache.get_seq_length() == PROMPT + NEW - 1


def test_two_threads_never_mix_their_tokens(llama, plan_of, inputs):
    tokens = inputs["input_ids"][:1]
    plain, refused, done = llama.generate(tokens, **GREEDY), [], []

    def generate() -> None:
        try:
            done.append(llama.generate(tokens, **GREEDY))
        except KVBudgetError as error:
            refused.append(str(error))

    with budgeted(llama, plan_of(llama, 60)):
        threads = [threading.Thread(target=generate) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        again = llama.generate(tokens, **GREEDY)
    assert len(refused) + len(done) == 3
    assert done, refused
    assert all(torch.equal(each, plain) for each in [*done, again])


def test_a_thread_of_its_own_may_do_the_work(llama, plan_of, inputs):
    tokens, done = inputs["input_ids"][:1], []
    with budgeted(llama, plan_of(llama, 60)) as cache:
        thread = threading.Thread(target=lambda: done.append(llama.generate(tokens, **GREEDY)))
        thread.start()
        thread.join()
        assert cache.get_seq_length() == PROMPT + NEW - 1
    assert torch.equal(done[0], llama.generate(tokens, **GREEDY))


def test_the_model_keeps_nothing_of_it(model, plan_of, inputs):
    before = model.generate(**inputs, **GREEDY)
    hooks = [dict(module._forward_pre_hooks) for module in model.modules()]
    for _ in range(2):
        with budgeted(model, plan_of(model, 12, 2)):
            model.generate(**inputs, **GREEDY)
    assert torch.equal(model.generate(**inputs, **GREEDY), before)
    assert hooks == [dict(module._forward_pre_hooks) for module in model.modules()]
    assert not any(module._forward_hooks for module in model.modules())
    assert model.config._attn_implementation == "eager"
