"""A limit on the bytes of each device besides the limit on all of them.

The shipped model runs on one device; here its first and second half stand for two. For a model
that `device_map` has spread write `kvb.device_limits(model, {"cuda:0": "4GiB", "cuda:1": "8GiB"})`.
"""

from haystacks import calibration

import kvbudget as kvb

model, tokenizer = kvb.reference_model()
heuristic = kvb.heuristics.ObservationWindow()
profile = kvb.measure_profile(model, calibration(tokenizer), heuristic, tokenizer=tokenizer)

limits = [
    kvb.constraints.ByteLimit("600KiB", layers=range(3)),
    kvb.constraints.ByteLimit("1MiB", layers=range(3, 6)),
    kvb.constraints.LeastTokens(16),
]
free = kvb.allocate(profile, budget="25%", context_tokens=1024)
plan = kvb.allocate(
    profile,
    budget="25%",
    context_tokens=1024,
    constraints=limits,
    solver=kvb.solvers.LinearProgram(),
)
for name, each in (("without limits", free), ("with limits", plan)):
    half = (each.capacity_tokens * each.geometry.token_bytes).sum(1)
    print(f"{name:>14}: {half[:3].sum():,} + {half[3:].sum():,} bytes, loss {each.loss:.3g}")
print(plan)
