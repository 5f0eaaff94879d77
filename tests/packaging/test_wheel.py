"""The wheel holds every package and data file, and works where the repository is not."""

import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest


def run(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def source(root: Path, project: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources, so that building leaves nothing behind in the repository."""
    import shutil

    copy = tmp_path_factory.mktemp("source") / "kvbudget"
    ignore = shutil.ignore_patterns("__pycache__")
    for name in ("allocator", "heuristics", "runtime", "kernels", "src"):
        shutil.copytree(root / name, copy / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    """Build the wheel with the setuptools that is installed, so that no network is needed."""
    options = ("--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", "dist")
    run("-m", "pip", "wheel", *options, ".", folder=source)
    (path,) = (source / "dist").glob("*.whl")
    return path


def test_wheel_holds_every_package_and_data_file(
    root: Path, project: dict[str, Any], wheel: Path
) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for package in project["tool"]["setuptools"]["packages"]:
        assert f"{package.replace('.', '/')}/__init__.py" in names
    for folder in ("reference_files", "report/template"):
        for file in (root / "src" / "kvbudget" / folder).iterdir():
            assert f"kvbudget/{folder}/{file.name}" in names
    assert "kvbudget/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_wheel_holds_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"kvbudget"}


def test_wheel_works_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    options = ("--no-deps", "--quiet", "--target", str(target))
    run("-m", "pip", "install", *options, str(wheel), folder=tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import kvbudget; "
        "from kvbudget.kernels import ragged_attention; "
        "print([getattr(kvbudget, n) and kvbudget.__file__ for n in kvbudget.__all__][0]); "
        "print(kvbudget.reference_model()[0].config.model_type)"
    )
    done = run("-P", "-c", code, str(target), folder=tmp_path)
    assert done.stdout.splitlines() == [str(target / "kvbudget" / "__init__.py"), "llama"]
