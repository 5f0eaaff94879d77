"""Tiny problems with constraints and risks. Those that a solver does not honour are left out."""

from typing import Any

import numpy as np

from kvbudget.allocator import CacheShape, CVaR, Geometry, Problem, Profile, WorstSample
from kvbudget.allocator.constraint import Constraint
from kvbudget.allocator.constraints import (
    ByteLimit,
    Custom,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    MostTokens,
    Protected,
    WholePages,
)
from kvbudget.allocator.risk import Mean, Risk

EQUAL = Geometry("LlamaForCausalLM", 2, 2, 4, 4, "float32", (None, 16))
UNEQUAL = Geometry.of_layers(
    "Gemma4ForCausalLM", (CacheShape(1, 8, 6), CacheShape(2, 4, 4)), "float32", (None, 16)
)


def profile_problems() -> dict[str, Problem]:
    """Problems made from a profile, with limits that hold with every solver, by name."""
    return {
        "a model with a sliding window": from_profile("50%"),
        "equal capacity inside layers": from_profile("50%", EqualInLayer()),
        "a protected layer": from_profile("80%", Protected(layers=(0,))),
        "a protected layer and too little": from_profile("30%", Protected(layers=(0,))),
        "capacities from 8 to 20 tokens": from_profile("50%", LeastTokens(8), MostTokens(20)),
        "whole pages": from_profile("75%", WholePages(5)),
        "layers of unequal caches": from_profile("60%", geometry=UNEQUAL),
        "layers of unequal caches, equal inside": from_profile(
            "70%", EqualInLayer(), geometry=UNEQUAL
        ),
    }


def coupled_problems() -> dict[str, Problem]:
    """Problems that only some solvers honour, by name."""
    first, last = (0, 1), (2, 3)
    return {
        "a byte limit": from_arrays(14, ByteLimit(5, layers=first)),
        "a byte limit that leaves the lowest levels": from_arrays(14, ByteLimit(2, layers=first)),
        "a byte limit that nothing fits": from_arrays(14, ByteLimit(1, layers=first)),
        "a byte limit per device": from_arrays(
            16, ByteLimit(6, layers=first), ByteLimit(9, layers=last)
        ),
        "byte limits that overlap": from_arrays(
            16, ByteLimit(9, layers=(0, 1, 2)), ByteLimit(8, layers=(1, 2, 3))
        ),
        "one capacity": from_arrays(14, MostCapacities(1)),
        "two capacities": from_arrays(14, MostCapacities(2)),
        "two capacities and a byte limit": from_arrays(
            14, MostCapacities(2), ByteLimit(5, layers=first)
        ),
        "a custom constraint": from_arrays(14, Custom(top_units)),
        "a custom constraint that cannot hold": from_arrays(14, Custom(too_many_top_units)),
        "the worst sample": from_arrays(14, risk=WorstSample()),
        "the worst half of the samples": from_arrays(13, risk=CVaR(0.5)),
        "the worst samples in part": from_arrays(15, risk=CVaR(0.7)),
        "the worst samples and a byte limit": from_arrays(
            14, ByteLimit(5, layers=first), risk=CVaR(0.5)
        ),
        "a byte limit per rank and equal layers": from_profile(
            "70%", ByteLimit("50%", kv_heads=(0,)), EqualInLayer()
        ),
        "the worst sample and equal layers": from_profile(
            "50%", EqualInLayer(), risk=WorstSample()
        ),
    }


def from_arrays(budget_bytes: int, *constraints: Constraint, risk: Risk = Mean()) -> Problem:  # noqa: B008
    """Four units with three levels, and the losses of five samples."""
    rng = np.random.default_rng(3)
    samples = np.sort(rng.integers(0, 12, (5, 4, 3)) / 2.0, axis=2)[..., ::-1]
    return Problem(
        loss=samples.mean(axis=0),
        cost_bytes=np.array([[1, 3, 6], [1, 2, 4], [2, 3, 5], [1, 4, 7]]),
        budget_bytes=budget_bytes,
        constraints=constraints,
        sample_loss=samples,
        risk=risk,
    )


def from_profile(
    budget: str,
    *constraints: Constraint,
    risk: Risk = Mean(),  # noqa: B008
    geometry: Geometry = EQUAL,
) -> Problem:
    """Two layers with at most two KV heads, of which the second layer sees 16 tokens of 32."""
    rng = np.random.default_rng(1)
    samples = np.sort(rng.exponential(size=(4, 2, 2, 3)), axis=3)[..., ::-1]
    samples = samples * geometry.present[..., None]
    profile = Profile(
        loss=samples.mean(axis=0),
        sample_loss=samples,
        kept_fraction=np.array([0.1, 0.4, 1.0]),
        geometry=geometry,
        model="an example",
        heuristic="",
        heuristic_settings=(),
        measure="output_error",
    )
    return Problem.from_profile(
        profile, budget=budget, context_tokens=32, constraints=constraints, risk=risk
    )


def top_units(share: Any) -> list[Any]:
    """At least two units are at their highest level."""
    return [share[:, -1].sum() >= 2]


def too_many_top_units(share: Any) -> list[Any]:
    """More units than there are reach their highest level."""
    return [share[:, -1].sum() >= share.shape[0] + 1]
