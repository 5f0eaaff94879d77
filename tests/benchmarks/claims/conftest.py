"""What the tests of the claims share: the modules, the shipped model, made-up records."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kvbudget import reference_model
from kvbudget.demo.trying import Reader

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def claims():
    """Imports a module of the claims: benchmarks are no part of the package."""

    def load(name: str) -> ModuleType:
        return import_module(f"benchmarks.quality.claims.{name}")

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield load


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def reader():
    """The shipped model, on one thread: what it computes is not worth dividing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Reader(*reference_model())
    torch.set_num_threads(threads)


@pytest.fixture
def record(claims):
    """Makes a record of divergences, right answers of two questions each, and bytes."""

    def make(arm, kind, divergence, right=None, held=0.3):
        outcome = claims("arms").Outcome
        hits = [0] * len(divergence) if right is None else right
        found = tuple(outcome(a, b, 2, held) for a, b in zip(divergence, hits, strict=True))
        return claims("record").Record(arm, kind, tuple(range(len(found))), found)

    return make
