"""A sample of the classes, and the table of all of them."""

import re

import pytest
import transformers
from findings import TOLERANCE, Verdict, find
from table import PAGE, counts_line, row_of, rows_in
from zoo import class_names

SAMPLE = (
    "BloomForCausalLM",
    "DeepseekV32ForCausalLM",
    "DeepseekV3ForCausalLM",
    "DiffLlamaForCausalLM",
    "FalconH1ForCausalLM",
    "GPT2LMHeadModel",
    "GPTJForCausalLM",
    "GPTNeoXForCausalLM",
    "Gemma2ForCausalLM",
    "Gemma3ForCausalLM",
    "Gemma3nForCausalLM",
    "Gemma4ForCausalLM",
    "GptOssForCausalLM",
    "InklingForCausalLM",
    "JambaForCausalLM",
    "JetMoeForCausalLM",
    "Llama4ForCausalLM",
    "LlamaForCausalLM",
    "MambaForCausalLM",
    "MiMoV2FlashForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "MoshiForCausalLM",
    "OPTForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen2_5_VLForConditionalGeneration",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3NextForCausalLM",
)
TEXT = PAGE.read_text(encoding="utf-8")
ROWS = rows_in(TEXT)
VERDICTS = [verdict.value for verdict in Verdict]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_class_is_what_the_table_says(name):
    found, row = row_of(find(name)), next(row for row in ROWS if row.name == name)
    assert (found.verdict, found.kinds) == (row.verdict, row.kinds)
    assert found.verdict.startswith("exact") or found.result == row.result


def test_the_sample_has_every_verdict_and_every_kind():
    sampled = [row for row in ROWS if row.name in SAMPLE]
    assert {row.verdict for row in sampled} == set(VERDICTS)
    kinds = {kind for row in ROWS for kind in row.kinds.split(", ")} - {"-"}
    assert {kind for row in sampled for kind in row.kinds.split(", ")} >= kinds


def test_the_table_lists_every_class_once():
    assert sorted(row.name for row in ROWS) == class_names()


def test_every_class_has_a_verdict_and_what_it_rests_on():
    for row in ROWS:
        assert row.verdict in VERDICTS
        if row.verdict.startswith("exact"):
            assert float(row.result.split(",")[0]) <= TOLERANCE, row
        else:
            assert re.fullmatch(r"\S.{20,}", row.result), row


def test_the_counts_are_those_of_the_table():
    assert counts_line(row.verdict for row in ROWS) in TEXT


def test_the_table_names_the_version_of_transformers():
    minor = ".".join(transformers.__version__.split(".")[:2])
    assert f"class of transformers {minor}." in TEXT
