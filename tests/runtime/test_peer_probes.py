"""What other libraries for smaller caches get wrong outside the common case, done right here.

Every test is a case in which a library of that kind was seen to fail: it stored padding, compressed
only a first chunk or a first turn, broke on uneven heads or layers, or returned other tokens.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache

from kvbudget.allocator import Plan
from kvbudget.heuristics import (
    ExpectedAttention,
    KeyDiff,
    KeyNorm,
    LagKV,
    ObservationWindow,
    SinkRecent,
    TokenHeuristic,
    Tova,
)
from kvbudget.runtime import budgeted, geometry_of

HEURISTICS: list[TokenHeuristic] = [
    KeyNorm(),
    ObservationWindow(),
    Tova(),
    ExpectedAttention(),
    KeyDiff(),
    LagKV(),
    SinkRecent(),
]
UNEVEN = np.array([[60, 21], [33, 12], [14, 27]])
GREEDY = {"do_sample": False, "max_new_tokens": 16}


@pytest.fixture
def llama(model_of) -> PreTrainedModel:
    return model_of("LlamaForCausalLM")


@pytest.fixture
def plan_of(llama, plan_for) -> Callable[..., Plan]:
    """A plan for the model, with room for contexts of 400 tokens."""

    def build(capacity: np.ndarray | int, rows: int = 1) -> Plan:
        filled = np.zeros((3, 2), dtype=int) + capacity
        return plan_for(geometry_of(llama), filled, 400, rows)

    return build


def draw(rows: int, tokens: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 97, (rows, tokens), generator=generator)


def held(cache, layers: int = 3) -> np.ndarray:
    """Tokens that each KV head of each layer holds in the first row."""
    return np.array([[len(c) for c in cache.kept_positions(layer)[0]] for layer in range(layers)])


@pytest.mark.parametrize("heuristic", HEURISTICS, ids=lambda each: type(each).__name__)
def test_a_left_padded_row_equals_the_row_alone_and_no_padding_is_stored(llama, plan_of, heuristic):
    whole, short = draw(1, 128), draw(1, 64, seed=1)
    padded = torch.cat([torch.zeros(1, 64, dtype=torch.long), short], 1)
    mask = torch.ones(2, 128, dtype=torch.long)
    mask[1, :64] = 0
    alone = {}
    for name, prompt in (("whole", whole), ("short", short)):
        with budgeted(llama, plan_of(UNEVEN), heuristic):
            alone[name] = llama.generate(prompt, **GREEDY)[0, prompt.shape[1] :]
    with budgeted(llama, plan_of(UNEVEN, 2), heuristic) as cache:
        both = llama.generate(torch.cat([whole, padded]), attention_mask=mask, **GREEDY)
        assert all(int(c.min()) >= 64 for n in range(3) for c in cache.kept_positions(n)[1])
    assert torch.equal(both[0, 128:], alone["whole"])
    assert torch.equal(both[1, 128:], alone["short"])


@pytest.mark.parametrize("heuristic", HEURISTICS, ids=lambda each: type(each).__name__)
def test_a_prompt_in_four_chunks_holds_the_budget_after_each(llama, plan_of, heuristic):
    plan, seen = plan_of(UNEVEN), []
    with torch.no_grad(), budgeted(llama, plan, heuristic) as cache:
        llama.register_forward_hook(lambda *_: seen.append((cache.nbytes(), held(cache))))
        llama.generate(draw(1, 256), prefill_chunk_size=64, do_sample=False, max_new_tokens=1)
    llama._forward_hooks.clear()
    assert len(seen) == 4
    for nbytes, tokens in seen:
        assert nbytes <= plan.budget_bytes
        assert (tokens <= UNEVEN).all()
    assert (seen[-1][1] == UNEVEN).all()


@pytest.mark.parametrize("heuristic", HEURISTICS, ids=lambda each: type(each).__name__)
def test_a_second_turn_is_compressed_like_the_first(llama, plan_of, heuristic):
    with torch.no_grad(), budgeted(llama, plan_of(UNEVEN), heuristic) as cache:
        llama(draw(1, 128), past_key_values=cache)
        assert (held(cache) == UNEVEN).all()
        llama(draw(1, 256, seed=1), past_key_values=cache)
        assert (held(cache) == UNEVEN).all()
        newest = [int(c.max()) for n in range(3) for c in cache.kept_positions(n)[0]]
        assert max(newest) >= 128
        assert cache.nbytes() == cache.plan.used_bytes


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("question", [2, 7, 64, 150])
def test_a_question_after_uneven_layers_and_heads_equals_masked_attention(
    llama, plan_of, oracle, attention, question
):
    llama.set_attn_implementation(attention)
    prompt, asked = draw(1, 128), draw(1, question, seed=1)
    with torch.no_grad(), budgeted(llama, plan_of(UNEVEN), SinkRecent()) as cache:
        llama(prompt, past_key_values=cache)
        kept = [cache.kept_positions(layer) for layer in range(3)]
        ours = llama(asked, past_key_values=cache).logits
        assert (held(cache) <= UNEVEN).all()
    assert llama.config._attn_implementation == attention
    with torch.no_grad(), oracle.installed(llama) as everything:
        llama(prompt, past_key_values=everything)
        oracle.held = kept
        theirs = llama(asked, past_key_values=everything).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("heuristic", HEURISTICS, ids=lambda each: type(each).__name__)
def test_eager_and_sdpa_models_are_served_alike(llama, plan_of, heuristic):
    found = []
    for attention in ("eager", "sdpa"):
        llama.set_attn_implementation(attention)
        with budgeted(llama, plan_of(UNEVEN), heuristic):
            found.append(llama.generate(draw(1, 128), **GREEDY))
    assert torch.equal(*found)


@pytest.mark.parametrize("heuristic", HEURISTICS, ids=lambda each: type(each).__name__)
def test_beams_stay_in_the_budget_of_their_rows(llama, plan_of, heuristic):
    plan, seen = plan_of(UNEVEN, 3), []
    with budgeted(llama, plan, heuristic) as cache:
        hook = llama.register_forward_hook(lambda *_: seen.append(cache.nbytes()))
        llama.generate(draw(1, 128), **GREEDY, num_beams=3)
        hook.remove()
    assert len(seen) == 16
    assert max(seen) <= plan.budget_bytes


@pytest.mark.parametrize("drafts", ["assistant", "lookup"])
def test_assisted_generation_equals_greedy_and_takes_back_just_what_was_refused(
    llama, plan_of, model_of, drafts
):
    prompt = draw(1, 20).repeat(1, 3)
    helped = {"prompt_lookup_num_tokens": 5}
    if drafts == "assistant":
        helped = {"assistant_model": model_of("Qwen3ForCausalLM")}
    plain = llama.generate(prompt, **GREEDY)
    read: list[int] = []
    with budgeted(llama, plan_of(90)) as cache:
        hook = llama.model.embed_tokens.register_forward_hook(
            lambda _, given, __: read.append(given[0].shape[1])
        )
        ours = llama.generate(prompt, **GREEDY, **helped)
        hook.remove()
        assert torch.equal(ours, plain)
        assert cache.get_seq_length() == plain.shape[1] - 1
        everything = torch.arange(plain.shape[1] - 1)
        for layer in range(3):
            assert all(torch.equal(c, everything) for c in cache.kept_positions(layer)[0])
    assert sum(read) > plain.shape[1] - 1


def test_a_draft_that_is_taken_back_after_an_eviction_leaves_no_column_behind(llama, plan_of):
    with torch.no_grad(), budgeted(llama, plan_of(UNEVEN), SinkRecent()) as cache:
        llama(draw(1, 128), past_key_values=cache)
        llama(draw(1, 6, seed=1), past_key_values=cache)
        cache.crop(-4)
        assert cache.get_seq_length() == 130
        assert all(int(c.max()) == 129 for n in range(3) for c in cache.kept_positions(n)[0])


def test_a_static_cache_beside_it_is_left_alone(llama, plan_of):
    prompt = draw(1, 64)

    def static() -> StaticCache:
        return StaticCache(config=llama.config, max_cache_len=100)

    plain = llama.generate(prompt, **GREEDY, past_key_values=static())
    with budgeted(llama, plan_of(20)) as cache:
        assert torch.equal(llama.generate(prompt, **GREEDY, past_key_values=static()), plain)
        assert cache.nbytes() == 0
        llama.generate(prompt, **GREEDY)
        assert cache.nbytes() <= cache.plan.budget_bytes


@pytest.mark.parametrize("heuristic", HEURISTICS, ids=lambda each: type(each).__name__)
def test_decoding_at_a_fixed_size_stays_there(llama, plan_of, heuristic):
    plan, seen = plan_of(UNEVEN), []
    with budgeted(llama, plan, heuristic) as cache:
        hook = llama.register_forward_hook(lambda *_: seen.append((cache.nbytes(), held(cache))))
        llama.generate(draw(1, 70), do_sample=False, max_new_tokens=200)
        hook.remove()
    assert len(seen) == 200
    for nbytes, tokens in seen:
        assert nbytes <= plan.budget_bytes
        assert (tokens <= UNEVEN).all()
        assert (2 * tokens >= UNEVEN).all()
    assert seen[-1][0] == plan.used_bytes


def test_a_compiled_model_gives_the_same_tokens(llama, plan_of):
    """Compiled in place, as `generate` sees it; kvbudget's own steps stay outside the graphs."""
    prompt = draw(1, 40)
    with budgeted(llama, plan_of(24), SinkRecent()):
        expected = llama.generate(prompt, do_sample=False, max_new_tokens=6)
    llama.compile(backend="eager")
    with budgeted(llama, plan_of(24), SinkRecent()) as cache:
        ours = llama.generate(prompt, do_sample=False, max_new_tokens=6)
        assert 0 < cache.nbytes() <= cache.plan.budget_bytes
    assert torch.equal(ours, expected)


def test_a_model_compiled_around_it_gives_the_same_logits(llama, plan_of):
    prompt = draw(1, 40)
    found = []
    for call in (llama, torch.compile(llama, backend="eager")):
        with torch.no_grad(), budgeted(llama, plan_of(24), SinkRecent()) as cache:
            call(prompt, past_key_values=cache)
            found.append(call(prompt[:, :1], past_key_values=cache).logits)
            assert 0 < cache.nbytes() <= cache.plan.budget_bytes
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)
