"""What a running heuristic remembers follows its tokens through the whole life of a cache."""

import copy
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from kvbudget.allocator import KVBudgetError
from kvbudget.heuristics import (
    CriticalKV,
    HeavyHitter,
    KeyNorm,
    KVZip,
    ObservationWindow,
    RunningHeuristic,
)
from kvbudget.runtime import budgeted, geometry_of
from kvbudget.runtime.recent_queries import QUERIES_REMEMBERED, RecentQueries

PROMPT, NEW = 40, 50


@dataclass(frozen=True, slots=True)
class Sighted(RunningHeuristic):
    """Count the queries that could see each token, and prefer tokens by their key."""

    channels: ClassVar[int] = 2

    def observe(self, view):
        """Add the queries of the view; the second channel tells the column."""
        seen = view.seen(slice(0, view.new)).sum(2)
        return torch.stack([view.known_state(2)[..., 0] + seen, view.positions.float()], -1)

    def score(self, view):
        """Anything that drops tokens here and there."""
        return (view.positions.float() * 12.9898).sin()


@pytest.fixture
def model(model_of):
    return model_of("LlamaForCausalLM")


@pytest.fixture
def tight(model, plan_for):
    """Makes plans of uneven caches that lose tokens in the prompt and again while decoding."""
    geometry = geometry_of(model)
    capacity = torch.arange(geometry.layers * geometry.kv_heads).view(geometry.layers, -1) % 3
    return lambda rows: plan_for(geometry, (24 + 3 * capacity).numpy(), PROMPT * 2 + NEW, rows)


@pytest.fixture
def plan(tight):
    """A plan for one sequence."""
    return tight(1)


def stores(cache):
    return [layer.store for layer in cache.stack.layers]


HOWS = [{}, {"num_beams": 3}, {"prefill_chunk_size": 9}, {"prefill_chunk_size": 20}]


@pytest.mark.parametrize("how", HOWS, ids=str)
def test_every_query_is_counted_once_for_every_token_it_could_see(model, tight, how):
    plan = tight(how.get("num_beams", 1))
    tokens = torch.randint(3, 97, (1, PROMPT), generator=torch.Generator().manual_seed(1))
    with budgeted(model, plan, Sighted()) as cache:
        model.generate(tokens, do_sample=False, max_new_tokens=NEW, **how, past_key_values=cache)
        for store in stores(cache):
            counted, column = store.kept_state().unbind(-1)
            assert 0 < store.lengths.max() <= 30
            assert torch.equal(column, store.kept_columns().float())
            assert torch.equal(counted, store.tail_first - column)


def test_padding_and_batches_change_no_count(model, tight):
    plan = tight(2)
    tokens = torch.randint(3, 97, (2, PROMPT), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(tokens)
    mask[1, :7] = 0
    with budgeted(model, plan, Sighted()) as cache:
        model.generate(
            tokens, attention_mask=mask, do_sample=False, max_new_tokens=NEW, past_key_values=cache
        )
        for store in stores(cache):
            counted, column = store.kept_state().unbind(-1)
            assert torch.equal(counted, store.tail_first - column)
            assert min(int(columns[0]) for columns in store.kept_positions()[1]) >= 7


def test_queries_taken_back_before_an_eviction_are_not_counted(model, plan):
    tokens = torch.randint(3, 97, (1, PROMPT + 8), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode(), budgeted(model, plan, Sighted()) as cache:
        model(tokens[:, :PROMPT], past_key_values=cache)
        model(tokens[:, PROMPT : PROMPT + 3], past_key_values=cache)
        cache.crop(-2)
        for column in range(PROMPT + 1, PROMPT + 8):
            model(tokens[:, column : column + 1], past_key_values=cache)
        for layer in cache.stack.layers:
            layer.shrink_to(1, layer.seen_tokens + 1)
            layer._make_room(layer.store, 20)
            counted, column = layer.store.kept_state().unbind(-1)
            assert torch.equal(counted, layer.store.tail_first - column)


def test_heavy_hitters_of_a_whole_life_equal_a_simulation(model, plan):
    """Feed the same tokens by hand and keep the books with dense attention."""
    tokens = torch.randint(3, 97, (1, PROMPT + NEW), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode(), budgeted(model, plan, HeavyHitter()) as cache:
        model(tokens[:, :PROMPT], past_key_values=cache)
        layer = cache.stack.layers[0]
        first = layer.seen_tokens
        while layer.store.tail_first == first:
            at = layer.seen_tokens
            model(tokens[:, at : at + 1], past_key_values=cache)
            if layer.store.tail_first == first:
                queries = layer.judge.recent.all()[0].clone()
                tail_keys = layer.store.tail_keys[0, :, : layer.store.tail_tokens].clone()
                rows = layer.store.segments.held_rows()
                keys, columns = layer.store.keys[rows], layer.store.kept_columns().long()
                before, lengths = layer.store.kept_state(), layer.store.segments.lengths
        group = queries.shape[0] // layer.store.kv_heads
        decoded = tail_keys.shape[1]
        after = layer.store.kept_state()[:, 0].split(layer.store.segments.lengths)
        held = zip(keys.split(lengths), columns.split(lengths), before.split(lengths), strict=True)
        for head, (held_keys, held_columns, held_state) in enumerate(held):
            every = torch.cat([held_keys, tail_keys[head]])
            place = torch.cat([held_columns, torch.arange(first, first + decoded)])
            total = torch.cat([held_state[:, 0], torch.zeros(decoded)])
            for step in range(decoded):
                at = queries.shape[1] - decoded + step
                for query in queries[head * group : (head + 1) * group, at]:
                    logits = (every @ query) * layer.judge.rules.scaling
                    logits[place > first + step] = -torch.inf
                    total += logits.softmax(0) / group
            for position, found in zip(
                layer.store.kept_positions()[0][head].tolist(), after[head], strict=False
            ):
                if position < first + decoded:
                    wanted = total[(place == position).nonzero()[0, 0]]
                    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_queries_are_remembered_only_for_a_heuristic_that_reads_them(model, plan):
    tokens = torch.randint(3, 97, (1, PROMPT), generator=torch.Generator().manual_seed(5))
    remembered = []
    for heuristic in (ObservationWindow(), KeyNorm()):
        with torch.inference_mode(), budgeted(model, plan, heuristic) as cache:
            model(tokens, past_key_values=cache)
            remembered.append(sum(layer.judge.recent.nbytes() for layer in cache.stack.layers))
            assert cache.nbytes(overhead=True) >= cache.nbytes() + remembered[-1]
    heads, layers = model.config.num_attention_heads, model.config.num_hidden_layers
    per_query = 4 * heads * geometry_of(model).head_dim * layers
    assert remembered == [QUERIES_REMEMBERED * per_query, 0]


def test_recent_queries_are_the_newest_of_all_that_were_not_taken_back():
    recent, told = RecentQueries(), torch.zeros(2, 3, 0, 4)
    draw = torch.Generator().manual_seed(0)
    for new in (50, 1, 1, 7, 30):
        queries = torch.randn(2, 3, new, 4, generator=draw)
        recent.append(queries)
        told = torch.cat([told, queries], 2)
        recent.crop(1)
        told = told[:, :, :-1]
        found = recent.all()
        assert torch.equal(found, told[:, :, -found.shape[2] :])
        assert found.shape[2] >= min(QUERIES_REMEMBERED, told.shape[2]) - 1
        recent.settle()
    assert recent.unseen == 0
    recent.select_rows(torch.tensor([1, 1, 0]))
    assert torch.equal(recent.all(), told[[1, 1, 0], :, -QUERIES_REMEMBERED:])


def test_older_queries_are_forgotten_while_newer_ones_come():
    """But none that was not shown, and enough are left when the newest block is taken back."""
    recent, told = RecentQueries(), torch.zeros(1, 1, 0, 2)
    draw = torch.Generator().manual_seed(0)
    for turn, new in enumerate([90, *[1] * 70, 9, 1, 20, *[1] * 50]):
        queries = torch.randn(1, 1, new, 2, generator=draw)
        recent.append(queries)
        told = torch.cat([told, queries], 2)
        held = recent.nbytes() // 8
        assert held >= recent.unseen
        if turn % 30 == 0:
            recent.settle()
        else:
            assert held - new >= QUERIES_REMEMBERED
            assert turn < 30 or held <= max(QUERIES_REMEMBERED, recent.unseen) + 8 + new
        assert torch.equal(recent.all(), told[:, :, -recent.all().shape[2] :])


@pytest.mark.parametrize("accepted", [0, 1, 3, 6])
def test_a_draft_that_is_taken_back_counts_as_if_it_had_never_been(model, plan, accepted):
    """Full caches: the draft is read as a block, cut, and then partly refused."""
    draw = torch.Generator().manual_seed(6)
    tokens = torch.randint(3, 97, (1, PROMPT + 40), generator=draw)
    with torch.inference_mode(), budgeted(model, plan, Sighted()) as cache:
        model(tokens[:, :PROMPT], past_key_values=cache)
        for step in range(5):
            at = cache.get_seq_length()
            model(tokens[:, at : at + 6], past_key_values=cache)
            if accepted < 6:
                cache.crop(accepted - 6)
            assert cache.get_seq_length() == PROMPT + accepted * (step + 1)
        for layer in cache.stack.layers:
            layer._make_room(layer.store, 1)
            counted, column = layer.store.kept_state().unbind(-1)
            assert torch.equal(counted, layer.store.tail_first - column)
            assert layer.judge.prompt_columns == PROMPT


def test_a_cache_cropped_to_nothing_is_as_new(model, plan):
    tokens = torch.randint(3, 97, (1, PROMPT), generator=torch.Generator().manual_seed(7))
    kept = []
    for crop in (False, True):
        with torch.inference_mode(), budgeted(model, plan, KVZip()) as cache:
            if crop:
                model(tokens.flip(1), past_key_values=cache)
                cache.crop(-PROMPT)
            model(tokens, past_key_values=cache)
            kept.append([cache.kept_positions(layer)[0] for layer in range(3)])
    for fresh, used in zip(*kept, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(fresh, used, strict=True))


def test_a_failure_while_caches_shrink_leaves_no_half_counted_cache(model, tight):
    plan = tight(4)

    class Broken(Exception):
        """Something inside a heuristic."""

    @dataclass(frozen=True, slots=True)
    class Failing(Sighted):
        calls: list

        def observe(self, view):
            self.calls.append(view.new)
            if len(self.calls) == 4:
                raise Broken
            return view.known_state(2)

    tokens = torch.randint(3, 97, (1, PROMPT), generator=torch.Generator().manual_seed(8))
    with torch.inference_mode(), budgeted(model, plan, Failing([])) as cache:
        model(tokens, past_key_values=cache)
        with pytest.raises(Broken):
            cache.batch_repeat_interleave(4)
        with pytest.raises(KVBudgetError, match="broke off"):
            model(tokens[:, :1], past_key_values=cache)


def test_copies_of_a_cache_share_the_weights_of_the_model(model, plan):
    tokens = torch.randint(3, 97, (1, PROMPT), generator=torch.Generator().manual_seed(9))
    with torch.inference_mode(), budgeted(model, plan, CriticalKV()) as cache:
        model(tokens, past_key_values=cache)
        layers = (cache.stack.layers[1], copy.deepcopy(cache).stack.layers[1])
        ours, theirs = (layer.judge.output_weight() for layer in layers)
        assert ours.untyped_storage().data_ptr() == theirs.untyped_storage().data_ptr()
        weight = model.model.layers[1].self_attn.o_proj.weight
        assert ours.untyped_storage().data_ptr() == weight.untyped_storage().data_ptr()


def test_a_token_decoded_behind_an_accepted_draft_is_taken_back_by_itself(model, plan):
    tokens = torch.randint(3, 97, (1, PROMPT + 20), generator=torch.Generator().manual_seed(10))
    with torch.inference_mode(), budgeted(model, plan, Sighted()) as cache:
        model(tokens[:, :PROMPT], past_key_values=cache)
        model(tokens[:, PROMPT : PROMPT + 6], past_key_values=cache)
        model(tokens[:, PROMPT + 6 : PROMPT + 7], past_key_values=cache)
        cache.crop(-1)
        model(tokens[:, PROMPT + 6 : PROMPT + 7], past_key_values=cache)
        for layer in cache.stack.layers:
            layer._make_room(layer.store, layer.store.free_tail + 1)
            counted, column = layer.store.kept_state().unbind(-1)
            assert torch.equal(counted, layer.store.tail_first - column)


def test_queries_of_refused_tokens_are_forgotten(model, plan):
    tokens = torch.randint(3, 97, (1, PROMPT + 6), generator=torch.Generator().manual_seed(11))
    with torch.inference_mode(), budgeted(model, plan, ObservationWindow()) as cache:
        model(tokens[:, :PROMPT], past_key_values=cache)
        model(tokens[:, PROMPT:], past_key_values=cache)
        drafts = [layer.judge.recent.all()[:, :, -6:].clone() for layer in cache.stack.layers]
        cache.crop(-4)
        for layer, draft in zip(cache.stack.layers, drafts, strict=True):
            assert torch.equal(layer.judge.recent.all()[:, :, -2:], draft[:, :, :2])
