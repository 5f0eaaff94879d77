"""ruff and mypy are part of the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )


def test_ruff_finds_nothing(root: Path) -> None:
    done = run("-m", "ruff", "check", "--no-cache", ".", folder=root)
    assert done.returncode == 0, done.stdout


def test_the_code_is_formatted(root: Path) -> None:
    done = run("-m", "ruff", "format", "--check", "--no-cache", ".", folder=root)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_mypy_strict_finds_nothing(root: Path) -> None:
    linked = run("tests/packaging/link_types.py", folder=root)
    assert linked.returncode == 0, linked.stderr
    done = run("-m", "mypy", "-p", "kvbudget", folder=root, MYPYPATH=".types")
    assert done.returncode == 0, done.stdout + done.stderr
