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


@pytest.mark.parametrize("index", range(4))
def test_a_prefix_of_other_tensors_is_refused(case, index):
    call = case([5, 9])
    others = list(call.tensors[1:5])
    others[index] = others[index].clone()
    with pytest.raises(ValueError, match="`prefix` must be made of the `keys`"):
        with_prefix(call, Prefix(*others))


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
    items, segments = 2 + 3, 2
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
