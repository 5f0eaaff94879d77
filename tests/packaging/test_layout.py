"""The folders are what pyproject.toml says, and no file grows too long."""

from pathlib import Path
from typing import Any

import pytest

MOST_LINES = 400


def packages_in_tree(root: Path, folders: dict[str, str]) -> set[str]:
    return {
        ".".join((package, *init.parent.relative_to(root / folder).parts))
        for package, folder in folders.items()
        for init in (root / folder).rglob("__init__.py")
    }


def test_kernels_folder_is_no_package(root: Path) -> None:
    assert (root / "kernels" / "triton_ops" / "__init__.py").is_file()
    assert not (root / "kernels" / "__init__.py").exists()


def test_packages_in_pyproject_are_those_in_the_tree(root: Path, project: dict[str, Any]) -> None:
    settings = project["tool"]["setuptools"]
    assert len(set(settings["packages"])) == len(settings["packages"])
    assert set(settings["packages"]) == packages_in_tree(root, settings["package-dir"])


def test_every_folder_with_code_is_a_package(root: Path, project: dict[str, Any]) -> None:
    for folder in project["tool"]["setuptools"]["package-dir"].values():
        for path in (root / folder).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} lacks __init__.py"


def test_version_is_the_same_everywhere(root: Path, project: dict[str, Any]) -> None:
    import kvbudget

    version = project["project"]["version"]
    assert kvbudget.__version__ == version
    assert f"## {version}" in (root / "CHANGELOG.md").read_text(encoding="utf-8")


def test_every_dependency_is_pinned_in_the_constraints(root: Path, project: dict[str, Any]) -> None:
    from packaging.requirements import Requirement

    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {
        pin.name.lower(): pin
        for pin in (Requirement(line) for line in lines if not line.startswith("#"))
    }
    extras = project["project"]["optional-dependencies"]
    for text in project["project"]["dependencies"] + [r for e in extras.values() for r in e]:
        wanted = Requirement(text)
        (pin,) = pins[wanted.name.lower()].specifier
        assert pin.operator == "=="
        assert pin.version in wanted.specifier, f"{text} leaves out the tested {pin.version}"


def test_no_file_is_too_long(all_files: list[Path]) -> None:
    assert len(all_files) > 20
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in all_files}
    assert not {str(path): lines for path, lines in lengths.items() if lines > MOST_LINES}


@pytest.mark.parametrize("name", ["README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"])
def test_front_pages_exist_and_links_in_them_lead_somewhere(root: Path, name: str) -> None:
    import re

    text = (root / name).read_text(encoding="utf-8")
    assert len(text) > 500
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (root / target).exists(), f"{name} links to {target}, which is not there"
