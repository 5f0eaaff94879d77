"""A solver of one's own: budget, bytes, bound, gap and time are checked around it."""

from dataclasses import dataclass

import numpy as np
from haystacks import calibration

import kvbudget as kvb
from kvbudget.testing import check_solver


@dataclass(frozen=True, slots=True)
class BestFirst(kvb.Solver):
    """Let the cache that loses most take all it can, then the next, while bytes are left."""

    def choose(self, problem: kvb.Problem) -> kvb.Choice:
        levels = np.zeros(len(problem.loss), dtype=np.int64)
        left = problem.budget_bytes - problem.floor_bytes
        for unit in np.argsort(-problem.loss[:, 0]):
            cost = problem.cost_bytes[unit] - problem.cost_bytes[unit, 0]
            levels[unit] = np.flatnonzero(cost <= left)[-1]
            left -= cost[levels[unit]]
        return kvb.Choice(levels)


check_solver(BestFirst())  # on problems whose best plan is known

model, tokenizer = kvb.reference_model()
heuristic = kvb.heuristics.ObservationWindow()
profile = kvb.measure_profile(model, calibration(tokenizer), heuristic, tokenizer=tokenizer)
solvers = [BestFirst(), kvb.solvers.Uniform(), kvb.solvers.Hull()]
print(kvb.compare(profile, budgets=["10%", "25%"], solvers=solvers, context_tokens=1024))
