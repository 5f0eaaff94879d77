"""The same bytes divided anew for each prompt, by the scores of its own tokens."""

from haystacks import calibration, haystack

import kvbudget as kvb

model, tokenizer = kvb.reference_model()
heuristic = kvb.heuristics.ObservationWindow()
profile = kvb.measure_profile(model, calibration(tokenizer), heuristic, tokenizer=tokenizer)
plan = kvb.allocate(profile, budget="10%", context_tokens=512)
prompt = haystack(tokenizer, seed=100)
inputs = tokenizer(prompt.text, return_tensors="pt")

for adapt in (None, kvb.WithinLayer(), kvb.Global()):
    with kvb.budgeted(model, plan, adapt=adapt) as cache:
        output = model.generate(**inputs, max_new_tokens=len(prompt.answer))
        held = [len(tokens) for tokens in cache.kept_positions(0)[0]]
    answer = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
    print(f"{type(adapt).__name__:>12}: {answer} (right: {prompt.answer}), layer 0 holds {held}")
