"""No operation waits for a GPU: shown on tensors that only pretend to be on one.

Fake tensors know their device but hold no numbers, so whatever would read one on the host (which
on a real GPU waits for it), and whatever mixes devices, fails. Kernels are noted, not launched.

Copies to the device fake tensors take as they come. Two kinds are looked for beside: `torch.tensor`
told of a GPU, and `.to` of memory that is not pinned or without `non_blocking`. What fills or
copies in place, what waits inside CUDA's libraries, and that a copy really runs beside the host is
not seen: only a GPU shows these.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from kvbudget.kernels import (
    Prefix,
    attention_sums,
    gather_kept,
    level_softmax,
    move_rows,
    select_top,
)
from kvbudget.kernels.launches import forget_choices
from kvbudget.kernels.level_softmax import Future

zeros = partial(torch.zeros, device="cuda")
half = partial(zeros, dtype=torch.bfloat16)
whole = partial(zeros, dtype=torch.int64)
BATCH, KV_HEADS, GROUP, TOKENS, HEAD_DIM, ROWS = 2, 2, 4, 300, 64, 200


class Uploads(TorchDispatchMode):
    """Refuses copies to a GPU that the host would wait for."""

    def __init__(self):
        super().__init__()
        self.make, self.pinned = torch.tensor, []

    def tensor(self, data, *, device="cpu", pin_memory=False, **options):
        """Does what `torch.tensor` does, where nothing can be pinned."""
        assert torch.device(device).type == "cpu", "`torch.tensor` waits for the copy it makes"
        made = self.make(data, **options)
        if pin_memory:
            self.pinned.append(made)
        return made

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        to = torch.device(kwargs.get("device") or "cpu").type
        if func is torch.ops.aten._to_copy.default and args[0].is_cpu and to == "cuda":
            assert kwargs.get("non_blocking"), "the host waits for this copy"
            assert any(args[0] is x for x in self.pinned), "the host copies what is not pinned"
        return func(*args, **kwargs)


@pytest.fixture
def launched(monkeypatch):
    """Names of the kernels launched on a GPU that is not there, where all tensors are fake."""
    triton = pytest.importorskip("triton", reason="triton is not installed (made for Linux only)")
    if triton.knobs.runtime.interpret:
        pytest.skip("TRITON_INTERPRET is set: nothing is launched")
    names = []

    def run(kernel, *args, **kwargs):
        names.append(kernel.fn.__name__)

    monkeypatch.setattr(triton.JITFunction, "run", run)
    monkeypatch.setattr(torch.cuda, "device_of", lambda tensor: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "one that is not there")
    forget_choices()
    uploads = Uploads()
    monkeypatch.setattr(torch, "tensor", uploads.tensor)
    with FakeTensorMode(), uploads:
        yield names
    forget_choices()


def test_reading_a_number_would_be_found_out(launched):
    with pytest.raises(DataDependentOutputException):
        zeros(3).tolist()


def test_copies_that_wait_would_be_found_out(launched):
    with pytest.raises(AssertionError, match="waits for the copy"):
        torch.tensor([1, 2], device="cuda")
    with pytest.raises(AssertionError, match="waits for this copy"):
        torch.tensor([1, 2], pin_memory=True).to("cuda:0")
    with pytest.raises(AssertionError, match="not pinned"):
        torch.tensor([1, 2]).to("cuda:0", non_blocking=True)
    assert torch.tensor([1, 2], pin_memory=True).to("cuda:0", non_blocking=True).is_cuda


def rectangle(*shape):
    return half(BATCH, KV_HEADS, TOKENS, *shape)


def test_selecting_does_not_wait(launched):
    marks = select_top(zeros(8, TOKENS), whole(8))
    assert marks.is_cuda
    assert marks.dtype == torch.bool
    assert launched


def test_gathering_does_not_wait(launched):
    keep = zeros(BATCH, KV_HEADS, TOKENS, dtype=torch.bool)
    storages = half(ROWS, HEAD_DIM), half(ROWS, HEAD_DIM)
    gather_kept(keep, rectangle(HEAD_DIM), rectangle(HEAD_DIM), *storages, whole(4))
    assert launched


def test_moving_does_not_wait(launched):
    move_rows(half(ROWS, HEAD_DIM), half(ROWS, HEAD_DIM), whole(9), whole(9))
    assert launched


@pytest.mark.parametrize("new", [1, 32, 300])
@pytest.mark.parametrize("sinks", [False, True])
def test_summing_attention_does_not_wait(launched, new, sinks):
    heads = KV_HEADS * GROUP
    sums = attention_sums(
        half(BATCH, heads, new, HEAD_DIM),
        rectangle(HEAD_DIM),
        zeros(BATCH, KV_HEADS, TOKENS, dtype=torch.bool),
        whole(BATCH, KV_HEADS, TOKENS),
        whole(new),
        scaling=0.1,
        window=50,
        sinks=half(heads) if sinks else None,
    )
    assert sums.is_cuda
    assert sums.shape == (BATCH, KV_HEADS, TOKENS)
    assert launched


def test_softmax_at_levels_does_not_wait(launched):
    tokens, rows, heads = (KV_HEADS, TOKENS, HEAD_DIM), 7, KV_HEADS * GROUP
    newer = half(KV_HEADS, rows, HEAD_DIM)
    states = level_softmax(
        *(half(heads, rows, HEAD_DIM), whole(rows), half(*tokens), half(*tokens)),
        whole(KV_HEADS, TOKENS),
        Future(newer, newer, whole(rows)),
        (0, 10, 299),
        scaling=0.1,
    )
    assert all(each.is_cuda for each in states)
    assert launched


@pytest.mark.parametrize("with_mass", [False, True])
@pytest.mark.parametrize("new", [1, 5, 40])
def test_attending_to_a_kept_prefix_does_not_wait(launched, monkeypatch, new, with_mass):
    from kvbudget.kernels.ragged_attention import triton_kernel

    # whoever makes a prefix waits once, to see that it is sound
    monkeypatch.setattr(Prefix, "_check", lambda prefix: None)
    # torch without CUDA refuses to slice what pretends to be there
    offsets, ends = torch.zeros(5, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)
    rows = torch.zeros(ROWS, HEAD_DIM, dtype=torch.bfloat16)
    kept, tail = (rows, rows, offsets, torch.zeros(ROWS)), rows.view(BATCH, KV_HEADS, 50, -1)
    prefix = Prefix(*kept, ends)
    for _ in range(2):
        triton_kernel.ragged_attention(
            torch.zeros(BATCH, KV_HEADS * GROUP, new, HEAD_DIM, dtype=torch.bfloat16),
            *(*kept, tail, tail, 40),
            seen_tokens=500,
            scaling=0.1,
            mass=torch.zeros(ROWS) if with_mass else None,
            prefix=prefix,
            ends=ends,
            lengths=torch.zeros(2, dtype=torch.int32),
        )
        prefix.renew()
    assert launched.count("attend_kernel") == 2
