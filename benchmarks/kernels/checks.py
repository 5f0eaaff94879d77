"""The tests of the kernels on this very device, with and without a memory checker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = sorted((ROOT / "tests" / "kernels").glob("*/test_triton_kernel.py"))
# a few of every operation: a memory checker makes a kernel many times slower
CHECKED = "odd or ties or decoding or kept or moved or sums or levels"


def run_tests(seconds: float) -> dict[str, object]:
    """Hold every kernel to its reference on the device."""
    return _pytest([], [], seconds)


def run_sanitizer(seconds: float) -> dict[str, object] | None:
    """A part of the same under compute-sanitizer; None if the machine has none."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        return None
    command = [sanitizer, "--tool", "memcheck", "--error-exitcode", "99", "--target-processes"]
    return _pytest([*command, "all"], ["-k", CHECKED, "-x"], seconds)


def _pytest(before: list[str], options: list[str], seconds: float) -> dict[str, object]:
    files = [str(path) for path in TESTS]
    settings = ["-q", "-p", "no:cacheprovider", "--override-ini", "addopts=", "--import-mode"]
    command = [*before, sys.executable, "-m", "pytest", *settings, "importlib", *options, *files]
    environment = {name: os.environ[name] for name in os.environ if name != "TRITON_INTERPRET"}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return {"passed": False, "summary": f"not finished after {seconds:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    summary = lines[-1] if lines else done.stderr[-500:]
    return {"passed": done.returncode == 0, "summary": summary, "failed": failed[:20]}
