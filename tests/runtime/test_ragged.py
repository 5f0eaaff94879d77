"""The flat store holds exactly what was kept, through reordering, cropping and merging."""

from dataclasses import replace

import torch
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.runtime.ragged import RaggedStore, block_tokens

DIM, CHANNELS = 4, 2


def make_store(keep: torch.Tensor, tail: int = 3) -> RaggedStore:
    """A store whose key of (row, head, column) is told by its numbers."""
    batch, heads, tokens = keep.shape
    keys = torch.arange(batch * heads * tokens * DIM).view(batch, heads, tokens, DIM).float()
    block = block_tokens(keys, -keys, 0, torch.ones(batch, tokens, dtype=torch.bool), CHANNELS)
    block = replace(block, state=keys[..., :CHANNELS])
    return RaggedStore(block, keep, first_column=tokens, tail=tail)


masks = st.builds(
    lambda flags: torch.tensor(flags[: len(flags) // 6 * 6]).view(2, 3, -1),
    st.lists(st.booleans(), min_size=6, max_size=60),
)


@given(masks)
def test_it_holds_the_kept_tokens_and_no_byte_more(keep):
    store = make_store(keep, tail=0)
    rows = int(keep.sum())
    assert store.nbytes() == rows * DIM * 2 * 4
    assert store.overhead_nbytes() >= rows * 4
    for row in range(2):
        for head in range(3):
            expected = keep[row, head].nonzero().flatten()
            assert torch.equal(store.kept_positions()[row][head], expected)


@given(masks)
def test_the_padded_form_gives_back_what_was_stored(keep):
    store = make_store(keep)
    new = torch.full((2, 3, 2, DIM), 7.0)
    store.append(new, new)
    padded = store.padded()
    assert torch.equal(padded.valid.sum(-1), keep.sum(-1) + 2)
    flat = padded.keys[padded.valid]
    again = RaggedStore(padded, padded.valid, first_column=keep.shape[2] + 2, tail=0)
    assert torch.equal(again.keys, flat)
    expected = [
        torch.cat([keep[r, h].nonzero().flatten(), torch.arange(2) + keep.shape[2]])
        for r in range(2)
        for h in range(3)
    ]
    held = [columns for row in again.kept_positions() for columns in row]
    assert all(torch.equal(a, b) for a, b in zip(held, expected, strict=True))


@given(masks, st.lists(st.integers(0, 1), min_size=1, max_size=5))
def test_selecting_rows_moves_whole_sequences(keep, rows):
    store, before = make_store(keep), make_store(keep)
    store.append(torch.ones(2, 3, 1, DIM), torch.ones(2, 3, 1, DIM))
    store.select_rows(torch.tensor(rows))
    for target, source in enumerate(rows):
        for head in range(3):
            at = target * 3 + head
            was = source * 3 + head
            ours = store.keys[store.offsets[at] : store.offsets[at + 1]]
            assert torch.equal(ours, before.keys[before.offsets[was] : before.offsets[was + 1]])
    assert store.tail_keys.shape[0] == len(rows)


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


@given(masks, st.integers(0, 3), st.integers(0, 2**30))
def test_merging_equals_storing_the_padded_form_anew(keep, new, seed):
    store = make_store(keep)
    generator = torch.Generator().manual_seed(seed)
    store.append(*torch.randn(2, 2, 3, new, DIM, generator=generator))
    padded = store.padded()
    assert not padded.state[:, :, padded.state.shape[2] - new :].any()
    stays = padded.valid & (torch.rand(padded.valid.shape, generator=generator) < 0.6)
    state = torch.randn(padded.state.shape, generator=generator)
    padded = replace(padded, state=state)
    anew = RaggedStore(padded, stays, first_column=keep.shape[2] + new, tail=5)
    store.merge(stays, state, 5)
    for name in ("keys", "values", "positions", "offsets", "state", "tail_keys"):
        assert torch.equal(getattr(store, name), getattr(anew, name)), name
    assert (store.tail_first, store.tail_tokens) == (anew.tail_first, 0)


@given(masks, st.lists(st.integers(0, 1), min_size=1, max_size=5), st.integers(0, 12))
def test_what_is_remembered_stays_with_its_token(keep, rows, removed):
    store = make_store(keep)
    store.select_rows(torch.tensor(rows))
    store.crop(max(0, keep.shape[2] - removed))
    assert torch.equal(store.state, store.keys[:, :CHANNELS])
    padded = store.padded()
    assert torch.equal(padded.state[padded.valid], store.state)
