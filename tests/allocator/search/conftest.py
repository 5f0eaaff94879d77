"""Problems to search, and a measured number that the sum of losses does not predict."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import strategies as st

from kvbudget.allocator import Geometry, Plan, Problem, Profile


def first_layer_matters(plan: Plan) -> float:
    """A number that is lowest where the first layer keeps much."""
    kept = plan.kept_fraction
    return float(30 / kept[0].min() + (1 / kept).sum())


@st.composite
def small_problems(draw: st.DrawFn) -> Problem:
    """Problems whose lowest levels fit."""
    units, num_levels = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    row = st.lists(st.integers(0, 9), min_size=num_levels, max_size=num_levels)
    rows = st.lists(row, min_size=units, max_size=units)
    cost = np.cumsum(draw(rows), axis=1)
    drop = np.cumsum(draw(rows), axis=1)
    spare = draw(st.integers(0, int(cost[:, -1].sum() - cost[:, 0].sum()) + 1))
    return Problem(drop[:, -1:] - drop, cost, int(cost[:, 0].sum()) + spare)


@pytest.fixture(scope="session")
def any_problem() -> st.SearchStrategy[Problem]:
    """Small problems whose lowest levels fit."""
    return small_problems()


@pytest.fixture(scope="session")
def objective() -> Callable[[Plan], float]:
    """A measured number, lower is better."""
    return first_layer_matters


@pytest.fixture(scope="session")
def layered() -> Problem:
    """Twelve layers of one unit; every layer needs as much as its number."""
    need = np.arange(12.0)[:, None]
    cost = np.tile(np.arange(8) * 10, (12, 1))
    return Problem(need * np.array([64, 32, 16, 8, 4, 2, 1, 0]), cost, 400)


@pytest.fixture(scope="session")
def deep() -> Problem:
    """Eight layers of two caches with twelve levels: far more plans than a search tries."""
    rng = np.random.default_rng(5)
    loss = np.sort(rng.exponential(size=(8, 2, 12)), axis=-1)[..., ::-1]
    geometry = Geometry("LlamaForCausalLM", 8, 2, 8, 8, "float32", (None,) * 8)
    kept = np.arange(1, 13) / 12
    profile = Profile(loss, loss[None], kept, geometry, "tests/deep", "key_norm", (), "divergence")
    return Problem.from_profile(profile, budget="30%", context_tokens=120)
