"""The Triton kernels of the softmax at levels against the reference, on a GPU or interpreted."""

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
from kvbudget.kernels.level_softmax import Future, reference, triton_kernel

# weights are rounded in two steps in half precision, so that only some 2 ** -17 of them is lost
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-5, torch.bfloat16: 4e-5}


pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture
def small_tiles():
    """Several blocks of rows, pieces per level and tiles per piece already at small sizes."""
    with using({Program.LEVELS: Launch(rows=16, tokens=16, split_tokens=32)}):
        yield


def assert_equals_reference(call):
    found, wanted = (
        call.run(triton_kernel.level_softmax, DEVICE),
        call.run(reference.level_softmax),
    )
    near = {"rtol": TOLERANCE[call.tensors[0].dtype], "atol": TOLERANCE[call.tensors[0].dtype]}
    for x, y in zip(found, wanted, strict=True):
        assert x.dtype == torch.float32
        torch.testing.assert_close(x, y, **near)
    return found


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("group", [1, 3])
def test_every_dtype_equals_the_reference(call, group, dtype):
    levels = {"context": 75, "kept_tokens": (0, 1, 40, 75)}
    assert_equals_reference(call(group=group, rows=7, dtype=dtype, **levels))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize(
    "options",
    [
        {"window": 20},
        {"softcap": 0.5, "scaling": 1.0},
        {"sinks": True},
        {"slopes": True},
        {"slopes": True, "window": 9, "sinks": True, "softcap": 2.0, "group": 3},
        {"sinks": True, "dtype": torch.bfloat16},
        {"head_dim": 24, "value_dim": 40},
        {"head_dim": 80, "value_dim": 8, "dtype": torch.float16},
        {"rows": 1, "future": 1},
        {"rows": 40, "future": 40, "group": 1},
        {"kept_tokens": (30,)},
        {"kept_tokens": (0, 0)},
        {"context": 0, "kept_tokens": (0, 0)},
    ],
    ids=str,
)
def test_every_setting_equals_the_reference(call, options):
    assert_equals_reference(call(**{"kv_heads": 1} | options))


def test_levels_of_one_length_are_equal_to_the_last_bit(call):
    states = call(kept_tokens=(4, 4, 9)).run(triton_kernel.level_softmax, DEVICE)
    for x in states[:2]:
        assert torch.equal(x[..., 0], x[..., 1])
        assert not torch.equal(x[..., 1], x[..., 2])
    assert torch.equal(states.output[..., 0, :], states.output[..., 1, :])


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("window", [1, None])
def test_a_query_that_sees_nothing_gets_zeros(call, sinks, window):
    made = call(kv_heads=1, future=0, rows=3, sinks=sinks, window=window, kept_tokens=(0, 5))
    queries, _, *context = made.tensors
    far = torch.arange(3) + (1000 if window else -3)
    moved = type(made)((queries, far, *context), made.future, made.kept_tokens, made.settings)
    states = assert_equals_reference(moved)
    assert (states.output == 0).all()


@pytest.mark.parametrize("options", [{}, {"head_dim": 300, "value_dim": 70}], ids=str)
def test_real_tile_sizes_equal_the_reference(call, options):
    sizes = {"kv_heads": 1, "context": 200, "rows": 30, "future": 30, "kept_tokens": (60, 200)}
    assert_equals_reference(call(**{"head_dim": 64, "value_dim": 64, **sizes, **options}))


@pytest.mark.usefixtures("small_tiles")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_drown_what_levels_differ_by(call, dtype):
    call = call(context=60, kept_tokens=(57, 60), dtype=dtype, scaling=0.02)
    outputs = call.run(triton_kernel.level_softmax, DEVICE), call.run(reference.level_softmax)
    found, wanted = (x.output[..., 0, :] - x.output[..., 1, :] for x in outputs)
    assert (found - wanted).abs().max() < 1e-3 * wanted.abs().max()


@pytest.mark.usefixtures("small_tiles")
def test_tensors_may_have_any_strides(call):
    made = call(rows=9, future=12)
    queries, at, keys, values, positions = (x.to(DEVICE) for x in made.tensors)
    turned = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (queries, keys, positions)]
    turned.append(values.transpose(0, 2).contiguous().transpose(0, 2))
    assert not any(x.is_contiguous() for x in turned)
    future = Future(*(x.to(DEVICE) for x in made.future))
    wide = torch.stack([at, at], 1)[:, 0]
    got = triton_kernel.level_softmax(
        turned[0], wide, turned[1], turned[3], turned[2], future, made.kept_tokens, **made.settings
    )
    for x, y in zip(got, made.run(reference.level_softmax), strict=True):
        torch.testing.assert_close(x.cpu(), y, rtol=1e-5, atol=1e-5)
