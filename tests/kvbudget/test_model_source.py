"""A model is taken from a folder, or refused in one sentence."""

import pytest
import transformers

from kvbudget.model_source import load_model

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


@pytest.fixture
def folder(tmp_path):
    model = transformers.Gemma2ForCausalLM(transformers.Gemma2Config(**TINY))
    model.save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_without_a_tokenizer_is_refused_although_transformers_would_make_one_up(folder):
    with pytest.raises(ValueError, match="holds a model, but no tokenizer"):
        load_model(str(folder))


def test_a_folder_with_both_is_loaded(folder):
    load_model(None)[1].save_pretrained(folder)
    model, tokenizer = load_model(str(folder))
    assert type(model).__name__ == "Gemma2ForCausalLM"
    assert tokenizer("The locker")["input_ids"]
