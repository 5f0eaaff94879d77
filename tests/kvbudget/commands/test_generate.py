"""`kvbudget generate` on a tiny model."""

import json

import kvbudget as kvb

PROMPT = "one two three four five six seven eight nine ten " * 4


def test_text_goes_to_stdout_and_bytes_to_stderr(run, models, plan_file):
    arguments = ("--model", models / "llama", "--prompt", PROMPT, "--max-new-tokens", 8)
    done = run("generate", "--plan", plan_file, *arguments)
    assert done.code == 0
    assert done.out.strip()
    assert "The caches hold " in done.err
    assert "Nothing was evicted" not in done.err
    assert "KiB" not in done.out


def test_bytes_held_are_the_plan_when_the_context_is_full(run, models, plan_file, tmp_path):
    plan = kvb.Plan.load(plan_file)
    _, tokenizer = kvb.reference_model()
    ids = tokenizer(PROMPT * 10)["input_ids"][: plan.context_tokens]
    (tmp_path / "prompt.txt").write_text(tokenizer.decode(ids), encoding="utf-8")
    arguments = ("--model", models / "llama", "--prompt-file", "prompt.txt", "--json")
    record = json.loads(run("generate", "--plan", plan_file, *arguments).out)
    assert record["prompt_tokens"] == plan.context_tokens
    assert record["held_bytes"] == plan.used_bytes
    assert record["full_bytes"] > 3 * record["held_bytes"]


def test_a_plan_that_keeps_everything_gives_the_models_own_text(run, models, profile, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    kvb.allocate(profile, budget="100%", context_tokens=200).save(tmp_path / "full.json")
    arguments = ("--model", models / "llama", "--prompt", PROMPT, "--max-new-tokens", 8, "--json")
    record = json.loads(run("generate", "--plan", "full.json", *arguments).out)
    model = AutoModelForCausalLM.from_pretrained(models / "llama").eval()
    tokenizer = AutoTokenizer.from_pretrained(models / "llama")
    inputs = tokenizer(PROMPT, return_tensors="pt")
    output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    new = output[0, inputs["input_ids"].shape[1] :]
    assert record["text"] == tokenizer.decode(new, skip_special_tokens=True)
    assert record["new_tokens"] == len(new)


def test_the_plan_may_stand_alone(run, models, plan_file):
    arguments = ("--model", models / "llama", "--prompt", PROMPT, "--max-new-tokens", 4)
    as_option = run("generate", "--plan", plan_file, *arguments)
    alone = run("generate", plan_file, *arguments)
    assert alone.code == 0
    assert alone.out == as_option.out


def test_a_short_prompt_is_told_to_fit(run, models, plan_file):
    arguments = ("--model", models / "llama", "--prompt", "one two", "--max-new-tokens", 2)
    done = run("generate", plan_file, *arguments)
    assert "Nothing was evicted: these tokens take " in done.err
    assert "The caches hold" not in done.err
