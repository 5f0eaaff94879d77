"""Scores of tasks with the full cache and within plans, beside the bytes really held.

python examples/evaluate_plan.py [DATA_SET.jsonl]; columns context, question, answer.
"""

import sys

from haystacks import calibration

import kvbudget as kvb

model, tokenizer = kvb.reference_model()
heuristic = kvb.heuristics.ObservationWindow()
profile = kvb.measure_profile(model, calibration(tokenizer), heuristic, tokenizer=tokenizer)
equal = kvb.solvers.Uniform()
plans = {
    "solved 25%": kvb.allocate(profile, budget="25%", context_tokens=512),
    "equal 25%": kvb.allocate(profile, budget="25%", context_tokens=512, solver=equal),
}

tasks, dataset = kvb.evaluation.tasks, ()
chosen = [tasks.Prose(), tasks.SingleNeedle(), tasks.KeyValues(lookups=2)]
if len(sys.argv) > 1:
    chosen, dataset = [], kvb.evaluation.read_samples(sys.argv[1])
found = kvb.evaluate(model, tokenizer, plans, tasks=chosen, dataset=dataset, samples=2)
print(found)
found.save("rows.jsonl")
