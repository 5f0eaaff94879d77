"""What the tests of the comparison share: its modules, and made-up figures."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def peers():
    """Imports a module of the comparison: benchmarks are no part of the package."""

    def load(name: str) -> ModuleType:
        return import_module(f"benchmarks.peers.{name}")

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield load


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture
def trial(peers):
    """Eight future tokens over an alphabet of ten; one answer of two tokens, then its end."""
    future = (4, 7, 1, 2, 9, 3, 3, 5)
    return peers("trial").PeerTrial("test", "needles", 0, (1, 2, 3), future, ((2, 4),))


@pytest.fixture
def cell(peers):
    """Makes cells."""

    def make(side, name, kept, kind, *divergence, exact=0, answers=0, held=None, errors=None):
        held = kept if held is None else held
        fields = (tuple(divergence), 1.0, exact, answers, held, kept, 256, errors or {})
        return peers("cells").Cell(side, name, kept, kind, *fields)

    return make
