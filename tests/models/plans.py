"""Plans with capacities by hand, whose budget is what they need."""

import numpy as np

from kvbudget.allocator import Certificate, Plan


def plan_of(geometry, capacity, context=2000, batch=1):
    """A plan with so many tokens in every cache, or with these capacities."""
    tokens = np.broadcast_to(capacity, (geometry.layers, geometry.kv_heads)) * geometry.present
    return Plan(
        capacity_tokens=tokens,
        context_tokens=context,
        batch_size=batch,
        budget_bytes=int((tokens * geometry.token_bytes).sum()) * batch,
        certificate=Certificate("by hand", "FEASIBLE", 1.0, 0.0, 1.0),
        geometry=geometry,
        model="tiny",
        heuristic="observation_window",
        heuristic_settings=(),
        measure="none",
    )
