"""The program that checks and times the kernels on a GPU, tried small on the CPU."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]


def run(output, *options):
    command = [sys.executable, "-m", "benchmarks.kernels", str(output), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_it_runs_to_its_end_and_writes_one_file(tmp_path):
    output = tmp_path / "results.json"
    done = run(output, "--device", "cpu", "--small")
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert found["machine"]["torch"] == torch.__version__
    assert found["copy_bytes_per_second"] > 0
    assert not any(
        "stopped" in row for name in ("decode", "eviction", "steps") for row in found[name]
    )
    assert found["steps"][0]["ms_per_token"]["budgeted, compiled"] > 0
    for row in found["decode"]:
        assert 0 < row["relative_error"] < 1e-5
        assert row["share_of_copy_bandwidth"] > 0
        assert {"sdpa over the full cache", "flex over the full cache"} <= set(row["time_over"])
    assert {"scores", "select", "gather"} == set(found["eviction"][0]["share_of_prefill"])
    ratios = [
        *(ratio for row in found["decode"] for ratio in row["time_over"].values()),
        *(ratio for row in found["eviction"] for ratio in row["share_of_prefill"].values()),
    ]
    for low, middle, high in ratios:
        assert 0 < low <= middle <= high < math.inf


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path):
    done = run(tmp_path / "results.json")
    assert done.returncode != 0
    wanted = "This benchmark needs a CUDA device, but torch sees none."
    assert done.stderr.strip().endswith(wanted)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("total", [1, 100, 790, 800])
def test_very_uneven_budgets_add_up_and_fit(monkeypatch, total):
    monkeypatch.syspath_prepend(str(ROOT))
    shared_out = import_module("benchmarks.kernels.case").shared_out
    weights = torch.rand(8, generator=torch.Generator().manual_seed(0)) ** 4 + 0.01
    shares = shared_out(weights, total, 100)
    assert shares.min() >= 1
    assert shares.max() <= 100
    assert total - 8 <= shares.sum() <= total + 8
