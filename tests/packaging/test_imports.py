"""Who may import whom: allocator <- heuristics -> kernels, and runtime -> all three."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# top folder -> the subpackages of kvbudget it may import, and the libraries it must not
MAY_IMPORT = {
    "allocator": {"allocator"},
    "heuristics": {"heuristics", "allocator", "kernels"},
    "kernels": set(),
    "runtime": {"runtime", "heuristics", "allocator", "kernels", "__version__"},
}
MUST_NOT_IMPORT = {
    "allocator": {"torch", "transformers", "triton"},
    "heuristics": {"transformers", "triton", "cvxpy", "optuna"},
    "kernels": {"transformers", "numpy", "scipy"},
    "runtime": {"triton", "cvxpy", "optuna"},
    "src": {"triton", "cvxpy", "optuna"},
}
CACHE_INTERFACES = {
    "transformers.cache_utils",
    "transformers.masking_utils",
    "transformers.modeling_utils",
    "transformers.integrations",
}
CACHE_NAMES = {
    "ALL_ATTENTION_FUNCTIONS",
    "AttentionInterface",
    "AttentionMaskInterface",
    "Cache",
    "DynamicCache",
    "StaticCache",
}


def absolute_imports(path: Path) -> Iterator[tuple[str, str]]:
    """Every `(module, name)` that the file imports; the name is empty for a plain import."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.module or "", alias.name) for alias in node.names)


def test_subpackages_import_in_one_direction(root: Path, library_files: list[Path]) -> None:
    for path in library_files:
        allowed = MAY_IMPORT.get(path.relative_to(root).parts[0])
        if allowed is None:
            continue
        for module, name in absolute_imports(path):
            if module.split(".")[0] == "kvbudget":
                parts = [*module.split("."), name]
                assert parts[1] in allowed, f"{path} imports {module} {name}"


def test_libraries_stay_where_they_belong(root: Path, library_files: list[Path]) -> None:
    for path in library_files:
        banned = MUST_NOT_IMPORT[path.relative_to(root).parts[0]]
        for module, _ in absolute_imports(path):
            assert module.split(".")[0] not in banned, f"{path} imports {module}"


def test_only_one_folder_knows_the_cache_interfaces(root: Path, library_files: list[Path]) -> None:
    uses = [
        str(path.relative_to(root))
        for path in library_files
        for module, name in absolute_imports(path)
        if module.split(".")[0] == "transformers"
        and (name in CACHE_NAMES or any(module.startswith(each) for each in CACHE_INTERFACES))
    ]
    assert {str(Path(use).parent) for use in uses} == {"runtime/hf"}


def test_relative_imports_stay_in_their_folder(
    root: Path, project: dict[str, Any], library_files: list[Path]
) -> None:
    tops = [root / folder for folder in project["tool"]["setuptools"]["package-dir"].values()]
    for path in library_files:
        (depth,) = (len(path.relative_to(top).parts) for top in tops if path.is_relative_to(top))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= depth, f"{path}:{node.lineno} reaches out of its folder"


def test_absolute_imports_of_our_own_lead_somewhere(root: Path, all_files: list[Path]) -> None:
    from importlib.util import find_spec

    modules = {m for path in all_files for m, _ in absolute_imports(path) if m.startswith("kvb")}
    assert len(modules) > 5
    assert not [module for module in modules if find_spec(module) is None]
