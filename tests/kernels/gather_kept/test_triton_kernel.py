"""The Triton gathering against the reference, on a GPU or in the interpreter."""

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

from kvbudget.kernels.gather_kept import reference, triton_kernel
from kvbudget.kernels.launches import Launch, Program, using


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """What is allocated holds 77 until it is written."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **options: empty(*a, **options).fill_(77))


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Several tiles, counted by several programs and added up by several loads."""
    monkeypatch.setattr(triton_kernel, "_COUNTED_TILES", 4)
    monkeypatch.setattr(triton_kernel, "_ADDED_TILES", 2)
    with using({Program.GATHER: Launch(tokens=16)}):
        yield


def assert_equals_reference(keep, keys, values, gap=3):
    """Equal bit for bit; what is not written stays the NaN it was."""
    # the last pair first, with gaps between them
    lengths = keep.sum(-1).flatten().flip(0)
    starts = (lengths.cumsum(0) - lengths + gap * torch.arange(1, 1 + len(lengths))).flip(0)
    rows = int(lengths.sum()) + gap * (len(lengths) + 2)
    wanted = [torch.full((rows, x.shape[-1]), float("nan")).to(x.dtype) for x in (keys, values)]
    got = [x.to(DEVICE, copy=True) for x in wanted]
    reference.gather_kept(keep, keys, values, *wanted, starts)
    moved = (x.to(DEVICE) for x in (keep, keys, values))
    triton_kernel.gather_kept(*moved, *got, starts.to(DEVICE))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=0, equal_nan=True)


def random_keep(batch, kv_heads, tokens, share=0.4, seed=0):
    random = torch.Generator().manual_seed(seed)
    return torch.rand(batch, kv_heads, tokens, generator=random) < share


def rectangles(keep, head_dim=16, value_dim=16, dtype=torch.float32):
    random = torch.Generator().manual_seed(7)
    return tuple(
        torch.randn(*keep.shape, dim, generator=random).to(dtype) for dim in (head_dim, value_dim)
    )


@pytest.mark.parametrize("tokens", [1, 15, 16, 17, 200])
def test_any_number_of_tokens_equals_the_reference(tokens):
    keep = random_keep(2, 3, tokens, seed=tokens)
    keep[0, 1], keep[1, 0] = False, True
    assert_equals_reference(keep, *rectangles(keep))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
@pytest.mark.parametrize(("head_dim", "value_dim"), [(24, 40), (1, 33), (576, 512)])
def test_any_width_and_dtype_equals_the_reference(head_dim, value_dim, dtype):
    keep = random_keep(1, 2, 40)
    assert_equals_reference(keep, *rectangles(keep, head_dim, value_dim, dtype))


def test_any_strides_equal_the_reference():
    keep = random_keep(2, 1, 50).expand(2, 3, 50)
    random = torch.Generator().manual_seed(1)
    by_token = torch.randn(2, 50, 3, 8, generator=random).transpose(1, 2)
    by_dim = torch.randn(2, 3, 6, 50, generator=random).mT
    part = torch.randn(2, 3, 90, 16, generator=random)[:, :, 20:70, 4:12]
    assert_equals_reference(keep, by_token, by_dim)
    assert_equals_reference(keep, part, by_token)


def test_the_launch_in_use_equals_the_reference(monkeypatch):
    monkeypatch.undo()
    with using({Program.GATHER: Launch()}):
        keep = random_keep(1, 2, 300)
        assert_equals_reference(keep, *rectangles(keep, 64, 64))


@pytest.mark.parametrize("shape", [(1, 2, 0), (0, 2, 4)])
def test_nothing_to_gather_is_served(shape):
    keep = torch.ones(shape).bool()
    assert_equals_reference(keep, *rectangles(keep))


def test_many_tokens_of_few_kept_equal_the_reference():
    keep = random_keep(1, 1, 1000, share=0.02)
    assert_equals_reference(keep, *rectangles(keep))
