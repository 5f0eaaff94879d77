"""A second reading equals running the model on the prompt and its parts, and decides what stays."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

import kvbudget as kvb
from kvbudget.heuristics import KVZip, ObservationWindow
from kvbudget.heuristics.tokens.kv_zip import SINKS
from kvbudget.runtime import budgeted, geometry_of
from kvbudget.runtime.eviction import RECENT_TOKENS, select
from kvbudget.runtime.rereading import reread
from kvbudget.testing.largest_tensor import LargestTensor

PROMPT = 60


def draw(rows: int, tokens: int, seed: int = 1) -> Tensor:
    return torch.randint(3, 97, (rows, tokens), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def model(model_of):
    return model_of("LlamaForCausalLM")


def attentions(model, ids: list[int]) -> list[Tensor]:
    """Attention of every layer as transformers computes it, [heads, tokens, tokens]."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        found = model(torch.tensor([ids]), output_attentions=True).attentions
    model.set_attn_implementation(before)
    return [each[0].double() for each in found]


def most_attention(model, prompt: list[int], heuristic: KVZip) -> list[Tensor]:
    """One plain forward pass for each part, and a loop over what its queries give."""
    geometry = geometry_of(model)
    states = [torch.zeros(geometry.kv_heads, len(prompt)) for _ in range(geometry.layers)]
    for part in heuristic.parts(prompt, None):
        dense = attentions(model, [*prompt, *part.ids])
        for state, weights in zip(states, dense, strict=True):
            group = len(weights) // geometry.kv_heads
            shared = [*range(part.beside), *range(part.first, part.last)]
            own = range(len(prompt), len(prompt) + len(part.ids))
            for head, rows in enumerate(weights):
                for query in own:
                    # with learned sinks attention sums to less than 1, and they take part too
                    rest = 1 - rows[query].sum()
                    total = rows[query, [*shared, *own]].sum() + rest.clamp_min(0)
                    if total == 0:
                        continue
                    for token in range(part.first, part.last):
                        given = float(rows[query, token] / total)
                        best = state[head // group, token]
                        state[head // group, token] = max(float(best), given)
    return states


def test_one_part_equals_plain_attention_in_every_family(family_model):
    prompt, heuristic = draw(1, 30)[0].tolist(), KVZip(instruction="5 6 7")
    found = reread(family_model, heuristic, prompt)
    for state, weights in zip(found, attentions(family_model, [*prompt, 5, 6, 7, *prompt])):  # noqa: B905
        given = weights[:, 30:, :30].amax(1)
        wanted = given.view(state.shape[1], -1, 30).amax(1)
        torch.testing.assert_close(state[0, :, :, 0].double() - 1, wanted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GptOssForCausalLM"])
def test_every_part_is_read_as_if_it_followed_the_prompt_at_once(model_of, architecture):
    model, prompt = model_of(architecture), draw(1, 50)[0].tolist()
    heuristic = KVZip(part_tokens=17, lead_tokens=4, instruction="9 8")
    assert [part.beside for part in heuristic.parts(prompt, None)] == [0, SINKS, SINKS]
    for found, wanted in zip(
        reread(model, heuristic, prompt), most_attention(model, prompt, heuristic), strict=True
    ):
        torch.testing.assert_close(found[0, :, :, 0] - 1, wanted, atol=1e-5, rtol=0)


def test_a_window_ends_where_it_does_for_the_model(model_of):
    model, prompt = model_of("MistralForCausalLM"), draw(1, 50)[0].tolist()
    heuristic = KVZip(part_tokens=30)
    found = reread(model, heuristic, prompt)
    for state, wanted in zip(found, most_attention(model, prompt, heuristic), strict=True):
        torch.testing.assert_close(state[0, :, :, 0] - 1, wanted, atol=1e-5, rtol=0)
    assert float(found[0][0, :, :30].max()) == 1 < float(found[0][0, :, 30:].max())


def test_memory_is_linear_in_tokens(model):
    model.config.max_position_embeddings = 10_000

    def largest(tokens: int) -> int:
        prompt = draw(1, tokens)[0].tolist()
        with LargestTensor() as most:
            reread(model, KVZip(part_tokens=256), prompt)
        return most.numel

    assert largest(1400) < 2.1 * largest(700)
    assert largest(1400) < 1400 * 1400 / 3


@pytest.mark.parametrize("positions", [PROMPT + 59, PROMPT + 5])
def test_parts_become_shorter_where_positions_run_out(model, positions):
    prompt = draw(1, PROMPT)[0].tolist()
    model.config.max_position_embeddings = positions
    if positions == PROMPT + 5:
        with pytest.raises(ValueError, match="has only 5 positions left there"):
            reread(model, KVZip(), prompt)
        return
    assert len(KVZip().parts(prompt, positions - PROMPT)) == 2
    assert reread(model, KVZip(), prompt)[0].shape == (1, 2, PROMPT, 1)


def test_an_instruction_of_another_vocabulary_is_refused(model):
    with pytest.raises(ValueError, match=r"must hold tokens in 0\.\.96, but got \d+\.\.97"):
        reread(model, KVZip(instruction="97"), draw(1, PROMPT)[0].tolist())


@pytest.fixture
def plan(model, plan_for, random_capacity):
    """Room for 24 to 39 tokens in each cache of one sequence."""
    geometry = geometry_of(model)
    return plan_for(geometry, random_capacity(geometry, 24, 40), 200)


@pytest.fixture
def plan_of_three(plan):
    """The same for three sequences."""
    return replace(plan, batch_size=3, budget_bytes=3 * plan.budget_bytes)


def kept_by_hand(model, plan, prompt: list[int], layer: int) -> list[list[int]]:
    """Columns of the best tokens of each KV head, as positions in the prompt."""
    scores = most_attention(model, prompt, KVZip())[layer][None]
    capacity = torch.tensor(plan.capacity_tokens[layer])
    keep = select(scores, torch.ones_like(scores, dtype=torch.bool), capacity)[0]
    return [row.nonzero().flatten().tolist() for row in keep]


def held(cache, layer: int, row: int = 0) -> list[list[int]]:
    return [columns.tolist() for columns in cache.kept_positions(layer)[row]]


def test_what_stays_of_a_prompt_are_the_tokens_with_the_top_scores(model, plan):
    prompt = draw(1, PROMPT)
    with torch.inference_mode(), budgeted(model, plan, KVZip()) as cache:
        model(prompt, past_key_values=cache)
        for layer in range(3):
            assert held(cache, layer) == kept_by_hand(model, plan, prompt[0].tolist(), layer)
        cache.reset()
        model(input_ids=prompt.flip(1), past_key_values=cache)
        assert held(cache, 1) == kept_by_hand(model, plan, prompt[0].flip(0).tolist(), 1)


def test_rows_of_a_padded_batch_are_read_one_by_one(model, plan_of_three):
    prompt = draw(3, PROMPT)
    mask = torch.ones_like(prompt)
    mask[1, :9] = 0
    prompt[2] = prompt[0]
    with torch.inference_mode(), budgeted(model, plan_of_three, KVZip()) as cache:
        model(prompt, attention_mask=mask, past_key_values=cache)
        for layer in range(3):
            whole = kept_by_hand(model, plan_of_three, prompt[0].tolist(), layer)
            assert held(cache, layer, 0) == held(cache, layer, 2) == whole
            bare = kept_by_hand(model, plan_of_three, prompt[1, 9:].tolist(), layer)
            assert held(cache, layer, 1) == [[column + 9 for column in head] for head in bare]


def states(cache) -> dict[tuple[int, int, int], float]:
    """State of every token that waits in a prefix, by layer, KV head and column."""
    found = {}
    for index, layer in enumerate(cache.stack.layers):
        segments = layer.store.segments.lengths
        columns, told = layer.store.kept_columns(), layer.store.kept_state()[:, 0]
        pairs = zip(columns.split(segments), told.split(segments), strict=True)
        for head, (held, numbers) in zip(range(layer.store.kv_heads), pairs, strict=False):
            for column, number in zip(held.tolist(), numbers.tolist(), strict=True):
                found[index, head, column] = number
    return found


@pytest.mark.parametrize("how", [{}, {"num_beams": 3}, {"num_return_sequences": 2}], ids=str)
def test_what_was_told_survives_evictions_and_beams(model, plan, plan_of_three, how):
    prompt = draw(1, PROMPT)
    told = reread(model, KVZip(), prompt[0].tolist())
    sample = "num_return_sequences" in how
    with budgeted(model, plan_of_three if how else plan, KVZip()) as cache:
        model.generate(prompt, max_new_tokens=20, do_sample=sample, past_key_values=cache, **how)
        held_states = states(cache)
    assert sum(column < PROMPT for *_, column in held_states) > 3 * 2 * 4
    for (layer, head, column), found in held_states.items():
        wanted = float(told[layer][0, head, column, 0]) if column < PROMPT else 0.0
        assert found == pytest.approx(wanted, abs=1e-6)


def test_decoded_tokens_push_out_the_worst_of_the_prompt(model, plan):
    tokens = draw(1, PROMPT + 12)
    with torch.inference_mode(), budgeted(model, plan, KVZip()) as cache:
        model(tokens[:, :PROMPT], past_key_values=cache)
        before = [held(cache, layer) for layer in range(3)]
        for column in range(PROMPT, PROMPT + 12):
            model(tokens[:, column : column + 1], past_key_values=cache)
        for layer, state in enumerate(reread(model, KVZip(), tokens[0, :PROMPT].tolist())):
            for head, columns in enumerate(held(cache, layer)):
                assert set(range(PROMPT, PROMPT + 12)) <= set(columns)
                # the first and the last tokens of the prompt were protected when it was cut
                free = [
                    each for each in before[layer][head] if SINKS <= each < PROMPT - RECENT_TOKENS
                ]
                kept = [float(state[0, head, each, 0]) for each in free if each in columns]
                gone = [float(state[0, head, each, 0]) for each in free if each not in columns]
                assert gone
                assert not kept or max(gone) <= min(kept)


def test_a_crop_and_a_second_turn_keep_what_was_told(model, plan):
    tokens = draw(1, PROMPT + 30)
    told = reread(model, KVZip(), tokens[0, :PROMPT].tolist())
    with torch.inference_mode(), budgeted(model, plan, KVZip()) as cache:
        model(tokens[:, :PROMPT], past_key_values=cache)
        cache.crop(-5)
        model(tokens[:, PROMPT - 5 :], past_key_values=cache)
        for (layer, head, column), found in states(cache).items():
            wanted = float(told[layer][0, head, column, 0]) if column < PROMPT - 5 else 0.0
            assert found == pytest.approx(wanted, abs=1e-6)


def test_assisted_generation_and_reading_in_blocks_run(model, plan):
    prompt = draw(1, PROMPT)
    for how in ({"prompt_lookup_num_tokens": 3}, {"prefill_chunk_size": 16}):
        with budgeted(model, plan, KVZip()) as cache:
            model.generate(prompt, max_new_tokens=20, do_sample=False, past_key_values=cache, **how)
            assert cache.nbytes() <= plan.budget_bytes


def test_the_prompt_is_read_again_only_when_it_goes_into_the_cache(model, plan, monkeypatch):
    read = []
    real = kvb.runtime.rereading.reread

    def counted(*given):
        read.append(given[2])
        return real(*given)

    monkeypatch.setattr(kvb.runtime.rereading, "reread", counted)
    prompt = draw(1, PROMPT)
    with torch.inference_mode(), budgeted(model, plan, KVZip()) as cache:
        model(prompt)
        model(prompt, past_key_values=DynamicCache())
        assert read == []
        model.generate(prompt, max_new_tokens=30, do_sample=False, past_key_values=cache)
        assert read == [tuple(prompt[0].tolist())]
    with torch.inference_mode(), budgeted(model, plan, ObservationWindow()) as cache:
        model(prompt, past_key_values=cache)
    assert len(read) == 1


def test_the_model_is_left_as_it_was_also_after_an_error(model, plan):
    def fail_inside() -> None:
        with budgeted(model, plan, KVZip()) as cache:
            assert model._forward_pre_hooks
            model(inputs_embeds=torch.zeros(1, PROMPT, 32), past_key_values=cache)

    with pytest.raises(ValueError, match="must be given as `input_ids`, but got none"):
        fail_inside()
    assert not model._forward_pre_hooks
    assert model.config._attn_implementation == "eager"


def test_a_mask_that_cannot_tell_padding_is_refused(model, plan):
    mask = torch.ones(1, 1, PROMPT, PROMPT, dtype=torch.bool).tril()
    with (
        pytest.warns(UserWarning, match="never used"),
        torch.inference_mode(),
        budgeted(model, plan, KVZip()) as cache,
        pytest.raises(ValueError, match=r"must be \[batch, tokens\], but got \[1, 1, 60, 60\]"),
    ):
        model(draw(1, PROMPT), attention_mask=mask, past_key_values=cache)


@pytest.mark.parametrize("tokens", [PROMPT - 1, PROMPT + 1])
def test_a_mask_of_another_length_is_refused(model, plan, tokens):
    mask = torch.ones(1, tokens, dtype=torch.long)
    message = rf"one entry per token .* \[1, 60\], but got \[1, {tokens}"
    with (
        pytest.warns(UserWarning, match="never used"),
        torch.inference_mode(),
        budgeted(model, plan, KVZip()) as cache,
        pytest.raises(ValueError, match=message),
    ):
        model(draw(1, PROMPT), attention_mask=mask, past_key_values=cache)


def test_a_part_of_the_model_cannot_be_called_alone(model, plan):
    with (
        torch.inference_mode(),
        budgeted(model, plan, KVZip()) as cache,
        pytest.raises(ValueError, match="Call the model that was given to budgeted"),
    ):
        model.base_model(draw(1, PROMPT), past_key_values=cache)


def test_a_profile_is_measured_by_what_the_second_reading_of_the_context_tells(model):
    prompt = draw(1, 80)[0].tolist()
    heuristic = KVZip(instruction="4 4")
    profile = kvb.measure_profile(
        model, [prompt], heuristic, measure="attention_mass", future_tokens=20, progress=False
    )
    assert profile.heuristic == "kv_zip"
    assert ("instruction", "4 4") in profile.heuristic_settings
    dense = attentions(model, prompt)
    kept = profile.geometry.capacity_tokens(profile.kept_fraction, 60)
    level = int((kept[0, 0] >= 30).argmax())
    assert SINKS + RECENT_TOKENS < kept[0, 0, level] < 60
    for layer, scores in enumerate(most_attention(model, prompt[:60], heuristic)):
        for head in range(2):
            capacity = torch.tensor([int(kept[layer, head, level])])
            keep = select(scores[None, head : head + 1], torch.ones(1, 1, 60).bool(), capacity)
            lost = dense[layer][2 * head : 2 * head + 2, 60:, :60][:, :, ~keep[0, 0]].sum(-1)
            assert profile.loss[layer, head, level] == pytest.approx(float(lost.mean()), abs=1e-4)
