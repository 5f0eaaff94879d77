"""The Triton moving of rows against the reference, on a GPU or in the interpreter."""

from __future__ import annotations

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = "cpu"
elif torch.cuda.is_available():
    DEVICE = "cuda"
else:
    pytest.skip("no GPU; test_interpreter.py runs this file", allow_module_level=True)

pytest.importorskip("triton", reason="triton is not installed (it is made for Linux only)")

from kvbudget.kernels.launches import Launch, Program, using
from kvbudget.kernels.move_rows import reference, triton_kernel


@pytest.fixture(autouse=True)
def small_tiles():
    """Several tiles already for a few rows."""
    with using({Program.MOVE: Launch(tokens=8)}):
        yield


def assert_equals_reference(rows, moved, head_dim=16, value_dim=16, dtype=torch.float32):
    """Equal bit for bit; the storages are poisoned where nothing is moved from."""
    random = torch.Generator().manual_seed(rows)
    places = torch.randperm(rows, generator=random)
    sources, targets = places[:moved], places[moved : 2 * moved]
    wanted = [torch.randn(rows, d, generator=random).to(dtype) for d in (head_dim, value_dim)]
    for storage in wanted:
        storage[places[moved:]] = float("nan")
    got = [x.to(DEVICE, copy=True) for x in wanted]
    reference.move_rows(*wanted, sources, targets)
    triton_kernel.move_rows(*got, sources.to(DEVICE), targets.to(DEVICE))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("moved", [0, 1, 7, 8, 9, 30])
def test_any_number_of_rows_equals_the_reference(moved):
    assert_equals_reference(61, moved)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("head_dim", "value_dim"), [(24, 40), (1, 33), (576, 512)])
def test_any_width_and_dtype_equals_the_reference(head_dim, value_dim, dtype):
    assert_equals_reference(40, 17, head_dim, value_dim, dtype)


def test_the_launch_in_use_equals_the_reference():
    with using({Program.MOVE: Launch(tokens=32)}):
        assert_equals_reference(200, 90, 64, 64)


def test_rows_named_by_strided_indices_equal_the_reference():
    keys, values = torch.randn(9, 16), torch.randn(9, 16)
    got = keys.to(DEVICE, copy=True), values.to(DEVICE, copy=True)
    named = torch.tensor([[0, 4], [1, 5], [2, 6]])
    reference.move_rows(keys, values, named[:, 0], named[:, 1])
    triton_kernel.move_rows(*got, named[:, 0].to(DEVICE), named[:, 1].to(DEVICE))
    assert torch.equal(got[0].cpu(), keys)
    assert torch.equal(got[1].cpu(), values)
