"""What happens in a fresh interpreter, above all in one started at the repository's root."""

import os
import subprocess
import sys
from pathlib import Path

HEAVY = ("torch", "transformers", "triton", "cvxpy", "optuna", "scipy", "matplotlib", "typer")


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    # a worker of pytest-xdist must not pass its own settings on to the pytest started here
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_transformers_can_be_imported_from_the_root(root: Path) -> None:
    done = run(["-c", "import transformers; from transformers import LlamaForCausalLM"], root)
    assert done.returncode == 0, done.stderr


def test_pytest_collects_from_the_root(root: Path) -> None:
    arguments = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = run(arguments, root)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_pytest_collects_from_the_root" in done.stdout


def test_importing_the_package_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"import sys, kvbudget; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = run(["-c", code], tmp_path)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_every_public_name_is_there_and_listed(tmp_path: Path) -> None:
    code = "import kvbudget as k; print({getattr(k, n) and n for n in k.__all__} - {*dir(k)})"
    assert run(["-c", code], tmp_path).stdout.strip() == "set()"


def test_an_unknown_name_is_an_attribute_error(tmp_path: Path) -> None:
    done = run(["-c", "import kvbudget; kvbudget.nonsense"], tmp_path)
    assert "AttributeError: module 'kvbudget' has no attribute 'nonsense'" in done.stderr


def test_the_allocator_works_without_torch(tmp_path: Path) -> None:
    code = "import sys, kvbudget; kvbudget.allocate; print('torch' in sys.modules)"
    assert run(["-c", code], tmp_path).stdout.strip() == "False"


def test_the_package_runs_as_a_module_from_the_root(root: Path) -> None:
    done = run(["-m", "kvbudget", "--version"], root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("kvbudget ")
