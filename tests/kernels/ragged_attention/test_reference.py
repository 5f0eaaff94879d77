"""The reference against dense float64 attention with a mask over what was evicted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from kvbudget.kernels.ragged_attention import reference

TOLERANCE = {
    torch.float64: 1e-6,  # the mass is float32
    torch.float32: 1e-5,
    torch.float16: 5e-3,
    torch.bfloat16: 5e-2,
}


def dense(case):
    """Output, mass and tail mass by dense attention over all columns ever seen, in float64."""
    *tensors, tail_tokens = case.tensors
    queries, keys, values, offsets, positions, tail_keys, tail_values = (
        x.double().numpy() if x.is_floating_point() else x.numpy() for x in tensors
    )
    rule = case.settings
    ends = offsets[1:] if rule["ends"] is None else rule["ends"].numpy()
    batch, heads, new, _ = queries.shape
    kv_heads, seen = tail_keys.shape[1], rule["seen_tokens"]
    out = np.zeros((batch, heads, new, values.shape[1]))
    mass, tail_mass = case.mass.double().numpy().copy(), case.tail_mass.double().numpy().copy()
    for b in range(batch):
        for head in range(heads):
            kv_head = head * kv_heads // heads
            pair = b * kv_heads + kv_head
            rows = slice(offsets[pair], ends[pair])
            # evicted columns hold noise: only the mask keeps them out
            columns = np.random.default_rng(0).normal(size=(seen, keys.shape[1]))
            contents = np.random.default_rng(1).normal(size=(seen, values.shape[1]))
            held = np.zeros(seen, bool)
            held[positions[rows]] = True
            held[seen - tail_tokens :] = True
            columns[positions[rows]], contents[positions[rows]] = keys[rows], values[rows]
            columns[seen - tail_tokens :] = tail_keys[b, kv_head, :tail_tokens]
            contents[seen - tail_tokens :] = tail_values[b, kv_head, :tail_tokens]
            for i in range(new):
                here = seen - new + i
                visible = held & (np.arange(seen) <= here)
                if rule["window"] is not None:
                    visible &= np.arange(seen) > here - rule["window"]
                if rule["first_seen"] is not None:
                    visible &= np.arange(seen) >= rule["first_seen"][b, i].item()
                logits = rule["scaling"] * columns @ queries[b, head, i]
                if rule["softcap"] is not None:
                    logits = rule["softcap"] * np.tanh(logits / rule["softcap"])
                if rule["slopes"] is not None:
                    logits += rule["slopes"][head].item() * (np.arange(seen) - here)
                weights = np.where(visible, np.exp(logits), 0.0)
                total = weights.sum()
                if rule["sinks"] is not None:
                    total += np.exp(rule["sinks"][head].item())
                if total == 0:
                    continue
                out[b, head, i] = weights @ contents / total
                share = weights / total / (heads // kv_heads)
                mass[rows] += share[positions[rows]]
                tail_mass[b, kv_head, :tail_tokens] += share[seen - tail_tokens :]
    return out, mass, tail_mass


def assert_equals_dense(case, tolerance):
    for got, wanted in zip(case.run(reference.ragged_attention), dense(case), strict=True):
        np.testing.assert_allclose(got.double().numpy(), wanted, rtol=0, atol=tolerance)


@st.composite
def calls(draw):
    """Keyword arguments of `make_case`: any mixture of sizes and settings."""
    kv_heads, batch = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    pairs = kv_heads * batch
    length = st.integers(0, 12)
    even = st.builds(lambda n: [n] * pairs, length)
    uneven = st.lists(length, min_size=pairs, max_size=pairs)
    softcap = draw(st.none() | st.sampled_from([0.5, 30.0]))
    return {
        "sizes": draw(even | uneven),
        "kv_heads": kv_heads,
        "group": draw(st.sampled_from([1, 2, 4, 8])),
        "new": draw(st.integers(1, 5)),
        "tail_tokens": draw(st.integers(0, 6)),
        "head_dim": draw(st.sampled_from([1, 8, 24])),
        "value_dim": draw(st.sampled_from([1, 8, 40])),
        "window": draw(st.none() | st.integers(1, 15)),
        "softcap": softcap,
        "slopes": softcap is None and draw(st.booleans()),
        "sinks": draw(st.booleans()),
        "first_seen": draw(st.sampled_from([None, torch.int32, torch.int64])),
        "gaps": draw(st.integers(0, 4)),
        "free": draw(st.none() | even | uneven),
        "shuffled": draw(st.booleans()),
        "seed": draw(st.integers(0, 99)),
    }


@settings(max_examples=150, deadline=None)
@given(calls())
def test_it_equals_dense_attention_with_a_mask(case, call):
    assert_equals_dense(case(**call, dtype=torch.float64), TOLERANCE[torch.float64])


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("new", [1, 4])
def test_every_dtype_stays_within_its_tolerance(case, dtype, new):
    call = case(
        [70, 0, 33, 70], group=4, new=new, tail_tokens=9, dtype=dtype, head_dim=64, sinks=True
    )
    out, *_ = call.run(reference.ragged_attention)
    assert out.dtype == dtype
    assert_equals_dense(call, TOLERANCE[dtype])


def test_slicing_the_queries_changes_nothing(case, monkeypatch):
    call = case([5, 9, 9, 0], group=2, new=7, tail_tokens=7, window=6, sinks=True)
    whole = call.run(reference.ragged_attention)
    monkeypatch.setattr(reference, "_MOST_LOGITS", 100)  # two queries at a time
    for got, wanted in zip(call.run(reference.ragged_attention), whole, strict=True):
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("new", [1, 3])
@pytest.mark.parametrize(
    "rule",
    [
        {},
        {"window": 6},
        {"softcap": 0.5},
        {"slopes": True},
        {"sinks": True},
        {"first_seen": torch.int32},
        {"first_seen": torch.int64, "window": 6},
    ],
    ids=str,
)
def test_each_rule_by_itself_equals_dense_attention(case, rule, new):
    for sizes in ([7, 3, 4, 9], [5, 5, 5, 5]):
        call = case(sizes, group=2, new=new, tail_tokens=4, dtype=torch.float64, **rule)
        assert_equals_dense(call, TOLERANCE[torch.float64])


@pytest.mark.parametrize("free", [[2, 2], [0, 3]])
def test_rows_of_a_segment_may_lie_in_any_order(case, free):
    """With what hides some of them, and with what counts their distances."""
    for rule in ({"window": 5}, {"slopes": True}, {"first_seen": torch.int64}):
        for sizes in ([9, 9], [9, 4]):
            options = {"new": 3, "tail_tokens": 3, "dtype": torch.float64, "free": free}
            call = case(sizes, **options, shuffled=True, **rule)
            columns = call.tensors[4][: sizes[0]]
            assert not torch.equal(columns, columns.sort().values)
            assert_equals_dense(call, TOLERANCE[torch.float64])


def test_a_window_may_hide_a_single_token(case):
    call = case([9, 9], tail_tokens=2, gaps=0, window=10, dtype=torch.float64)
    assert call.settings["seen_tokens"] == 11  # so position 0 is just out of reach
    assert_equals_dense(call, TOLERANCE[torch.float64])


def test_a_window_may_hide_part_of_a_tail_without_a_prefix(case):
    call = case([0, 0], tail_tokens=6, gaps=0, window=3, dtype=torch.float64)
    assert_equals_dense(call, TOLERANCE[torch.float64])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_round_the_scaling(case, dtype):
    call = case([3, 3], tail_tokens=0, head_dim=1, scaling=0.3, dtype=dtype)
    queries, keys = call.tensors[:2]
    queries.fill_(1.0)
    keys[:6, 0] = torch.tensor([0.0, 3.0, 5.0]).repeat(2)
    _, mass, _ = call.run(reference.ragged_attention)
    np.testing.assert_allclose(mass.double().numpy(), dense(call)[1], rtol=0, atol=1e-6)


def test_a_bound_of_one_sequence_does_not_depend_on_the_others(case):
    call = case([9, 8, 9, 8], tail_tokens=2, gaps=0, dtype=torch.float64)
    for bounds in ([[0], [5]], [[5], [0]], [[10], [0]], [[0], [0]]):
        call.settings["first_seen"] = torch.tensor(bounds)
        assert_equals_dense(call, TOLERANCE[torch.float64])


@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("new", [1, 3])
def test_a_query_that_sees_nothing_gets_zeros_and_no_mass(case, new, sinks):
    call = case([4, 4], new=new, tail_tokens=0, window=1, gaps=9, sinks=sinks, seed=4)
    positions = call.tensors[4]
    positions.clamp_(max=call.settings["seen_tokens"] - new - 1)
    out, mass, _ = call.run(reference.ragged_attention)
    assert (out == 0).all()
    assert torch.equal(mass, call.mass)


def test_mass_of_one_kv_head_sums_to_the_number_of_queries(case):
    call = case([6, 11], group=4, new=3, tail_tokens=5)
    _, mass, tail_mass = call.run(reference.ragged_attention)
    added, tail_added = mass - call.mass, tail_mass - call.tail_mass
    by_head = torch.stack([added[:6].sum(), added[6:17].sum()]) + tail_added[0].sum(1)
    torch.testing.assert_close(by_head, torch.full((2,), 3.0))


def test_queries_may_be_a_transposed_view(case):
    call = case([5, 8], group=2, new=3, tail_tokens=4)
    queries = call.tensors[0]
    view = queries.transpose(1, 2).contiguous().transpose(1, 2)
    assert not view.is_contiguous()
    out = reference.ragged_attention(view, *call.tensors[1:], **call.settings)
    assert torch.equal(out, call.run(reference.ragged_attention)[0])


class LargestAllocation(TorchDispatchMode):
    """Notes the bytes of the largest storage any operation makes."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        known = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (list, tuple)) else [out]:
            if isinstance(x, torch.Tensor) and x.untyped_storage().data_ptr() not in known:
                self.bytes = max(self.bytes, x.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sizes", [[400, 700], [600, 600]])
def test_keys_and_values_are_never_copied(case, dtype, sizes):
    call = case(sizes, group=2, tail_tokens=300, head_dim=64, value_dim=64, dtype=dtype)
    with LargestAllocation() as largest:
        reference.ragged_attention(*call.tensors, **call.settings)
    smallest = 300 * 64 * dtype.itemsize  # one KV head's tail
    assert 0 < largest.bytes < smallest
