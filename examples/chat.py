"""A conversation on one cache: turns, a fork, a file to go on from, and less memory on the way."""

import copy

import torch
from haystacks import calibration, haystack

import kvbudget as kvb

model, tokenizer = kvb.reference_model()
heuristic = kvb.heuristics.ObservationWindow()
profile = kvb.measure_profile(model, calibration(tokenizer), heuristic, tokenizer=tokenizer)
path = kvb.solve_path(profile, context_tokens=512)
text = tokenizer(haystack(tokenizer, seed=100).text, return_tensors="pt")["input_ids"]
more = tokenizer("\nQuestion: What else?\nAnswer: ", return_tensors="pt")["input_ids"]

with kvb.budgeted(model, path.plan("50%")) as cache:
    first = model.generate(text, past_key_values=cache, max_new_tokens=6)
    print("first turn: ", cache)
    # a turn passes the whole conversation so far
    asked = torch.cat([first, more], dim=1)
    fork = copy.deepcopy(cache)  # memory of its own, of the plan's size
    second = model.generate(asked, past_key_values=cache, max_new_tokens=6)
    print("second turn:", cache)
    again = model.generate(asked, past_key_values=fork, max_new_tokens=6)
    assert torch.equal(second, again)
    cache.save("conversation.safetensors")
    before = cache.nbytes()
    cache.shrink(path.plan("20%"))  # gives memory back at once
    print(f"shrunk: {before:,} -> {cache.nbytes():,} bytes")

with kvb.budgeted(model, path.plan("50%")) as cache:
    cache.load("conversation.safetensors")
    model.generate(torch.cat([second, more], dim=1), past_key_values=cache, max_new_tokens=6)
    print("third turn: ", cache)
