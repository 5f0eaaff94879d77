"""Compare solvers on one profile: loss, proven bound, gap, bytes and time.

python examples/compare_solvers.py [profile.safetensors]; measures the shipped model without one.
"""

import sys

from haystacks import calibration

import kvbudget as kvb

if len(sys.argv) > 1:
    profile = kvb.Profile.load(sys.argv[1])
else:
    model, tokenizer = kvb.reference_model()
    heuristic = kvb.heuristics.ObservationWindow()
    profile = kvb.measure_profile(model, calibration(tokenizer), heuristic, tokenizer=tokenizer)

solvers = [kvb.solvers.Uniform(), kvb.solvers.PyramidKV(), kvb.solvers.Hull(), kvb.solvers.Exact()]
comparison = kvb.compare(profile, budgets=["10%", "25%"], solvers=solvers, context_tokens=1024)
print(comparison)
comparison.plot("comparison.png")

# every budget from one pass: corners of the frontier, looked up in microseconds
path = kvb.solve_path(profile, context_tokens=1024)
for budget in ("5%", "10%", "25%", "50%"):
    plan = path.plan(budget)
    print(f"{budget:>4} {plan.used_bytes:>9,} bytes  loss {plan.loss:.3g}  gap {plan.gap:.1%}")
