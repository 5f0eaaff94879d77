"""What users pass besides plain prompts, and what they pass by mistake."""

import pytest
import torch

import kvbudget as kvb
from kvbudget.allocator import WrongModel
from kvbudget.heuristics import SinkRecent
from kvbudget.runtime import budgeted, geometry_of, measure_profile
from kvbudget.runtime.prompts import token_ids

TOKENS = torch.randint(3, 97, (1, 20), generator=torch.Generator().manual_seed(2))


def test_stop_strings_stop(plan_for):
    model, tokenizer = kvb.reference_model()
    geometry = geometry_of(model)
    capacity = torch.full((geometry.layers, geometry.kv_heads), 30).numpy()
    inputs = tokenizer("The cat sat on the mat and the dog", return_tensors="pt")
    options = {"max_new_tokens": 8, "do_sample": False, "stop_strings": ["e"]}
    plain = model.generate(**inputs, **options, tokenizer=tokenizer)
    with budgeted(model, plan_for(geometry, capacity, 30), SinkRecent()):
        found = model.generate(**inputs, **options, tokenizer=tokenizer)
    assert torch.equal(plain, found)


def test_a_model_whose_forward_is_compiled_is_looked_at(model_of, plan_for):
    model = model_of("LlamaForCausalLM")
    expected = model.generate(TOKENS, max_new_tokens=5, do_sample=False)
    model.forward = torch.compile(model.forward, backend="eager")
    capacity = torch.full((3, 2), 30).numpy()
    with budgeted(model, plan_for(geometry_of(model), capacity, 30), SinkRecent()):
        assert torch.equal(model.generate(TOKENS, max_new_tokens=5, do_sample=False), expected)


def test_keys_and_values_of_two_types_are_refused(llama, small_plan):
    autocast = torch.autocast("cpu", torch.bfloat16)
    refused = pytest.raises(WrongModel, match=r"Leave torch\.autocast")
    with budgeted(llama, small_plan) as cache, autocast, refused:
        llama(TOKENS, past_key_values=cache)


def test_a_model_that_changes_its_type_is_told_what_the_cache_holds(llama, small_plan):
    with budgeted(llama, small_plan) as cache:
        llama(TOKENS, past_key_values=cache)
        llama.bfloat16()
        with pytest.raises(WrongModel, match=r"holds torch\.float32"):
            llama(TOKENS[:, :1], past_key_values=cache)


@pytest.mark.parametrize(
    "call", [geometry_of, lambda m: measure_profile(m, [[1] * 40], SinkRecent())]
)
def test_a_name_instead_of_a_model_is_refused(call):
    with pytest.raises(TypeError, match="must be a PreTrainedModel"):
        call("gpt2")


def test_one_row_of_token_ids_is_a_prompt():
    assert token_ids([torch.full((1, 40), 3)], None, 97) == [[3] * 40]


@pytest.mark.parametrize("prompt", [[1.5] * 40, [{"role": "user"}] * 40, torch.full((2, 40), 3)])
def test_what_holds_no_token_ids_is_no_prompt(prompt):
    with pytest.raises(TypeError, match="a text or one list of token ids"):
        token_ids([prompt], None, 97)
