"""The flat store holds exactly what was kept, through reordering, cropping, merging and moving."""

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.kernels import Prefix
from kvbudget.runtime import ragged
from kvbudget.runtime.arena import Region
from kvbudget.runtime.padded_tokens import PaddedTokens, block_tokens
from kvbudget.runtime.ragged import RaggedStore, storage_bytes

DIM, CHANNELS = 4, 2
ROOMY = torch.tensor([[1000, 1000, 1000]])  # more than any region has: rooms fit what is held


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


def make_store(
    keep: torch.Tensor, tail: int = 3, spare: int = 0, capacities: torch.Tensor = ROOMY
) -> RaggedStore:
    """A store of these tokens in a region with rows to spare."""
    region = empty_region(int(keep.sum()) + keep[..., 0].numel() * tail + spare)
    first = keep.shape[2]
    return RaggedStore.of(block_of(keep), keep, region, capacities, first_column=first, tail=tail)


def held_by(store: RaggedStore) -> dict[str, torch.Tensor]:
    """All tokens and what is remembered of them, segment by segment, oldest first."""
    rows, used = store.segments.held_rows(), slice(0, store.tail_tokens)
    return {
        "keys": store.keys[rows],
        "values": store.values[rows],
        "columns": store.kept_columns(),
        "lengths": store.lengths,
        "state": store.kept_state(),
        "tail keys": store.tail_keys[:, :, used],
        "tail values": store.tail_values[:, :, used],
        "tail": torch.tensor([store.tail_tokens, store.tail_first]),
    }


def same_content(one: RaggedStore, other: RaggedStore) -> bool:
    """Whether two stores hold the same tokens and remember the same of them."""
    theirs = held_by(other)
    return all(torch.equal(ours, theirs[name]) for name, ours in held_by(one).items())


masks = st.builds(
    lambda flags: torch.tensor(flags[: len(flags) // 6 * 6]).view(2, 3, -1),
    st.lists(st.booleans(), min_size=6, max_size=60),
)
capacities = st.builds(
    lambda each: torch.tensor(each).view(-1, 3),
    st.lists(st.integers(0, 20), min_size=3, max_size=3)
    | st.lists(st.integers(0, 20), min_size=6, max_size=6),
)


@settings(deadline=None)
@given(masks, st.integers(0, 5))
def test_it_holds_the_kept_tokens_and_touches_no_other_row(keep, spare):
    store, rows = make_store(keep, tail=0, spare=spare), int(keep.sum())
    assert store.held_rows == rows
    for flat, told in ((store.region.keys, 1), (store.region.values, -1)):
        assert torch.equal(flat[:rows], told * block_of(keep).keys[keep])
        assert flat[rows:].isnan().all()
    # column and row of each row, borders and ends of each segment
    assert store.overhead_nbytes() == (rows + spare) * (4 + 4 + 4 * CHANNELS) + 8 * (7 + 6)
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
    first = keep.shape[2] + 2
    again = RaggedStore.of(padded, padded.valid, region, ROOMY, first_column=first, tail=0)
    assert torch.equal(again.keys, flat)
    expected = [
        torch.cat([keep[r, h].nonzero().flatten(), torch.arange(2) + keep.shape[2]])
        for r in range(2)
        for h in range(3)
    ]
    held = [columns for row in again.kept_positions() for columns in row]
    assert all(torch.equal(a, b) for a, b in zip(held, expected, strict=True))


@settings(deadline=None)
@given(masks, capacities)
def test_the_padded_form_shows_no_memory_without_a_token(keep, capacity):
    """Segments without tokens among them, the first one too, with free rows behind each."""
    store = make_store(keep, spare=120, capacities=capacity)
    for padded in (store.padded(), store.padded(dense=False)):
        for each in (padded.keys, padded.values, padded.state):
            assert not each.isnan().any()
        assert not padded.state[~padded.valid].any()
        assert bool((padded.positions >= 0).all() & (padded.positions < keep.shape[2] + 1).all())
        rising = padded.positions.diff(dim=-1) > 0
        assert rising[padded.valid[:, :, 1:]].all()


@settings(deadline=None)
@given(masks, st.integers(0, 3))
def test_without_keys_and_values_the_padded_form_tells_the_rest(keep, new):
    store = make_store(keep)
    store.append(*torch.ones(2, 2, 3, new, DIM))
    dense, bare = store.padded(), store.padded(dense=False)
    for name in ("positions", "valid", "state"):
        assert torch.equal(getattr(dense, name), getattr(bare, name))
    assert bare.keys.shape == dense.keys.shape
    assert bare.values.untyped_storage().nbytes() == 4


@settings(deadline=None)
@given(masks, st.lists(st.integers(0, 1), min_size=1, max_size=5), st.integers(0, 6))
def test_selecting_rows_moves_whole_sequences(keep, rows, spare):
    """Into as much memory as they take, or a little more; free slots stay where there is room."""
    lengths = keep.sum(-1)[rows]
    taken = int(lengths.sum()) + lengths.numel() * 1
    store = make_store(keep, spare=max(taken - int(keep.sum()) - 18, 0) + spare)
    store.append(*torch.arange(2.0 * 6 * DIM).view(2, 2, 3, 1, DIM))
    store.note_earlier_state(store.kept_state() + 1)
    before = copy.deepcopy(store)
    store.select_rows(torch.tensor(rows))
    ours, theirs = held_by(store), held_by(before)
    for name in ("keys", "values", "columns", "state"):
        segments = theirs[name].split(before.segments.lengths)
        chosen = [segments[row * 3 + head] for row in rows for head in range(3)]
        assert torch.equal(ours[name], torch.cat(chosen))
    for name in ("lengths", "tail keys", "tail values"):
        assert torch.equal(ours[name], theirs[name][rows])
    assert torch.equal(store.kept_earlier_state(), store.kept_state() + 1)
    free = (len(store.region.keys) - int(lengths.sum())) // lengths.numel()
    assert store.tail_keys.shape[2] == min(3, free)


@settings(deadline=None)
@given(masks, st.integers(0, 12), st.integers(0, 2**30))
def test_cropping_forgets_the_newest_columns_only(keep, removed, seed):
    """Before and after an eviction that left the rows in another order."""
    store = make_store(keep, spare=30)
    store.append(torch.ones(2, 3, 2, DIM), torch.ones(2, 3, 2, DIM))
    generator = torch.Generator().manual_seed(seed)
    for _ in range(2):
        before, held = store.kept_positions(), held_by(store)
        store.note_earlier_state(store.kept_state() + 1)
        first_removed = max(0, store.tail_first + store.tail_tokens - removed)
        other = copy.deepcopy(store)
        other.crop(first_removed)
        for row in range(2):
            for head in range(3):
                expected = before[row][head][before[row][head] < first_removed]
                assert torch.equal(other.kept_positions()[row][head], expected)
        stays = held["columns"] < first_removed
        for name in ("keys", "values", "state"):
            assert torch.equal(held_by(other)[name], held[name][stays])
        assert torch.equal(other.kept_earlier_state(), held["state"][stays] + 1)
        padded = store.padded()
        stays = padded.valid & (torch.rand(padded.valid.shape, generator=generator) < 0.7)
        store.merge(stays, padded.state, 1, ROOMY)
        store.append(*torch.rand(2, 2, 3, 1, DIM, generator=generator))


@settings(deadline=None)
@given(masks, capacities, st.integers(0, 3), st.integers(0, 2**30))
def test_merging_equals_storing_the_padded_form_anew(keep, capacity, new, seed):
    """As often as one likes, whether or not the segments have room."""
    store = make_store(keep, spare=90, capacities=capacity)
    generator = torch.Generator().manual_seed(seed)
    for tail in (5, 4, 6):
        store.append(*torch.randn(2, 2, 3, new, DIM, generator=generator))
        padded = store.padded()
        assert not padded.state[:, :, padded.state.shape[2] - new :].any()
        stays = padded.valid & (torch.rand(padded.valid.shape, generator=generator) < 0.6)
        state = torch.randn(padded.state.shape, generator=generator)
        padded = replace(padded, state=state)
        first = store.tail_first + store.tail_tokens
        region = empty_region(int(stays.sum()) + 6 * tail)
        anew = RaggedStore.of(padded, stays, region, ROOMY, first_column=first, tail=tail)
        store.merge(stays, state, tail, capacity)
        assert same_content(store, anew)
        assert store.tail_keys.shape == anew.tail_keys.shape == (2, 3, tail, DIM)
        check_rows(store)


def check_rows(store: RaggedStore) -> None:
    """Refuse segments whose tokens do not lie in the first rows of their rooms, each once."""
    segments = store.segments
    starts, ends = segments.offsets[:-1], segments.ends
    rows = segments.held_rows().split(segments.lengths)
    for start, end, held in zip(starts, ends, rows, strict=True):
        assert torch.equal(held.sort().values, torch.arange(start, end).int())
    assert (ends <= segments.offsets[1:]).all()
    assert segments.offsets.tolist() == segments.bounds
    assert (ends - starts).tolist() == segments.lengths


def addresses(store: RaggedStore) -> list[int]:
    """Where all that a recorded step of decoding reads lies."""
    segments = store.segments
    each = (segments.offsets, segments.ends, segments.positions, segments.order, store.state)
    return [x.data_ptr() for x in (*each, store.tail_keys, store.tail_values, store.keys)]


def full_store(lengths: list[int], tail: int) -> RaggedStore:
    """Caches filled to the last row, the tail with them."""
    keep = torch.arange(max(lengths)) < torch.tensor(lengths).view(2, 3, 1)
    capacity = torch.tensor(lengths).view(2, 3) + tail
    store = make_store(keep, tail, capacities=capacity)
    store.append(*torch.randn(2, 2, 3, tail, DIM))
    return store


@pytest.mark.parametrize("round_", range(3))
def test_an_eviction_moves_only_what_takes_the_place_of_what_goes(monkeypatch, round_):
    moved, tail = [], 4
    store = full_store([30, 9, 17, 8, 30, 30], tail)
    assert store.held_rows == len(store.region.keys)
    capacity = store.lengths + tail
    real = ragged.move_rows

    def noting(keys, values, sources, targets):
        moved.append((sources, targets))
        real(keys, values, sources, targets)

    monkeypatch.setattr(ragged, "move_rows", noting)
    generator = torch.Generator().manual_seed(round_)
    for _ in range(5):
        padded, before = store.padded(), addresses(store)
        rows = dict(zip(named(store), store.segments.held_rows().tolist(), strict=True))
        worth = torch.rand(padded.valid.shape, generator=generator).masked_fill(~padded.valid, -1.0)
        kept = worth.argsort(-1, descending=True).argsort(-1) < store.lengths[..., None]
        store.merge(kept, padded.state, tail, capacity)
        assert addresses(store) == before
        sources, targets = moved.pop()
        incoming = int(kept[:, :, -tail:].sum())
        assert len(sources) == len(targets) == incoming
        after = dict(zip(named(store), store.segments.held_rows().tolist(), strict=True))
        assert all(rows[token] == after[token] for token in rows.keys() & after.keys())
        store.append(*torch.randn(2, 2, 3, tail, DIM, generator=generator))
        check_rows(store)


def named(store: RaggedStore) -> list[tuple[int, int]]:
    """Segment and column of every token of the prefix."""
    columns = store.kept_columns().split(store.segments.lengths)
    return [(at, column) for at, held in enumerate(columns) for column in held.tolist()]


def test_where_fewer_stay_the_last_rows_close_the_holes(monkeypatch):
    moved = []
    monkeypatch.setattr(ragged, "move_rows", lambda *arguments: moved.append(arguments[2:]))
    store = full_store([8, 8, 8, 8, 8, 8], 2)
    keep = torch.zeros(2, 3, 10, dtype=torch.bool)
    keep[:, :, [0, 3, 6, 7, 9]] = True  # rows 6, 7 and one of the tail go to 1, 2 and 4
    store.merge(keep, store.padded().state, 2, torch.full((1, 3), 10))
    (sources, targets) = moved.pop()
    start = torch.arange(6)[:, None] * 8
    tail = 48 + torch.arange(6)[:, None] * 2 + 1
    assert torch.equal(sources.view(6, 3), torch.cat([start + 6, start + 7, tail], 1))
    assert torch.equal(targets.view(6, 3), start + torch.tensor([1, 2, 4]))
    assert store.segments.order[:5].tolist() == [0, 3, 1, 2, 4]


@pytest.mark.parametrize("longer", [False, True])
def test_attention_is_told_of_every_change(longer):
    """The prefix stays the same object, and knows what a new one would find."""
    store = full_store([9, 4, 7, 8, 2, 3], 4)
    prefix = store.prefix
    assert [prefix.bounds, prefix.stops, prefix.span] == looked_at(store)
    kept = store.padded().valid & (torch.arange(13) % 3 == 0)
    store.merge(kept, store.padded().state, 5 if longer else 4, store.lengths + 4)
    assert store.prefix is prefix
    assert [prefix.bounds, prefix.stops, prefix.span] == looked_at(store)
    store.append(*torch.randn(2, 2, 3, 1, DIM))
    store.crop(4)
    assert store.prefix is prefix
    assert [prefix.bounds, prefix.stops, prefix.span] == looked_at(store)
    store.select_rows(torch.tensor([1]))
    assert store.prefix is not prefix
    assert [store.prefix.bounds, store.prefix.stops, store.prefix.span] == looked_at(store)


def looked_at(store: RaggedStore) -> list[object]:
    segments = store.segments
    each = (store.keys, store.values, segments.offsets, segments.positions, segments.ends)
    fresh = Prefix(*each)
    return [fresh.bounds, fresh.stops, fresh.span]


@settings(deadline=None)
@given(masks, st.integers(0, 3), st.integers(0, 9), st.integers(0, 2**30))
def test_moving_changes_nothing_but_the_place(keep, new, distance, seed):
    """Into memory that overlaps, to the left and to the right, and out of any order."""
    store = make_store(keep)
    generator = torch.Generator().manual_seed(seed)
    padded = store.padded()
    stays = padded.valid & (torch.rand(padded.valid.shape, generator=generator) < 0.8)
    store.merge(stays, padded.state, 3, ROOMY)
    store.append(*torch.arange(2.0 * 6 * DIM * new).view(2, 2, 3, new, DIM))
    store.note_earlier_state(store.kept_state() + 1)
    rows, before = store.held_rows, copy.deepcopy(store)
    blocks = torch.full((2, rows + distance, DIM), torch.nan)
    for first in (distance, 0):
        store.move(Region(*blocks[:, first : first + rows]))
        assert same_content(store, before)
        assert torch.equal(store.kept_earlier_state(), before.kept_earlier_state())
        assert store.free_tail == 0
        # what somebody else copies lies at the start, in this order
        order = torch.cat([store.segments.held_rows(), store._tail_rows(new).flatten()])
        assert torch.equal(order, torch.arange(rows))


@settings(deadline=None)
@given(masks, st.lists(st.integers(0, 1), min_size=1, max_size=5), st.integers(0, 12))
def test_what_is_remembered_stays_with_its_token(keep, rows, removed):
    store = make_store(keep, spare=100)
    store.select_rows(torch.tensor(rows))
    store.crop(max(0, keep.shape[2] - removed))
    held = held_by(store)
    assert torch.equal(held["state"], held["keys"][:, :CHANNELS])
    padded = store.padded()
    assert torch.equal(padded.state[padded.valid], held["state"])


def test_what_was_remembered_before_comes_back():
    store = make_store(torch.ones(2, 3, 5, dtype=torch.bool))
    now = store.kept_state()
    store.note_earlier_state(now * 2)
    assert torch.equal(store.kept_state(), now)
    store.go_back()
    assert torch.equal(store.kept_state(), now * 2)
    assert store.kept_earlier_state() is None
    store.go_back()
    assert torch.equal(store.kept_state(), now * 2)


def test_everything_lies_in_the_region():
    keep = torch.ones(2, 3, 5, dtype=torch.bool)
    store = make_store(keep, spare=40)
    memory = {
        flat.untyped_storage().data_ptr() for flat in (store.region.keys, store.region.values)
    }
    store.select_rows(torch.tensor([1, 0, 1]))
    store.crop(4)
    store.append(*torch.ones(2, 3, 3, 1, DIM))
    store.merge(store.padded().valid, store.padded().state, 2, ROOMY)
    held = (store.keys, store.values, store.tail_keys, store.tail_values)
    assert {tensor.untyped_storage().data_ptr() for tensor in held} == memory
    region = (store.region.keys, store.region.values)
    assert storage_bytes(*held) == storage_bytes(*region) == 2 * (30 + 18 + 40) * DIM * 4


def test_memory_too_small_for_what_is_kept_is_an_error():
    keep = torch.ones(2, 3, 5, dtype=torch.bool)
    with pytest.raises(AssertionError, match="more than there is memory for"):
        RaggedStore.of(block_of(keep), keep, empty_region(29), ROOMY, first_column=5, tail=0)
    with pytest.raises(RuntimeError):
        RaggedStore.of(block_of(keep), keep, empty_region(35), ROOMY, first_column=5, tail=1)
