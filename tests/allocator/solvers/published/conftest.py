"""Problems counted in tokens, and how to round by hand."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from kvbudget.allocator import Geometry, Problem, Profile, Solver

TOKEN_BYTES = 4
Grid = NDArray[np.int64]


@pytest.fixture(scope="session")
def mass() -> Callable[..., NDArray[np.float64]]:
    """Lost attention mass when a cache keeps its best 1, 2, 3 ... tokens."""

    def make(
        seed: int, layers: int = 3, kv_heads: int = 2, tokens: int = 12
    ) -> NDArray[np.float64]:
        rng = np.random.default_rng(seed)
        weights = -np.sort(-(rng.exponential(size=(layers, kv_heads, tokens)) ** 2 + 1e-3))
        weights = weights / weights.sum(axis=-1, keepdims=True)
        kept_later = np.cumsum(weights[..., ::-1], axis=-1)[..., ::-1]
        return np.append(kept_later[..., 1:], np.zeros((layers, kv_heads, 1)), axis=-1)

    return make


@pytest.fixture(scope="session")
def on_tokens() -> Callable[..., Problem]:
    """A problem whose caches may keep 1, 2, 3 ... tokens of four bytes each."""

    def make(
        loss: ArrayLike, budget_tokens: int, windows: tuple[int | None, ...] | None = None
    ) -> Problem:
        loss = np.asarray(loss, dtype=np.float64)
        layers, kv_heads, tokens = loss.shape
        windows = windows or (None,) * layers
        profile = Profile(
            loss=loss,
            sample_loss=loss[None],
            kept_fraction=np.arange(1, tokens + 1) / tokens,
            geometry=Geometry("LlamaForCausalLM", layers, kv_heads, 1, 1, "bfloat16", windows),
            model="tests/tiny",
            heuristic="observation_window",
            heuristic_settings=(),
            measure="attention_mass",
            made_by="a test",
        )
        budget = TOKEN_BYTES * budget_tokens
        return Problem.from_profile(profile, budget=budget, context_tokens=tokens)

    return make


@pytest.fixture(scope="session")
def kept_tokens() -> Callable[[Problem, Solver], Grid]:
    """Tokens that a solver lets each cache keep, [layers, kv_heads]."""

    def choose(problem: Problem, solver: Solver) -> Grid:
        levels = solver.choose(problem).levels
        used = np.take_along_axis(problem.cost_bytes, levels[:, None], axis=1)
        return used.reshape(problem.shape) // TOKEN_BYTES

    return choose


@pytest.fixture(scope="session")
def round_by_hand() -> Callable[[Sequence[Fraction]], list[int]]:
    """Whole numbers with the same sum: round down, then add 1 where most was lost."""

    def round_down_and_repair(values: Sequence[Fraction]) -> list[int]:
        whole = [int(value) for value in values]
        missing = sum(values) - sum(whole)
        assert missing.denominator == 1
        by_loss = sorted(range(len(values)), key=lambda i: (whole[i] - values[i], i))
        for i in by_loss[: int(missing)]:
            whole[i] += 1
        return whole

    return round_down_and_repair
