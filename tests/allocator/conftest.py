"""A small model's caches, a measured profile, and problems made from them."""

from collections.abc import Callable

import numpy as np
import pytest

from kvbudget.allocator import CacheShape, Geometry, Plan, Problem, Profile, allocate

LEVELS = (0.1, 0.25, 0.5, 1.0)


@pytest.fixture(scope="session")
def geometry() -> Geometry:
    """Three layers of two caches; the middle layer sees 16 tokens."""
    return Geometry("LlamaForCausalLM", 3, 2, 8, 4, "bfloat16", (None, 16, None))


@pytest.fixture(scope="session")
def make_profile(geometry: Geometry) -> Callable[..., Profile]:
    """A profile of random losses; arguments replace its fields."""

    def make(seed: int = 0, **changes: object) -> Profile:
        rng = np.random.default_rng(seed)
        samples = np.sort(rng.exponential(size=(5, 3, 2, 4)), axis=-1)[..., ::-1]
        samples = samples - samples[..., -1:]
        fields: dict[str, object] = {
            "loss": samples.mean(axis=0),
            "sample_loss": samples,
            "kept_fraction": LEVELS,
            "geometry": geometry,
            "model": "tests/tiny",
            "heuristic": "observation_window",
            "heuristic_settings": (("window", 32), ("kernel", 7)),
            "measure": "output_error",
            "made_by": "a test, with 5 prompts",
        }
        return Profile(**{**fields, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def profile(make_profile: Callable[..., Profile]) -> Profile:
    """One profile."""
    return make_profile()


@pytest.fixture(scope="session")
def problem(profile: Profile) -> Problem:
    """A problem with a budget of 40 % of the full cache."""
    return Problem.from_profile(profile, budget="40%", context_tokens=100)


@pytest.fixture(scope="session")
def plan(profile: Profile) -> Plan:
    """A plan for two sequences of 100 tokens."""
    return allocate(profile, budget="40%", context_tokens=100, batch_size=2)


@pytest.fixture(scope="session")
def unequal() -> Geometry:
    """A layer of three small caches within 16 tokens, one of one large cache, one between."""
    shapes = (CacheShape(3, 4, 4), CacheShape(1, 8, 6), CacheShape(2, 4, 4))
    return Geometry.of_layers("Gemma4ForCausalLM", shapes, "bfloat16", (16, None, None))


@pytest.fixture(scope="session")
def unequal_profile(unequal: Geometry, make_profile: Callable[..., Profile]) -> Profile:
    """Random losses of the caches that are there."""
    samples = np.sort(np.random.default_rng(1).exponential(size=(5, 3, 3, 4)), axis=-1)[..., ::-1]
    samples = np.where(unequal.present[..., None], samples - samples[..., -1:], 0.0)
    return make_profile(geometry=unequal, sample_loss=samples, loss=samples.mean(axis=0))
