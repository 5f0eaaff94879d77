"""A token heuristic of one's own: registered, checked, measured and run by its name."""

from dataclasses import dataclass

from haystacks import calibration, haystack

import kvbudget as kvb
from kvbudget.testing import check_heuristic


@kvb.heuristics.register("attended_values")
@dataclass(frozen=True, slots=True)
class AttendedValues(kvb.heuristics.TokenHeuristic):
    """Keep tokens that the last queries look at and whose values are large."""

    window: int = 32

    def score(self, view: kvb.heuristics.LayerView):
        size = view.held_values().norm(dim=-1)
        return view.recent_attention(self.window) * size  # [batch, kv_heads, tokens]


check_heuristic(AttendedValues())  # padding, batches, half precision, memory

model, tokenizer = kvb.reference_model()
profile = kvb.measure_profile(
    model, calibration(tokenizer), AttendedValues(window=16), tokenizer=tokenizer
)
plan = kvb.allocate(profile, budget="25%", context_tokens=512)
print(plan)

prompt = haystack(tokenizer, seed=100)
inputs = tokenizer(prompt.text, return_tensors="pt")
with kvb.budgeted(model, plan) as cache:
    output = model.generate(**inputs, max_new_tokens=len(prompt.answer))
found = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :])
print("asked for", prompt.answer, "and found", found, "in", cache)
