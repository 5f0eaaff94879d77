"""What the tests of the evaluation share: the shipped model, room to fill, and plans."""

import numpy as np
import pytest

import kvbudget as kvb
from kvbudget.evaluation import Room, Wording
from kvbudget.prose import built_in_sentences


@pytest.fixture(scope="session")
def shipped():
    """The shipped model and its tokenizer."""
    return kvb.reference_model()


@pytest.fixture(scope="session")
def wording(shipped):
    return Wording.of(shipped[1])


@pytest.fixture(scope="session")
def text():
    return " ".join(built_in_sentences())


@pytest.fixture(scope="session")
def room_of(wording, text):
    """Room for so many tokens."""
    return lambda tokens: Room.of(text, wording, tokens)


@pytest.fixture(scope="session")
def plan_of(shipped):
    """A plan in which all caches keep equal shares."""

    def build(budget, context_tokens):
        geometry = kvb.geometry_of(shipped[0])
        profile = kvb.Profile.from_importance(
            np.ones((geometry.layers, geometry.kv_heads)),
            geometry,
            model="the reference model",
            heuristic="observation_window",
            heuristic_settings=(("window", 32), ("kernel", 7)),
        )
        solver = kvb.solvers.Uniform()
        return kvb.allocate(profile, budget=budget, context_tokens=context_tokens, solver=solver)

    return build
