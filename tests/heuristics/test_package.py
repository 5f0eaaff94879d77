"""What importing the package brings, and what each of its files promises."""

import importlib
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

from kvbudget import heuristics
from kvbudget.heuristics import CacheHeuristic, TokenHeuristic, caches, measures, tokens

KINDS: dict[ModuleType, type] = {
    tokens: TokenHeuristic,
    caches: CacheHeuristic,
    measures: measures.Measure,
}
PLUGINS = [
    pytest.param(folder, module.name, id=f"{folder.__name__.rsplit('.', 1)[-1]}.{module.name}")
    for folder in KINDS
    for module in pkgutil.iter_modules(folder.__path__)
    if module.name != "measure"
]


def only_plugin(folder: ModuleType, name: str) -> type:
    module = importlib.import_module(f"{folder.__name__}.{name}")
    found = [
        member
        for member in vars(module).values()
        if isinstance(member, type)
        and issubclass(member, KINDS[folder])
        and member.__module__ == module.__name__
    ]
    assert len(found) == 1
    return found[0]


def test_there_are_plugins_of_every_kind() -> None:
    assert {param.values[0] for param in PLUGINS} == set(KINDS)


@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_every_file_holds_one_plugin_registered_under_its_name(
    folder: ModuleType, name: str
) -> None:
    registry = measures if folder is measures else heuristics
    assert registry.get(name) is only_plugin(folder, name)


@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_every_plugin_is_exported(folder: ModuleType, name: str) -> None:
    plugin = only_plugin(folder, name)
    places = [folder] if folder is measures else [folder, heuristics]
    for place in places:
        assert plugin.__name__ in place.__all__
        assert getattr(place, plugin.__name__) is plugin


@pytest.mark.parametrize(("folder", "name"), PLUGINS)
def test_every_plugin_says_where_it_comes_from(folder: ModuleType, name: str) -> None:
    text = importlib.import_module(f"{folder.__name__}.{name}").__doc__ or ""
    assert "Reference:\n" in text or "Original" in text
    if "Reference:" in text:
        assert "https://" in text


def test_every_exported_name_exists_and_is_listed_in_order() -> None:
    for place in (heuristics, measures, tokens, caches):
        # names in capitals first, as ruff wants it
        order = sorted(place.__all__, key=lambda name: (not name.isupper(), name))
        assert list(place.__all__) == order
        assert all(getattr(place, name) is not None for name in place.__all__)


def test_importing_the_package_does_not_import_transformers() -> None:
    program = (
        "import sys, kvbudget.heuristics\n"
        "assert 'torch' in sys.modules\n"
        "assert 'transformers' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
