"""Do predicted losses hold? Run plans for real on fresh prompts and compare.

Four prompts are few: plans that lose little then lose more than predicted. Take a dozen.
"""

from haystacks import haystack

import kvbudget as kvb

model, tokenizer = kvb.reference_model()
prompts = [haystack(tokenizer, seed) for seed in range(8)]
texts = [prompt.text + prompt.answer for prompt in prompts]
profile = kvb.measure_profile(
    model, texts[:4], kvb.heuristics.ObservationWindow(), tokenizer=tokenizer
)
checked = kvb.check_profile(model, profile, texts[4:], tokenizer=tokenizer, plans=8)
check = checked.check
print(checked)
for plan in range(8):
    how = "solved" if check.is_solved[plan] else "drawn "
    kept, predicted, measured = check.kept_fraction, check.predicted, check.measured
    print(f"{how} {kept[plan]:4.0%} kept: {predicted[plan]:8.4f} predicted, {measured[plan]:8.4f}")
print(kvb.allocate(checked, budget="25%", context_tokens=512))  # shows the outcome
