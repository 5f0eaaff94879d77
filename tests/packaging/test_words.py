"""Words and habits that have no place in this repository."""

import ast
import re
from pathlib import Path

import pytest

THIS_FILE = Path(__file__).resolve()
IN_LIBRARY = {
    "asks for an attribute instead of using the interface": r"\bhasattr\(",
    "unpickles": r"\bpickle\.loads?\b|\btorch\.load\(|\ballow_pickle=True",
    "leaves a method unwritten": r"raise NotImplementedError\b",
}
ANYWHERE = {
    "leaves work lying about": r"\b(TODO|FIXME|XXX)\b",
    "names a path of one machine": r"(?<![\w.~*}])/(home|root|work|Users)/\w",
}
MAY_PRINT = ("src/kvbudget/commands/", "src/kvbudget/demo/", "benchmarks/")
TEXT_FILES = ("*.md", "*.toml", "*.txt", "Makefile", ".ci/*")


def matches(pattern: str, files: list[Path]) -> list[str]:
    return [
        f"{path}:{number}: {line.strip()}"
        for path in files
        if path != THIS_FILE
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize("fault", IN_LIBRARY)
def test_no_library_file(fault: str, library_files: list[Path]) -> None:
    assert not matches(IN_LIBRARY[fault], library_files)


@pytest.mark.parametrize("fault", ANYWHERE)
def test_no_file(fault: str, root: Path, all_files: list[Path]) -> None:
    texts = [path for pattern in TEXT_FILES for path in root.glob(pattern)]
    assert len(texts) > 3
    assert not matches(ANYWHERE[fault], all_files + texts)


def test_the_patterns_find_what_they_should(tmp_path: Path) -> None:
    file = tmp_path / "bad.py"
    lines = ["if hasattr(x, 'y'):", "torch.load(p)", "raise NotImplementedError()"]
    lines += ["# TODO later", "open('/home/me/data')"]
    file.write_text("\n".join(lines), encoding="utf-8")
    for pattern in (IN_LIBRARY | ANYWHERE).values():
        assert len(matches(pattern, [file])) == 1


def prints(path: Path) -> bool:
    """Whether a file calls `print`; what its texts say does not count."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls)


def test_only_commands_print(root: Path, library_files: list[Path]) -> None:
    quiet = [
        path for path in library_files if not str(path.relative_to(root)).startswith(MAY_PRINT)
    ]
    assert not [str(path) for path in quiet if prints(path)]
    assert prints(Path(__file__).parents[2] / "benchmarks" / "rows.py")


def can_fail(function: ast.FunctionDef, helpers: set[str]) -> bool:
    """Whether a function asserts something itself, or by calling one of the helpers."""
    text = " ".join(ast.unparse(node) for node in function.body)
    called = {name_of(node) for node in ast.walk(function) if isinstance(node, ast.Call)}
    return bool(re.search(r"\bassert|raises\(|check=True", text)) or not helpers.isdisjoint(called)


def name_of(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def test_every_test_can_fail(root: Path) -> None:
    for path in sorted((root / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        tests = [function for function in functions if function.name.startswith("test_")]
        assert tests, f"{path} holds no test"
        helpers = {each.name for each in functions if can_fail(each, set())}
        for test in tests:
            assert can_fail(test, helpers), f"{path}: {test.name} cannot fail"
