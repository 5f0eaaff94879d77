"""What is kept of a prefix between calls changes no result, and cannot be mixed up."""

from __future__ import annotations

import pytest
import torch

from kvbudget.kernels import Prefix, ragged_attention


def with_prefix(call, prefix, **changes):
    return ragged_attention(*call.tensors, **(call.settings | changes), prefix=prefix)


@pytest.mark.parametrize("sizes", [[5, 9], [7, 7], [0, 4], [0, 0]])
def test_a_kept_prefix_gives_the_same_for_any_queries(case, sizes):
    first = case(sizes, group=2, tail_tokens=6, window=9, sinks=True)
    prefix = Prefix(*first.tensors[1:5])
    for new in (1, 4, 1, 3):
        queries = case(sizes, group=2, new=new, tail_tokens=6).tensors[0]
        tensors = (queries, *first.tensors[1:])
        for window in (None, 3):
            rules = first.settings | {"window": window}
            kept = ragged_attention(*tensors, **rules, prefix=prefix)
            assert torch.equal(kept, ragged_attention(*tensors, **rules))


@pytest.mark.parametrize("index", range(5))
def test_a_prefix_of_other_tensors_is_refused(case, index):
    call = case([5, 9], free=[1, 0])
    others = [*call.tensors[1:5], call.settings["ends"]]
    with_prefix(call, Prefix(*others))
    others[index] = others[index].clone()
    with pytest.raises(ValueError, match="`prefix` must be made of the `keys`"):
        with_prefix(call, Prefix(*others))
    others[4] = None
    with pytest.raises(ValueError, match="`prefix` must be made of the `keys`"):
        with_prefix(call, Prefix(*others))


@pytest.mark.parametrize(
    ("offsets", "ends", "complaint"),
    [
        ([1, 4, 9], None, "`offsets` must rise from 0"),
        ([0, 5, 4], None, "`offsets` must rise from 0"),
        ([0, 4, 10], None, "to at most the 9 rows"),
        ([0, 4, 9], [5, 9], "`ends` must lie between the borders"),
        ([0, 4, 9], [4, 3], "`ends` must lie between the borders"),
        ([0, 4, 8], [4, 9], "`ends` must lie between the borders"),
    ],
)
def test_borders_that_cannot_be_are_refused(offsets, ends, complaint):
    rows = torch.zeros(9, 4)
    stops = None if ends is None else torch.tensor(ends)
    positions = torch.arange(9, dtype=torch.int32)
    with pytest.raises(ValueError, match=complaint):
        Prefix(rows, rows, torch.tensor(offsets), positions, stops)


RULES = {
    "plain": {},
    "a window": {"window": 5},
    "slopes": {"slopes": True},
    "a first token": {"first_seen": torch.int64},
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES.keys())
@pytest.mark.parametrize("free", [[3, 3, 3, 3], [0, 5, 1, 0], [2, 0, 0, 7]])
@pytest.mark.parametrize("sizes", [[6, 6, 6, 6], [4, 0, 9, 9], [0, 0, 0, 0]])
def test_free_rows_are_never_looked_at(case, sizes, free, rule):
    call = case(sizes, group=2, new=2, tail_tokens=3, free=free, **rule)
    queries, *tensors, tail_keys, tail_values, tail_tokens = call.tensors
    tail = (tail_keys, tail_values, tail_tokens)
    keys, values, offsets, positions = tensors
    borders = zip(offsets, call.settings["ends"], strict=False)
    held = torch.cat([torch.arange(start, end) for start, end in borders])
    is_free = torch.ones(len(keys), dtype=torch.bool).index_fill(0, held, False)
    assert keys[is_free].isnan().all()
    positions[is_free] = torch.arange(int(is_free.sum())).int() * 7**7 - 1
    mass = torch.full((len(keys),), 0.5)
    out = ragged_attention(queries, *tensors, *tail, **call.settings, mass=mass)
    packed = (keys[held], values[held], torch.tensor([0, *sizes]).cumsum(0), positions[held])
    packed_mass = torch.full((len(held),), 0.5)
    settings = call.settings | {"ends": None}
    wanted = ragged_attention(queries, *packed, *tail, **settings, mass=packed_mass)
    torch.testing.assert_close(out, wanted, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(mass[held], packed_mass, atol=1e-6, rtol=1e-6)
    assert (mass[is_free] == 0.5).all()


def test_what_was_changed_in_place_is_seen_once_it_is_told(case):
    one = case([5, 9, 2, 0], group=2, free=[4, 1, 1, 3], seed=1, gaps=9)
    two = case([8, 1, 2, 3], group=2, free=[1, 9, 1, 0], seed=2, gaps=10, window=4)
    prefix = Prefix(*one.tensors[1:5], one.settings["ends"])
    work, before = prefix.work_list(3), with_prefix(one, prefix)
    assert [prefix.bounds[-1], prefix.largest, prefix.span[1] > 0] == [25, (1, 9), True]
    held = (prefix.keys, prefix.values, prefix.offsets, prefix.positions, prefix.ends)
    for ours, theirs in zip(held, (*two.tensors[1:5], two.settings["ends"]), strict=True):
        ours.copy_(theirs)
    prefix.renew()
    assert (prefix.bounds, prefix.stops) == (two.tensors[3].tolist(), two.settings["ends"].tolist())
    settings = two.settings | {"ends": prefix.ends}
    tensors = (two.tensors[0], *held[:4], *two.tensors[5:])
    after = ragged_attention(*tensors, **settings, prefix=prefix)
    assert torch.equal(after, ragged_attention(*two.tensors, **two.settings))
    assert not torch.equal(before, after)
    assert prefix.work_list(3) is work
    fresh = Prefix(*two.tensors[1:5], two.settings["ends"]).work_list(3)
    assert torch.equal(work.first, fresh.first)


def test_queries_that_do_not_suit_a_kept_prefix_are_refused(case):
    call = case([5, 9], head_dim=16)
    prefix = Prefix(*call.tensors[1:5])
    with_prefix(call, prefix)
    queries, *held, tail_keys, tail_values, tail_tokens = call.tensors
    narrow = (queries[..., :8].contiguous(), *held, tail_keys[..., :8].contiguous())
    with pytest.raises(ValueError, match="`keys` must have shape"):
        ragged_attention(*narrow, tail_values, tail_tokens, **call.settings, prefix=prefix)
    half = (queries.half(), *held, tail_keys.half(), tail_values.half())
    with pytest.raises(TypeError, match=r"`keys` must be torch\.float16"):
        ragged_attention(*half, tail_tokens, **call.settings, prefix=prefix)
    twice = [x.repeat(2, 1, 1, 1) for x in (queries, tail_keys, tail_values)]
    with pytest.raises(ValueError, match="`offsets` must have shape"):
        ragged_attention(twice[0], *held, *twice[1:], tail_tokens, **call.settings, prefix=prefix)


def test_it_counts_what_it_keeps(case):
    call = case([5, 9], group=4, new=2)
    prefix = Prefix(*call.tensors[1:5])
    assert prefix.nbytes() == 0
    prefix.work_list(3)
    # two segments in 16 rows make at most 6 slices of 3
    items, segments = 6, 2
    assert prefix.nbytes() == 4 * (3 * items + segments + 1)


def test_rows_of_a_larger_storage_serve_as_well_as_whole_ones(case):
    call = case([5, 9], group=2, tail_tokens=3)

    def moved(tensor):
        storage = torch.full((len(tensor) + 4, *tensor.shape[1:]), 7).to(tensor.dtype)
        storage[3:-1] = tensor
        return storage[3:-1]

    queries, *tensors, tail_tokens = call.tensors
    inside = [moved(tensor) for tensor in tensors]
    out = ragged_attention(queries, *inside, tail_tokens, **call.settings)
    assert torch.equal(out, ragged_attention(*call.tensors, **call.settings))
