import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kvbudget.allocator
from kvbudget import allocator

FOLDER = Path(allocator.__file__).parent
FILES = sorted(FOLDER.rglob("*.py"))

CHECK = """
import sys
import kvbudget.allocator
heavy = {"torch", "transformers", "cvxpy", "optuna", "triton", "scipy", "matplotlib"}
print(sorted(heavy & set(sys.modules)))
"""


def test_importing_the_allocator_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", CHECK], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists_once() -> None:
    names = kvbudget.allocator.__all__
    assert len(names) == len(set(names))
    assert all(getattr(allocator, name) is not None for name in names)


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports anywhere."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_file_reaches_for_torch_or_pickle(path: Path) -> None:
    assert not imported(path) & {"torch", "transformers", "triton", "pickle", "marshal", "shelve"}
    assert "allow_pickle" not in path.read_text()
