"""Caches that live long: many turns, forks, rows that end early, and memory that stays put."""

import copy

import pytest
import torch

from kvbudget.heuristics import HeavyHitter, ObservationWindow
from kvbudget.runtime import budgeted, geometry_of

PREFIX, QUESTION, ANSWER, TURNS = 30, 6, 5, 10
TOTAL = PREFIX + TURNS * (QUESTION + ANSWER)


@pytest.fixture(params=["LlamaForCausalLM", "Gemma3ForCausalLM"])
def model(request, model_of):
    """Full attention, and sliding windows."""
    return model_of(request.param)


@pytest.fixture
def roomy(model, plan_for):
    """A plan that holds everything that is read here, for four rows."""
    geometry = geometry_of(model)
    capacity = torch.tensor([[min(TOTAL, w or TOTAL)] * 2 for w in geometry.windows]).numpy()
    return plan_for(geometry, capacity, TOTAL, 4, geometry.bytes_of([TOTAL] * 3, 4))


@pytest.fixture
def tight(model, plan_for, random_capacity):
    """Makes plans that evict in the prompt and again while decoding."""

    def build(rows):
        geometry = geometry_of(model)
        return plan_for(geometry, random_capacity(geometry, 10, 22), TOTAL, rows)

    return build


def drawn(rows, tokens, seed):
    return torch.randint(3, 97, (rows, tokens), generator=torch.Generator().manual_seed(seed))


OPTIONS = {"do_sample": False, "max_new_tokens": ANSWER}


def test_the_tenth_turn_on_one_cache_is_that_of_plain_transformers(model, roomy):
    text, told = drawn(1, PREFIX, 0), []
    with budgeted(model, roomy) as cache:
        for turn in range(TURNS):
            asked = torch.cat([text, drawn(1, QUESTION, 1 + turn)], 1)
            text = model.generate(asked, **OPTIONS, past_key_values=cache)
            told.append((asked, text))
            assert cache.nbytes() <= roomy.budget_bytes
    for asked, answered in told:
        assert torch.equal(answered, model.generate(asked, **OPTIONS))


def test_questions_on_copies_of_one_prefix_are_those_on_the_whole_text(model, roomy):
    prefix, told = drawn(1, PREFIX, 0), []
    with budgeted(model, roomy) as cache:
        with torch.inference_mode():
            model(prefix, past_key_values=cache)
        for seed in (1, 2, 3):
            text = torch.cat([prefix, drawn(1, QUESTION, seed)], 1)
            fork = copy.deepcopy(cache)
            told.append((text, model.generate(text, **OPTIONS, past_key_values=fork)))
            assert cache.get_seq_length() == PREFIX
    for asked, answered in told:
        assert torch.equal(answered, model.generate(asked, **OPTIONS))


def test_questions_on_rows_of_one_prefix_are_those_on_the_whole_text(model, roomy):
    prefix, questions = drawn(1, PREFIX, 0), drawn(3, QUESTION, 1)
    text = torch.cat([prefix.expand(3, -1), questions], 1)
    with budgeted(model, roomy) as cache:
        with torch.inference_mode():
            model(prefix, past_key_values=cache)
            cache.batch_repeat_interleave(3)
        ours = model.generate(text, **OPTIONS, past_key_values=cache)
        assert cache.nbytes() <= roomy.budget_bytes
    assert torch.equal(ours, model.generate(text, **OPTIONS))


@torch.inference_mode()
@pytest.mark.parametrize("after", [1, 9])
def test_a_copy_has_memory_of_its_own(model, tight, after):
    """After the prompt, and after evictions while decoding."""
    with budgeted(model, tight(1), HeavyHitter()) as cache:
        model(drawn(1, PREFIX, 0), past_key_values=cache)
        for at in range(after):
            model(drawn(1, 1, at), past_key_values=cache)
        fork = copy.deepcopy(cache)
        assert blocks(fork).isdisjoint(blocks(cache))
        assert (fork.nbytes(), len(blocks(fork))) == (cache.nbytes(), 2)
        held = str([cache.kept_positions(layer) for layer in range(3)])
        keys = [layer.store.keys.clone() for layer in cache.stack.layers]
        other = [model(drawn(1, 1, 50 + at), past_key_values=fork).logits for at in range(30)]
        assert held == str([cache.kept_positions(layer) for layer in range(3)])
        for layer, before in zip(cache.stack.layers, keys, strict=True):
            assert torch.equal(layer.store.keys, before)
        for at in range(30):
            assert torch.equal(model(drawn(1, 1, 50 + at), past_key_values=cache).logits, other[at])
        assert len(blocks(fork) | blocks(cache)) == 4


def blocks(cache):
    """Every storage that keys and values of the layers are views of."""
    stores = [layer.store for layer in cache.stack.layers]
    names = ("keys", "values", "tail_keys", "tail_values")
    held = [getattr(store, name) for store in stores for name in names]
    return {tensor.untyped_storage().data_ptr() for tensor in held}


def test_rows_that_end_at_different_times_leave_the_others_as_they_were(model, roomy):
    text, options = drawn(3, PREFIX, 4), {**OPTIONS, "max_new_tokens": 20, "pad_token_id": 0}
    free = model.generate(text, **options)
    end = int(free[1, PREFIX + 2])  # a token that one row meets early
    options["eos_token_id"] = end
    plain = model.generate(text, **options)
    ends = (plain[:, PREFIX:] == end).int()
    assert len(set(ends.argmax(1).tolist()) | set(ends.amax(1).tolist())) > 1
    with budgeted(model, roomy) as cache:
        ours = model.generate(text, **options, past_key_values=cache)
    assert torch.equal(ours, plain)


def test_a_conversation_that_is_taken_back_and_told_anew_is_as_new(model, roomy):
    text, told = drawn(1, PREFIX, 5), []
    with budgeted(model, roomy) as cache:
        told.append((text, model.generate(text, **OPTIONS, past_key_values=cache)))
        for seed in (6, 7):
            cache.crop(10 - cache.get_seq_length())
            other = torch.cat([text[:, :10], drawn(1, 25, seed)], 1)
            told.append((other, model.generate(other, **OPTIONS, past_key_values=cache)))
        cache.reset()
        told.append((text, model.generate(text, **OPTIONS, past_key_values=cache)))
    for asked, answered in told:
        assert torch.equal(answered, model.generate(asked, **OPTIONS))


@torch.inference_mode()
def test_memory_is_set_aside_once_and_stays_where_it_is(model, tight):
    """Through the prompt, evictions, blocks, beams, drafts and a way back to where all fits."""
    plan = tight(2)
    with budgeted(model, plan, ObservationWindow()) as cache:
        model(drawn(2, 8, 0), past_key_values=cache)
        first, size = blocks(cache), cache.nbytes()
        assert len(first) == 2
        assert size <= plan.budget_bytes

        def check():
            assert (blocks(cache), cache.nbytes()) == (first, size)

        for new in (PREFIX, 1, 1, 1, 20, *[1] * 40, 5):
            model(drawn(2, new, new), past_key_values=cache)
            check()
        cache.crop(-3)
        check()
        for _ in range(20):
            cache.reorder_cache(torch.tensor([1, 1]))
            model(drawn(2, 1, 9), past_key_values=cache)
            check()
        cache.crop(6 - cache.get_seq_length())
        for new in (1, 2, PREFIX, 1):
            model(drawn(2, new, new), past_key_values=cache)
            check()
        cache.batch_select_indices(torch.tensor([1]))
        model(drawn(1, 1, 3), past_key_values=cache)
        check()


@torch.inference_mode()
def test_capacities_return_after_a_crop_to_where_everything_fits(model, tight, oracle):
    """Regions move there and back, and what is attended to stays exactly what is held."""
    turns = ((8, 0), (40, 44), (3, 0), (1, 0), (2, 0), (60, 0), (1, 0), (1, 70), (9, 0))
    tokens, steps, at = drawn(1, 90, 8), [], 0
    with budgeted(model, tight(1), HeavyHitter()) as cache:
        for new, crop in turns:
            before = [cache.kept_positions(layer) for layer in range(3)] if at else []
            logits = model(tokens[:, at : at + new], past_key_values=cache).logits
            after = [cache.kept_positions(layer) for layer in range(3)]
            steps.append((at, new, logits, before if new > 1 else after))
            at += new - crop
            if crop:
                cache.crop(-crop)
    with oracle.installed(model) as everything:
        for at, new, logits, held in steps:
            if everything.get_seq_length() > at:
                everything.crop(at - everything.get_seq_length())
            oracle.held = held
            theirs = model(tokens[:, at : at + new], past_key_values=everything).logits
            torch.testing.assert_close(logits, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("removed", "error", "words"),
    [
        ("a", TypeError, "`tokens_to_remove` must be an integer, but got 'a'"),
        (-1.5, TypeError, "`tokens_to_remove` must be an integer, but got -1.5"),
        (5, ValueError, "`tokens_to_remove` must be 0 or negative, but got 5"),
        (-99, ValueError, "`crop` must remove at most the 10 tokens seen, but got 99"),
    ],
)
def test_a_crop_that_cannot_be_leaves_the_cache_as_it_was(model, roomy, removed, error, words):
    with budgeted(model, roomy) as cache:
        model(drawn(1, 10, 3), past_key_values=cache)
        with pytest.raises(error, match=words):
            cache.crop(removed)
        assert cache.get_seq_length() == 10
        cache.crop(torch.tensor(-2))
        assert cache.get_seq_length() == 8
