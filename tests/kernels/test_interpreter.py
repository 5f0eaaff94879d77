"""Runs the tests of the Triton kernels without a GPU, in Triton's interpreter.

In a process of its own: a kernel is bound to the interpreter when triton is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_triton_kernels_equal_their_references_in_the_interpreter():
    pytest.importorskip("triton", reason="triton is not installed (it is made for Linux only)")
    files = sorted(Path(__file__).parent.glob("*/test_triton_kernel.py"))
    assert files
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)]
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert " skipped" not in done.stdout
