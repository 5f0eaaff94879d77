"""What cannot be served exactly is refused by name, before a wrong token."""

import pytest
import torch
import transformers

from kvbudget.allocator import InfeasibleBudget, UnsupportedModel, WrongModel
from kvbudget.heuristics import SinkRecent
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


@pytest.fixture
def llama(model_of):
    return model_of("LlamaForCausalLM")


@pytest.fixture
def small_plan(llama, plan_for, random_capacity):
    geometry = geometry_of(llama)
    return plan_for(geometry, random_capacity(geometry, 8, 20), 40)


@pytest.mark.parametrize(
    ("config", "model"),
    [("MambaConfig", "MambaForCausalLM"), ("BloomConfig", "BloomForCausalLM")],
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


def test_the_cache_outside_its_context_gives_an_error_not_nonsense(llama, small_plan):
    with budgeted(llama, small_plan) as cache:
        pass
    with pytest.raises(UnsupportedModel, match="never reached the attention function"):
        llama(torch.full((1, 30), 5), past_key_values=cache)


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


def test_cropping_takes_a_negative_number_as_transformers_gives_it(llama, small_plan):
    with budgeted(llama, small_plan) as cache:
        llama(torch.full((1, 30), 5), past_key_values=cache)
        with pytest.raises(ValueError, match="0 or negative"):
            cache.crop(3)
        cache.crop(-2)
        assert cache.get_seq_length() == 28
