"""Gathering of kept tokens: against one row at a time."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.kernels import gather_kept


def one_by_one(keep, tokens, out, starts):
    """The docstring, written down row by row."""
    out = out.clone()
    for pair, start in enumerate(starts.tolist()):
        row, head = divmod(pair, keep.shape[1])
        for i, place in enumerate(keep[row, head].nonzero().flatten().tolist()):
            out[start + i] = tokens[row, head, place]
    return out


def assert_gathers(keep, keys, values, gap=0):
    lengths = keep.sum(-1).flatten()
    starts = lengths.cumsum(0) - lengths + gap * (1 + torch.arange(len(lengths)))
    rows = int(lengths.sum()) + gap * (len(lengths) + 2)
    outs = [torch.full((rows, x.shape[-1]), -7).to(x.dtype) for x in (keys, values)]
    wanted = [one_by_one(keep, x, out, starts) for x, out in zip((keys, values), outs, strict=True)]
    gather_kept(keep, keys, values, *outs, starts)
    assert torch.equal(outs[0], wanted[0])
    assert torch.equal(outs[1], wanted[1])


@settings(deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 20), st.integers(0, 2**30))
def test_kept_tokens_go_to_their_rows_in_their_order(batch, kv_heads, tokens, seed):
    random = torch.Generator().manual_seed(seed)
    keep = torch.rand(batch, kv_heads, tokens, generator=random) < torch.rand(1, generator=random)
    keys = torch.randn(batch, kv_heads, tokens, 4, generator=random)
    values = torch.randn(batch, kv_heads, tokens, 3, generator=random)
    assert_gathers(keep, keys, values, gap=seed % 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_any_strides_and_dtypes_are_served(dtype):
    keep = torch.rand(2, 1, 9).expand(2, 3, 9) < 0.5
    keys = torch.randn(2, 9, 3, 4).to(dtype).transpose(1, 2)
    values = torch.randn(2, 3, 5, 9).to(dtype).mT
    assert_gathers(keep, keys, values, gap=2)


@pytest.mark.parametrize("shape", [(1, 2, 0), (0, 2, 4)])
def test_nothing_to_gather_is_served(shape):
    assert_gathers(torch.ones(shape).bool(), torch.zeros(*shape, 4), torch.zeros(*shape, 3))


def test_tokens_that_want_a_gradient_are_stored_without_one():
    keep, keys = torch.ones(1, 1, 2).bool(), torch.randn(1, 1, 2, 4, requires_grad=True)
    outs = torch.zeros(2, 4), torch.zeros(2, 4)
    gather_kept(keep, keys, keys, *outs, torch.tensor([0]))
    assert torch.equal(outs[0], keys[0, 0].detach())
    assert not outs[0].requires_grad


def arguments(**others):
    given = {
        "keep": torch.ones(1, 2, 3).bool(),
        "keys": torch.zeros(1, 2, 3, 4),
        "values": torch.zeros(1, 2, 3, 5),
        "out_keys": torch.zeros(6, 4),
        "out_values": torch.zeros(6, 5),
        "starts": torch.tensor([0, 3]),
    }
    return given | others


@pytest.mark.parametrize(
    ("others", "error", "message"),
    [
        ({"keep": torch.ones(2, 3).bool()}, ValueError, r"axes \[batch, kv_heads, tokens\]"),
        ({"keys": torch.zeros(1, 2, 4, 4)}, ValueError, r"\(1, 2, 4, 4\)"),
        ({"values": torch.zeros(1, 1, 3, 5)}, ValueError, r"\(1, 1, 3, 5\)"),
        ({"keep": torch.ones(1, 2, 3)}, TypeError, "bool .* but got torch.float32"),
        ({"starts": torch.tensor([0, 3]).int()}, TypeError, "int64, but .* torch.int32"),
        ({"starts": torch.tensor([0])}, ValueError, r"\(2,\), but got \(1,\)"),
        ({"out_keys": torch.zeros(6, 5)}, ValueError, r"`out_keys` .* \[rows, 4\]"),
        ({"out_values": torch.zeros(5, 6).T}, ValueError, "`out_values` must be contiguous"),
        ({"out_keys": torch.zeros(6, 4).half()}, TypeError, "`out_keys` must be torch.float32"),
        ({"starts": torch.zeros(2, device="meta").long()}, TypeError, "one device"),
    ],
)
def test_wrong_arguments_are_refused_by_name(others, error, message):
    with pytest.raises(error, match=message):
        gather_kept(**arguments(**others))
