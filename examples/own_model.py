"""Measure a model, divide a budget, generate inside it.

python examples/own_model.py [FOLDER_OR_HUB_NAME [TEXT_FILE]]; the shipped model without them.
"""

import sys
from pathlib import Path

from haystacks import calibration, haystack
from transformers import AutoModelForCausalLM, AutoTokenizer

import kvbudget as kvb
from kvbudget.reference import FILES

name = sys.argv[1] if len(sys.argv) > 1 else FILES
model = AutoModelForCausalLM.from_pretrained(name, dtype="auto")
tokenizer = AutoTokenizer.from_pretrained(name)
if len(sys.argv) > 2:
    ids = tokenizer(Path(sys.argv[2]).read_text(encoding="utf-8"))["input_ids"]
    # pieces about as long as the contexts; the text must have 1000 tokens at least
    prompts = [ids[start : start + 1000] for start in range(0, len(ids) - 999, 1000)][:12]
else:
    prompts = calibration(tokenizer)

profile = kvb.measure_profile(
    model, prompts, kvb.heuristics.ObservationWindow(), tokenizer=tokenizer
)
profile.save("profile.safetensors")
plan = kvb.allocate(profile, budget="25%", context_tokens=1024)
plan.save("plan.json")
print(plan)

question = haystack(tokenizer, seed=100, tokens=1000).text
inputs = tokenizer(question, return_tensors="pt").to(model.device)
with kvb.budgeted(model, plan) as cache:
    output = model.generate(**inputs, max_new_tokens=8)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :]))
print(cache)
