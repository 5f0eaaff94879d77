"""While decoding, newer tokens take the rows of those that go; a saved cache tells which."""

import pytest
import torch

from kvbudget.allocator import BadFile
from kvbudget.heuristics import HeavyHitter, KeyNorm, SinkRecent
from kvbudget.runtime import budgeted, geometry_of
from kvbudget.runtime.ragged import RaggedStore

PROMPT, NEW = 60, 60
CAPACITY = torch.tensor([[24, 40], [31, 24], [90, 26]])


@pytest.fixture
def llama(model_of):
    return model_of("LlamaForCausalLM")


@pytest.fixture
def plan(llama, plan_for):
    """One cache still has room for a while after the prompt."""
    return plan_for(geometry_of(llama), CAPACITY.numpy(), PROMPT + NEW)


def tokens() -> torch.Tensor:
    return torch.randint(3, 97, (1, PROMPT + NEW), generator=torch.Generator().manual_seed(0))


def decode(model, cache, first, end) -> torch.Tensor:
    steps = [model(tokens()[:, at : at + 1], past_key_values=cache) for at in range(first, end)]
    return torch.cat([step.logits for step in steps])


@pytest.fixture
def layouts(monkeypatch):
    """Counts how often a whole layer is moved."""
    counted, lay_out = [], RaggedStore._lay_out

    def counting(store, *arguments):
        counted.append(store)
        lay_out(store, *arguments)

    monkeypatch.setattr(RaggedStore, "_lay_out", counting)
    return counted


@torch.inference_mode()
@pytest.mark.parametrize("heuristic", [SinkRecent(), KeyNorm(), HeavyHitter()], ids=str)
def test_full_caches_are_laid_out_once_after_a_prompt(llama, plan, layouts, heuristic):
    with budgeted(llama, plan, heuristic) as cache:
        llama(tokens()[:, :PROMPT], past_key_values=cache)
        decode(llama, cache, PROMPT, PROMPT + 1)
        assert len(layouts) == 3
        # the last layer's roomy cache takes what comes; where it is full, tails become shorter
        decode(llama, cache, PROMPT + 1, PROMPT + NEW)
        assert len(layouts) - 3 <= 2
        stores = [layer.store for layer in cache.stack.layers]
        assert all(layouts.count(store) == 1 for store in stores[:2])
        orders = [store.segments.held_rows() for store in stores]
        assert any(bool((order.diff() < 0).any()) for order in orders)


@torch.inference_mode()
def test_tokens_are_shown_in_their_order_whatever_row_they_lie_in(llama, plan):
    with budgeted(llama, plan, KeyNorm()) as cache:
        llama(tokens()[:, :PROMPT], past_key_values=cache)
        decode(llama, cache, PROMPT, PROMPT + 40)
        for layer in cache.stack.layers:
            padded = layer.store.padded()
            rising = padded.positions.diff(dim=-1) > 0
            assert rising[padded.valid[..., 1:] & padded.valid[..., :-1]].all()
            held = cache.kept_positions(layer.index)[0]
            for head, columns in enumerate(held):
                valid = padded.valid[0, head]
                assert torch.equal(padded.positions[0, head][valid], columns)


@torch.inference_mode()
def test_a_file_from_before_rows_had_an_order_is_read(llama, plan):
    """It tells everything but where the tokens lay, and that changes the last bits at most."""
    with budgeted(llama, plan, HeavyHitter()) as cache:
        llama(tokens()[:, :PROMPT], past_key_values=cache)
        decode(llama, cache, PROMPT, PROMPT + 30)
        tensors = cache.state_dict()
        wanted, held = decode(llama, cache, PROMPT + 30, PROMPT + 50), str(kept(cache))
        cache.load_state_dict(tensors)
        assert torch.equal(decode(llama, cache, PROMPT + 30, PROMPT + 50), wanted)
        lengths = tensors["layers.0.lengths"].flatten().tolist()
        for held_columns in tensors["layers.0.positions"].split(lengths):
            assert (held_columns.diff() > 0).all()
        older = {
            name: tensor
            for name, tensor in tensors.items()
            if not name.endswith((".rooms", ".order"))
        }
        assert len(older) == len(tensors) - 6
        cache.load_state_dict(older)
        found = decode(llama, cache, PROMPT + 30, PROMPT + 50)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
        assert str(kept(cache)) == held


def kept(cache):
    return [[list(map(int, x)) for x in cache.kept_positions(layer)[0]] for layer in range(3)]


DAMAGES = {
    "a row twice": lambda t: t["layers.0.order"].__setitem__(1, int(t["layers.0.order"][0])),
    "a row of another segment": lambda t: t["layers.0.order"].add_(1),
    "a row before the first": lambda t: t["layers.0.order"].sub_(1),
    "rows of another type": lambda t: t.update({"layers.0.order": t["layers.0.order"].long()}),
    "a row too few": lambda t: t.update({"layers.0.order": t["layers.0.order"][1:]}),
    "two segments changed": lambda t: swap(t["layers.0.order"], int(t["layers.0.lengths"][0, 0])),
    "a room too small": lambda t: t["layers.1.rooms"].sub_(9),
    "rooms of other caches": lambda t: t.update({"layers.1.rooms": t["layers.1.rooms"].mT}),
}


def swap(order, length):
    """The last row of the first segment as one of the next, and the other way round."""
    order[0] = length
    order[length] = -length


@torch.inference_mode()
@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_rows_that_cannot_be_are_refused(llama, plan, damage):
    with budgeted(llama, plan, KeyNorm()) as cache:
        llama(tokens()[:, :PROMPT], past_key_values=cache)
        decode(llama, cache, PROMPT, PROMPT + 20)
        tensors = cache.state_dict()
        damage(tensors)
        with pytest.raises(BadFile, match=r"`layers\.[01]\.(order|rooms)`"):
            cache.load_state_dict(tensors)


@torch.inference_mode()
def test_rooms_for_which_there_is_no_memory_are_left_out(llama, plan):
    with budgeted(llama, plan, KeyNorm()) as cache:
        llama(tokens()[:, :PROMPT], past_key_values=cache)
        decode(llama, cache, PROMPT, PROMPT + 20)
        tensors = cache.state_dict()
        wanted = decode(llama, cache, PROMPT + 20, PROMPT + 30)
        tensors["layers.0.rooms"] += 1000
        cache.load_state_dict(tensors)
        found = decode(llama, cache, PROMPT + 20, PROMPT + 30)
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
