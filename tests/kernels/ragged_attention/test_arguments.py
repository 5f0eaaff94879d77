"""Misuse of the public function is named; what it promises beyond the reference."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
import torch

from kvbudget.kernels import ragged_attention
from kvbudget.kernels.ragged_attention import reference

# the function has the package's name, so the package itself is only to be had by import_module
ragged_package = import_module("kvbudget.kernels.ragged_attention")

NAMES = ("queries", "keys", "values", "offsets", "positions", "tail_keys", "tail_values")


def attend(case, **changes):
    """Call the public function on a good case with some arguments replaced."""
    good = case([3, 4, 5, 6], group=2, new=2, tail_tokens=3, head_dim=8, value_dim=4)
    named = dict(zip((*NAMES, "tail_tokens"), good.tensors, strict=True)) | good.settings
    return ragged_attention(**(named | changes))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"queries": torch.zeros(2, 3, 1, 8)}, ValueError, "multiple of the 2 KV heads"),
        ({"queries": torch.zeros(2, 4, 0, 8)}, ValueError, "at least 1 new token"),
        ({"queries": torch.zeros(4, 2, 8)}, ValueError, "4 axes"),
        ({"queries": torch.zeros(2, 4, 1, 8).long()}, TypeError, "floating point"),
        ({"queries": torch.zeros(2, 4, 1, 9)}, ValueError, "`keys` must have shape"),
        ({"keys": torch.zeros(19, 8)}, ValueError, "`keys` must have shape"),
        ({"keys": torch.zeros(20, 8).half()}, TypeError, "`keys` must be torch.float32"),
        ({"keys": torch.zeros(8, 20).T}, ValueError, "`keys` must be contiguous"),
        ({"keys": torch.zeros(20, 8, device="meta")}, TypeError, "`keys` must lie on cpu"),
        ({"offsets": torch.zeros(5).int()}, TypeError, "`offsets` must be torch.int64"),
        ({"offsets": torch.tensor([0, 3, 2, 4, 9])}, ValueError, "`offsets` must rise from 0"),
        ({"offsets": torch.tensor([1, 3, 3, 4, 9])}, ValueError, "`offsets` must rise from 0"),
        ({"offsets": torch.tensor([0, 3, 3, 4, 21])}, ValueError, "at most the 20 rows"),
        ({"positions": torch.zeros(20).long()}, TypeError, "`positions` must be torch.int32"),
        ({"tail_values": torch.zeros(2, 2, 4, 4)}, ValueError, "`tail_values` must have shape"),
        ({"tail_tokens": 6}, ValueError, "between 0 and the capacity 5"),
        ({"tail_tokens": -1}, ValueError, "between 0 and the capacity 5"),
        ({"seen_tokens": 2}, ValueError, "2 new and the 3 tail tokens"),
        ({"window": 0}, ValueError, "`window` must be at least 1"),
        ({"softcap": 0.0}, ValueError, "`softcap` must be above 0"),
        ({"softcap": float("nan")}, ValueError, "`softcap` must be above 0"),
        ({"slopes": torch.zeros(2)}, ValueError, "`slopes` must have shape"),
        ({"slopes": torch.zeros(4).half()}, TypeError, "`slopes` must be torch.float32"),
        ({"slopes": torch.zeros(4), "softcap": 1.0}, ValueError, "together with `softcap`"),
        ({"first_seen": torch.zeros(2).long()}, ValueError, "`first_seen` must have shape"),
        ({"first_seen": torch.zeros(2, 2)}, TypeError, "`first_seen` must be torch.int64"),
        ({"sinks": torch.zeros(2)}, ValueError, "`sinks` must have shape"),
        ({"mass": torch.zeros(20).double()}, TypeError, "`mass` must be torch.float32"),
        ({"tail_mass": torch.zeros(2, 2, 3)}, ValueError, "`tail_mass` must have shape"),
        ({"ends": torch.zeros(4).int()}, TypeError, "`ends` must be torch.int64"),
        ({"ends": torch.zeros(3).long()}, ValueError, "`ends` must have shape"),
        ({"ends": torch.tensor([3, 7, 12, 19])}, ValueError, "`ends` must lie between"),
        ({"ends": torch.tensor([3, 2, 12, 18])}, ValueError, "`ends` must lie between"),
        ({"lengths": torch.zeros(2).long()}, TypeError, "`lengths` must be torch.int32"),
        ({"lengths": torch.zeros(1).int()}, ValueError, "`lengths` must have shape"),
    ],
)
def test_a_wrong_argument_is_named(case, changes, error, message):
    with pytest.raises(error, match=message):
        attend(case, **changes)


def test_on_the_cpu_it_is_the_reference(case):
    call = case([9, 4], group=4, new=3, tail_tokens=6, window=8, softcap=2.0, sinks=True)
    ours, theirs = call.run(ragged_attention), call.run(reference.ragged_attention)
    for got, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(got, wanted)


def test_on_the_cpu_the_lengths_of_the_device_are_not_read(case):
    wrong = torch.tensor([-7, 0], dtype=torch.int32)
    assert torch.equal(attend(case, lengths=wrong), attend(case))


def test_half_precision_is_served_by_triton_up_to_the_sizes_of_latent_attention():
    for dtype, head_dim, value_dim, served in (
        (torch.bfloat16, 576, 512, True),
        (torch.float16, 577, 512, False),
        (torch.bfloat16, 576, 513, False),
        (torch.float32, 256, 256, True),
        (torch.float32, 257, 256, False),
        (torch.float32, 256, 257, False),
        (torch.float64, 16, 16, False),
    ):
        queries, values = torch.zeros(1, head_dim, dtype=dtype), torch.zeros(1, value_dim)
        assert ragged_package._triton_serves(queries, values) is served


def test_it_runs_where_gradients_are_on_but_refuses_to_go_back(case):
    queries = torch.randn(2, 4, 2, 8, requires_grad=True)
    out = attend(case, queries=queries)
    assert torch.equal(out, attend(case, queries=queries.detach()))
    with pytest.raises(RuntimeError, match="must not be differentiated"):
        out.sum().backward()


def test_importing_it_does_not_import_triton():
    code = "import sys, kvbudget.kernels; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
