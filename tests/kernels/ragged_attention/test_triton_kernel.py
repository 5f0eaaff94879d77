"""The Triton kernels against the reference.

They run on a GPU where there is one, else in Triton's interpreter, which has to be asked for before
triton is imported: `test_interpreter.py` runs this file in a process of its own.
"""

from __future__ import annotations

import os
from functools import partial

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = "cpu"
elif torch.cuda.is_available():
    DEVICE = "cuda"
else:
    pytest.skip("no GPU; test_interpreter.py runs this file", allow_module_level=True)

pytest.importorskip("triton", reason="triton is not installed (it is made for Linux only)")

from kvbudget.kernels.ragged_attention import Prefix, reference, triton_kernel

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}


@pytest.fixture(autouse=True)
def repaired_interpreter(monkeypatch):
    """Triton 3.9 interprets a product of bfloat16 tiles as one of their bit patterns."""
    if DEVICE == "cuda":
        return
    import numpy as np
    import triton.language as tl
    from triton.runtime import interpreter

    product = interpreter.InterpreterBuilder.create_dot

    def widened(tile):
        if tile.dtype.scalar != tl.bfloat16:
            return tile
        data = interpreter._convert_float(tile.data, tl.bfloat16, tl.float32, None)
        return interpreter.TensorHandle(data.view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return product(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "create_dot", create_dot)


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """What is allocated holds NaN until it is written."""
    empty = torch.empty

    def poisoned(*shape, **options):
        made = empty(*shape, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", poisoned)


@pytest.fixture
def small_tiles(monkeypatch):
    """Several slices per segment and several tiles per slice already at small sizes."""
    chosen = triton_kernel.blocks_for

    def blocks_for(*arguments):
        return chosen(*arguments)._replace(rows=16, tokens=16)

    monkeypatch.setattr(triton_kernel, "blocks_for", blocks_for)
    monkeypatch.setattr(triton_kernel, "split_tokens", lambda rows: 32)


def assert_equals_reference(call, dtype=torch.float32):
    wanted = call.run(reference.ragged_attention)
    for got, expected in zip(
        call.to(DEVICE).run(triton_kernel.ragged_attention), wanted, strict=True
    ):
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got.cpu(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("group", [1, 4, 8])
def test_decoding_equals_the_reference(case, group, dtype):
    sizes = [37, 0, 100, 1]
    call = case(sizes, group=group, tail_tokens=35, head_dim=32, value_dim=32, dtype=dtype)
    assert_equals_reference(call, dtype)


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    "options",
    [
        {"window": 20},
        {"softcap": 0.5, "scaling": 1.0},
        {"sinks": True},
        {"slopes": True},
        {"slopes": True, "window": 20, "sinks": True, "group": 3},
        {"first_seen": torch.int32},
        {"first_seen": torch.int64, "window": 20, "sinks": True, "softcap": 2.0},
        {"first_seen": torch.int64, "slopes": True, "dtype": torch.bfloat16},
        {"window": 9, "softcap": 3.0, "sinks": True, "tail_tokens": 40},
        {"head_dim": 24, "value_dim": 40},
        {"head_dim": 96, "value_dim": 16, "dtype": torch.bfloat16},
        {"tail_tokens": 0},
        {"tail_tokens": 2, "window": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("new", [1, 5])
def test_every_setting_equals_the_reference(case, new, options):
    options = {"tail_tokens": 7, "group": 4} | options
    call = case([35, 3], new=new, seed=new, **options)
    assert_equals_reference(call, options.get("dtype", torch.float32))


@pytest.mark.usefixtures("small_tiles")
def test_many_new_tokens_of_several_sequences_equal_the_reference(case):
    sizes = [0, 20, 0, 33, 0, 0]
    call = case(sizes, kv_heads=3, group=2, new=19, tail_tokens=19, window=30, sinks=True)
    assert_equals_reference(call)


@pytest.mark.usefixtures("small_tiles")
def test_slopes_and_bounds_of_several_sequences_equal_the_reference(case):
    sizes = [0, 20, 7, 33, 0, 12]
    options = {"slopes": True, "first_seen": torch.int64, "seed": 3}
    call = case(sizes, kv_heads=3, group=2, new=9, tail_tokens=11, **options)
    assert_equals_reference(call)


def test_real_tile_sizes_equal_the_reference(case):
    call = case([300, 61], group=4, new=2, tail_tokens=70, head_dim=64, value_dim=64)
    assert_equals_reference(call)


def test_a_cache_of_one_token_equals_the_reference(case):
    assert_equals_reference(case([0, 0], tail_tokens=1, gaps=0))
    assert_equals_reference(case([1, 0], tail_tokens=0, gaps=0))


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("sizes", [[4, 4], [0, 0]])
def test_a_query_that_sees_nothing_gets_zeros(case, sizes, sinks):
    call = case(sizes, tail_tokens=0, window=1, gaps=9, sinks=sinks)
    call.tensors[4].zero_()
    out, mass, _ = call.to(DEVICE).run(triton_kernel.ragged_attention)
    assert (out == 0).all()
    assert torch.equal(mass.cpu(), call.mass)


@pytest.mark.parametrize("given", ["mass", "tail_mass"])
def test_either_mass_may_be_left_out(case, given):
    call = case([9, 5], group=2, tail_tokens=4)
    wanted = dict(zip(("mass", "tail_mass"), call.run(reference.ragged_attention)[1:], strict=True))
    moved = call.to(DEVICE)
    got = getattr(moved, given).clone()
    attention = partial(triton_kernel.ragged_attention, *moved.tensors, **moved.settings)
    attention(**{given: got})
    torch.testing.assert_close(got.cpu(), wanted[given], rtol=0, atol=1e-5)


def test_what_is_known_of_a_prefix_may_be_kept_while_the_tail_grows(case):
    calls = [case([40, 3], tail_tokens=n, gaps=30 - n).to(DEVICE) for n in (1, 9)]
    fixed = calls[0].tensors[1:5]
    prefix = Prefix(*fixed)
    for call in calls:
        tensors = (call.tensors[0], *fixed, *call.tensors[5:])
        kept = triton_kernel.ragged_attention(*tensors, **call.settings, prefix=prefix)
        anew = triton_kernel.ragged_attention(*tensors, **call.settings)
        assert torch.equal(kept, anew)
