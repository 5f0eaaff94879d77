"""What the packaging tests share: the repository's root and its Python files."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ("allocator", "heuristics", "runtime", "kernels", "src")


def python_files(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def project() -> dict[str, Any]:
    with open(ROOT / "pyproject.toml", "rb") as file:
        return tomllib.load(file)


@pytest.fixture(scope="session")
def library_files() -> list[Path]:
    return python_files(*LIBRARY)


@pytest.fixture(scope="session")
def all_files() -> list[Path]:
    return python_files(*LIBRARY, "tests", "benchmarks")
