"""The flat store holds exactly what was kept, through reordering, cropping, merging and moving."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.runtime.arena import Region
from kvbudget.runtime.ragged import PaddedTokens, RaggedStore, block_tokens, storage_bytes

DIM, CHANNELS = 4, 2


def empty_region(rows: int) -> Region:
    """Memory with nothing in it that could pass for a token."""
    nothing = torch.full((2, rows, DIM), torch.nan)
    return Region(*nothing)


def block_of(keep: torch.Tensor) -> PaddedTokens:
    """Tokens whose key is told by row, head and column."""
    batch, heads, tokens = keep.shape
    keys = torch.arange(batch * heads * tokens * DIM).view(batch, heads, tokens, DIM).float()
    block = block_tokens(keys, -keys, 0, torch.ones(batch, tokens, dtype=torch.bool), CHANNELS)
    return replace(block, state=keys[..., :CHANNELS])


def make_store(keep: torch.Tensor, tail: int = 3, spare: int = 0) -> RaggedStore:
    """A store of these tokens in a region with rows to spare."""
    rows = int(keep.sum()) + keep[..., 0].numel() * tail + spare
    first = keep.shape[2]
    return RaggedStore.of(block_of(keep), keep, empty_region(rows), first_column=first, tail=tail)


def same_content(one: RaggedStore, other: RaggedStore) -> bool:
    """Whether two stores hold the same tokens and remember the same of them."""
    used = slice(0, one.tail_tokens)
    names = ("keys", "values", "positions", "offsets", "state")
    pairs = [(getattr(one, name), getattr(other, name)) for name in names]
    pairs += [(one.tail_keys[:, :, used], other.tail_keys[:, :, used])]
    pairs += [(one.tail_values[:, :, used], other.tail_values[:, :, used])]
    counters = (one.tail_tokens, one.tail_first) == (other.tail_tokens, other.tail_first)
    return counters and all(torch.equal(ours, theirs) for ours, theirs in pairs)


masks = st.builds(
    lambda flags: torch.tensor(flags[: len(flags) // 6 * 6]).view(2, 3, -1),
    st.lists(st.booleans(), min_size=6, max_size=60),
)


@settings(deadline=None)
@given(masks, st.integers(0, 5))
def test_it_holds_the_kept_tokens_and_touches_no_other_row(keep, spare):
    store, rows = make_store(keep, tail=0, spare=spare), int(keep.sum())
    assert store.held_rows == rows
    for flat, told in ((store.region.keys, 1), (store.region.values, -1)):
        assert torch.equal(flat[:rows], told * block_of(keep).keys[keep])
        assert flat[rows:].isnan().all()
    assert store.overhead_nbytes() == rows * (4 + 4 * CHANNELS) + 8 * 7
    for row in range(2):
        for head in range(3):
            expected = keep[row, head].nonzero().flatten()
            assert torch.equal(store.kept_positions()[row][head], expected)


@settings(deadline=None)
@given(masks)
def test_the_padded_form_gives_back_what_was_stored(keep):
    store = make_store(keep)
    new = torch.full((2, 3, 2, DIM), 7.0)
    store.append(new, new)
    padded = store.padded()
    assert torch.equal(padded.valid.sum(-1), keep.sum(-1) + 2)
    flat = padded.keys[padded.valid]
    region = empty_region(len(flat))
    again = RaggedStore.of(padded, padded.valid, region, first_column=keep.shape[2] + 2, tail=0)
    assert torch.equal(again.keys, flat)
    expected = [
        torch.cat([keep[r, h].nonzero().flatten(), torch.arange(2) + keep.shape[2]])
        for r in range(2)
        for h in range(3)
    ]
    held = [columns for row in again.kept_positions() for columns in row]
    assert all(torch.equal(a, b) for a, b in zip(held, expected, strict=True))


@settings(deadline=None)
@given(masks, st.lists(st.integers(0, 1), min_size=1, max_size=5), st.integers(0, 6))
def test_selecting_rows_moves_whole_sequences(keep, rows, spare):
    """Into as much memory as they take, or a little more; free slots stay where there is room."""
    lengths = keep.sum(-1)[rows]
    taken = int(lengths.sum()) + lengths.numel() * 1
    store = make_store(keep, spare=max(taken - int(keep.sum()) - 18, 0) + spare)
    store.append(*torch.arange(2.0 * 6 * DIM).view(2, 2, 3, 1, DIM))
    before = copy.deepcopy(store)
    store.select_rows(torch.tensor(rows))
    for target, source in enumerate(rows):
        for head in range(3):
            at = target * 3 + head
            was = source * 3 + head
            ours = store.keys[store.offsets[at] : store.offsets[at + 1]]
            assert torch.equal(ours, before.keys[before.offsets[was] : before.offsets[was + 1]])
    assert torch.equal(store.tail_keys[:, :, :1], before.tail_keys[rows][:, :, :1])
    assert torch.equal(store.tail_values[:, :, :1], before.tail_values[rows][:, :, :1])
    free = (len(store.region.keys) - int(lengths.sum())) // lengths.numel()
    assert store.tail_keys.shape[2] == min(3, free)


@settings(deadline=None)
@given(masks, st.integers(0, 12))
def test_cropping_forgets_the_newest_columns_only(keep, removed):
    store, tokens = make_store(keep), keep.shape[2]
    store.append(torch.ones(2, 3, 2, DIM), torch.ones(2, 3, 2, DIM))
    first_removed = max(0, tokens + 2 - removed)
    store.crop(first_removed)
    for row in range(2):
        for head in range(3):
            old = keep[row, head].nonzero().flatten()
            everything = torch.cat([old, torch.tensor([tokens, tokens + 1])])
            expected = everything[everything < first_removed]
            assert torch.equal(store.kept_positions()[row][head], expected)
    remembered = block_of(keep).state[keep & (torch.arange(tokens) < first_removed)]
    assert torch.equal(store.keys[:, :CHANNELS], remembered)
    assert torch.equal(store.state, remembered)


@settings(deadline=None)
@given(masks, st.integers(0, 3), st.integers(0, 2**30))
def test_merging_equals_storing_the_padded_form_anew(keep, new, seed):
    store = make_store(keep, spare=30)
    generator = torch.Generator().manual_seed(seed)
    store.append(*torch.randn(2, 2, 3, new, DIM, generator=generator))
    padded = store.padded()
    assert not padded.state[:, :, padded.state.shape[2] - new :].any()
    stays = padded.valid & (torch.rand(padded.valid.shape, generator=generator) < 0.6)
    state = torch.randn(padded.state.shape, generator=generator)
    padded = replace(padded, state=state)
    region = empty_region(int(stays.sum()) + 30)
    anew = RaggedStore.of(padded, stays, region, first_column=keep.shape[2] + new, tail=5)
    store.merge(stays, state, 5)
    assert same_content(store, anew)
    assert store.tail_keys.shape == anew.tail_keys.shape == (2, 3, 5, DIM)


@settings(deadline=None)
@given(masks, st.integers(0, 3), st.integers(0, 9))
def test_moving_changes_nothing_but_the_place(keep, new, distance):
    """Into memory that overlaps, to the left and to the right."""
    store = make_store(keep)
    store.append(*torch.arange(2.0 * 6 * DIM * new).view(2, 2, 3, new, DIM))
    rows, before = store.held_rows, copy.deepcopy(store)
    blocks = torch.full((2, rows + distance, DIM), torch.nan)
    for first in (distance, 0):
        store.move(Region(*blocks[:, first : first + rows]))
        assert same_content(store, before)
        assert store.free_tail == 0


@settings(deadline=None)
@given(masks, st.lists(st.integers(0, 1), min_size=1, max_size=5), st.integers(0, 12))
def test_what_is_remembered_stays_with_its_token(keep, rows, removed):
    store = make_store(keep, spare=100)
    store.select_rows(torch.tensor(rows))
    store.crop(max(0, keep.shape[2] - removed))
    assert torch.equal(store.state, store.keys[:, :CHANNELS])
    padded = store.padded()
    assert torch.equal(padded.state[padded.valid], store.state)


def test_everything_lies_in_the_region():
    keep = torch.ones(2, 3, 5, dtype=torch.bool)
    store = make_store(keep, spare=40)
    memory = {
        flat.untyped_storage().data_ptr() for flat in (store.region.keys, store.region.values)
    }
    store.select_rows(torch.tensor([1, 0, 1]))
    store.crop(4)
    store.append(*torch.ones(2, 3, 3, 1, DIM))
    store.merge(store.padded().valid, store.padded().state, 2)
    held = (store.keys, store.values, store.tail_keys, store.tail_values)
    assert {tensor.untyped_storage().data_ptr() for tensor in held} == memory
    region = (store.region.keys, store.region.values)
    assert storage_bytes(*held) == storage_bytes(*region) == 2 * (30 + 18 + 40) * DIM * 4


def test_memory_too_small_for_what_is_kept_is_an_error():
    keep = torch.ones(2, 3, 5, dtype=torch.bool)
    with pytest.raises(AssertionError, match="more than there is memory for"):
        RaggedStore.of(block_of(keep), keep, empty_region(29), first_column=5, tail=0)
    with pytest.raises(RuntimeError):
        RaggedStore.of(block_of(keep), keep, empty_region(35), first_column=5, tail=1)
