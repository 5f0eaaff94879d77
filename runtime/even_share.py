"""How many tokens every cache may hold alike, before capacities matter."""

from dataclasses import dataclass

import numpy as np

from kvbudget.allocator import Plan


@dataclass(frozen=True, slots=True)
class EvenShare:
    """While all caches hold equally many tokens, what limits them is bytes alone.

    A plan may come with limits beside its budget, such as one for each device. Those that it still
    knows of hold as well; where it only knows that there were some, its capacities stand for them.

    Args:
        limits: For each limit the bytes of one token in all its caches, and the bytes it allows.
    """

    limits: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, plan: Plan) -> "EvenShare":
        """The limits of a plan."""
        token_bytes = plan.geometry.token_bytes
        limits = [(int(token_bytes.sum()), plan.budget_bytes), *_known_limits(plan)]
        if plan.curves is None and plan.certificate.constraints:
            fewest = int(plan.capacity_tokens[plan.geometry.present].min())
            limits.append((1, fewest * plan.batch_size))
        return cls(tuple(limits))

    def tokens(self, batch: int) -> int:
        """Tokens that each cache of each of `batch` sequences may hold."""
        return min(most // (each * batch) for each, most in self.limits)


def _known_limits(plan: Plan) -> list[tuple[int, int]]:
    """Bytes of a token in all caches of a limit, and the bytes that it allows."""
    if plan.curves is None or not plan.curves.constraints:
        return []
    problem = plan.curves.problem(
        plan, context_tokens=plan.context_tokens, budget=plan.budget_bytes
    )
    token_bytes = plan.geometry.token_bytes[plan.geometry.present]  # of each unit
    terms = [constraint.terms(problem) for constraint in problem.constraints]
    return [
        (int(token_bytes[np.any(limit.cost_bytes, axis=1)].sum()), limit.most_bytes)
        for each in terms
        for limit in each.limits
    ]
