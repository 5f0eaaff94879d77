"""What cannot be served exactly is refused by name, before a wrong token, and leaves no trace."""

from dataclasses import replace

import pytest
import torch
import transformers

from kvbudget.allocator import InfeasibleBudget, KVBudgetError, UnsupportedModel, WrongModel
from kvbudget.heuristics import Baklava, SinkRecent
from kvbudget.runtime import budgeted, geometry_of, measure_profile

TINY = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


PROMPT = torch.randint(3, 97, (1, 30), generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize(
    ("config", "model"),
    [("MambaConfig", "MambaForCausalLM"), ("FalconMambaConfig", "FalconMambaForCausalLM")],
)
def test_other_families_are_refused_by_name(config, model):
    fields = {**TINY, "state_size": 4, "n_layer": 2, "n_head": 4}
    built = getattr(transformers, model)(getattr(transformers, config)(**fields))
    with pytest.raises(UnsupportedModel, match=f"{model} is not supported"):
        geometry_of(built)
    with pytest.raises(UnsupportedModel, match=model):
        measure_profile(built, [[1] * 40], SinkRecent(), progress=False)


def test_a_plan_of_another_model_is_refused(small_plan, model_of):
    with (
        pytest.raises(WrongModel, match=r"Plan was made for Llama.* the model is Qwen2"),
        budgeted(model_of("Qwen2ForCausalLM"), small_plan),
    ):
        pass


def test_a_plan_of_another_element_type_says_how_to_mend_it(small_plan, llama):
    with (
        pytest.raises(WrongModel, match=r'profile\.with_dtype\("bfloat16"\)'),
        budgeted(llama.bfloat16(), small_plan),
    ):
        pass


def test_a_prompt_longer_than_the_context_is_refused_before_the_first_token(llama, small_plan):
    with (
        budgeted(llama, small_plan) as cache,
        pytest.raises(InfeasibleBudget, match=r"at most 40 tokens, but the prompt has 41"),
    ):
        llama(torch.full((1, 41), 5), past_key_values=cache)


def test_right_padding_is_refused(llama, small_plan):
    mask = torch.ones(1, 30, dtype=torch.long)
    mask[0, -3:] = 0
    with (
        budgeted(llama, small_plan) as cache,
        pytest.raises(ValueError, match="padded on the left"),
    ):
        llama(torch.full((1, 30), 5), attention_mask=mask, past_key_values=cache)


def test_the_cache_outside_its_context_is_refused_before_it_changes(llama, small_plan):
    with budgeted(llama, small_plan) as cache:
        llama(PROMPT[:, :10], past_key_values=cache)
    for part in (llama, llama.model):
        with pytest.raises(KVBudgetError, match=r"(into|in) the context"):
            part(PROMPT, past_key_values=cache)
    assert cache.get_seq_length() == 10
    with budgeted(llama, small_plan) as other:
        with pytest.raises(KVBudgetError, match=r"after the end of its `with budgeted"):
            llama(PROMPT, past_key_values=cache)
        llama(PROMPT, past_key_values=other)


@pytest.mark.parametrize("layers", [1, 3])
def test_a_cache_of_another_model_is_refused(llama, small_plan, model_of, layers):
    other = model_of("LlamaForCausalLM")
    other.model.layers = other.model.layers[:layers]
    with budgeted(llama, small_plan) as cache:
        with pytest.raises(KVBudgetError, match="elsewhere than a call of its own model"):
            other(PROMPT, past_key_values=cache)
        assert cache.get_seq_length() == 0
        llama(PROMPT, past_key_values=cache)


def test_a_cache_of_another_context_is_refused(llama, small_plan, model_of):
    other = model_of("LlamaForCausalLM")
    with budgeted(llama, small_plan) as cache, budgeted(other, small_plan) as its_own:
        with pytest.raises(WrongModel, match=r"another LlamaForCausalLM.*a cache of its own"):
            other(PROMPT, past_key_values=cache)
        other(PROMPT, past_key_values=its_own)
        llama(PROMPT, past_key_values=cache)


def test_the_attention_of_the_model_is_put_back_even_after_an_error(llama, small_plan):
    before = llama.config._attn_implementation
    with pytest.raises(InfeasibleBudget), budgeted(llama, small_plan) as cache:
        llama(torch.full((1, 41), 5), past_key_values=cache)
    assert llama.config._attn_implementation == before


def test_a_model_in_training_with_attention_dropout_is_refused(llama, small_plan):
    for module in llama.modules():
        if type(module).__name__ == "LlamaAttention":
            module.attention_dropout = 0.5
    llama.train()
    with budgeted(llama, small_plan) as cache, pytest.raises(ValueError, match=r"model\.eval"):
        llama(torch.full((1, 30), 5), past_key_values=cache)


def test_a_later_mask_that_hides_held_tokens_is_refused(llama, small_plan):
    tokens, mask = torch.full((1, 20), 5), torch.ones(1, 20, dtype=torch.long)
    mask[:, 3:8] = 0
    with torch.no_grad(), budgeted(llama, small_plan) as cache:
        llama(tokens[:, :16], past_key_values=cache)
        with pytest.raises(ValueError, match="must show all 20 columns"):
            llama(tokens[:, 16:], attention_mask=mask, past_key_values=cache)


def test_additive_masks_hide_padding_with_any_large_negative_number(llama, small_plan):
    seen = torch.ones(20, 20).tril().bool()
    seen[:, :5] = False
    mask = torch.zeros(1, 1, 20, 20).masked_fill(~seen, -1e9)
    with torch.no_grad(), budgeted(llama, small_plan) as cache:
        llama(torch.full((1, 20), 5), attention_mask=mask, past_key_values=cache)
        assert int(cache.kept_positions(0)[0][0].min()) == 5


@pytest.mark.parametrize("rows", [1, 3])
def test_another_number_of_rows_is_refused(llama, plan_for, rows):
    plan = plan_for(geometry_of(llama), torch.full((3, 2), 20).numpy(), 40, 3)
    with torch.no_grad(), budgeted(llama, plan) as cache:
        llama(PROMPT.repeat(2, 1), past_key_values=cache)
        for part in (llama, llama.model):
            with pytest.raises(ValueError, match=rf"holds 2 row\(s\), but the input has {rows}"):
                part(PROMPT[:, :4].repeat(rows, 1), past_key_values=cache)
        llama(PROMPT[:, :4].repeat(2, 1), past_key_values=cache)
        assert cache.get_seq_length() == 34
        cache.reset()
        llama(PROMPT.repeat(rows, 1), past_key_values=cache)


def test_no_tokens_at_all_are_refused(llama, small_plan):
    with torch.no_grad(), budgeted(llama, small_plan) as cache:
        for _ in range(2):
            for name, empty in (
                ("input_ids", PROMPT[:, :0]),
                ("inputs_embeds", torch.zeros(1, 0, 32)),
            ):
                with pytest.raises(ValueError, match="at least one token"):
                    llama(**{name: empty}, past_key_values=cache)
            llama(PROMPT[:, :5], past_key_values=cache)


def test_dropout_of_any_kind_is_refused(model_of, plan_for):
    model = model_of("GPT2LMHeadModel").train()
    plan = plan_for(geometry_of(model), torch.full((3, 4), 20).numpy(), 40)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1 if module is model.transformer.drop else 0.0
    with budgeted(model, plan) as cache:
        with pytest.raises(ValueError, match=r"dropout.*model\.eval"):
            model(PROMPT, past_key_values=cache)
        assert model.training
        model.transformer.drop.p = 0.0
        model(PROMPT, past_key_values=cache)


def test_checkpointed_gradients_are_refused(model_of, small_plan):
    model = model_of("LlamaForCausalLM").train()
    model.activation_checkpointing_enable()
    with budgeted(model, small_plan) as cache:
        with pytest.raises(ValueError, match=r"checkpoints gradients.*model\.eval"):
            model(PROMPT, past_key_values=cache)
        model.eval()(PROMPT, past_key_values=cache)


@pytest.mark.parametrize("heuristic", [SinkRecent, "sink_recent", Baklava()])
def test_something_else_than_a_token_heuristic_is_refused_at_once(llama, small_plan, heuristic):
    with pytest.raises(TypeError, match="instance of a TokenHeuristic"):
        budgeted(llama, small_plan, heuristic).__enter__()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", r"names no token heuristic. Pass one: budgeted"),
        ("mine", r"'mine', which is not registered in this program"),
        ("baklava", r"scores whole caches"),
    ],
)
def test_a_plan_without_a_token_heuristic_says_what_to_pass(llama, small_plan, name, message):
    plan = replace(small_plan, heuristic=name)
    with pytest.raises(ValueError, match=message):
        budgeted(llama, plan).__enter__()
    with budgeted(llama, plan, SinkRecent()) as cache:
        llama(torch.full((1, 30), 5), past_key_values=cache)
        assert repr(cache).startswith("BudgetedCache(30 tokens read, ")


def test_a_path_instead_of_a_plan_is_refused(llama):
    with pytest.raises(TypeError, match=r"Plan\.load"):
        budgeted(llama, "plan.json").__enter__()


@pytest.mark.parametrize("wrap", [torch.compile, lambda model: model.name_or_path, type])
def test_something_else_than_a_model_is_refused(llama, small_plan, wrap):
    with pytest.raises(TypeError, match="must be a PreTrainedModel"):
        budgeted(wrap(llama), small_plan).__enter__()


def test_differentiating_through_held_tokens_is_refused(llama, small_plan):
    with budgeted(llama, small_plan) as cache:
        llama(torch.full((1, 30), 5), past_key_values=cache)
        logits = llama(torch.full((1, 2), 5), past_key_values=cache).logits
        with pytest.raises(RuntimeError, match="must not be differentiated"):
            logits.sum().backward()


def test_bidirectional_attention_is_refused(model_of):
    model = model_of("Gemma3ForCausalLM")
    model.config.use_bidirectional_attention = True
    with pytest.raises(UnsupportedModel, match="both directions"):
        geometry_of(model)


def test_more_cannot_be_cropped_than_was_seen(llama, small_plan):
    with budgeted(llama, small_plan) as cache, pytest.raises(ValueError, match="at most the 0"):
        cache.crop(-5)


def test_cropping_takes_a_negative_number_as_transformers_gives_it(llama, small_plan):
    with budgeted(llama, small_plan) as cache:
        llama(torch.full((1, 30), 5), past_key_values=cache)
        with pytest.raises(ValueError, match="0 or negative"):
            cache.crop(3)
        cache.crop(-2)
        assert cache.get_seq_length() == 28
