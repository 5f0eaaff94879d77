"""What holds for every adaptation with default arguments, and for every safeguard."""

from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from kvbudget.runtime.adaptation import Adaptation, Global, LayerScores, WithinLayer
from kvbudget.runtime.adaptation.expected import Expected

SEEDS = st.integers(0, 10**6)
FLOORS = st.sampled_from([0.0, 0.2, 0.5, 1.0])
KINDS = (WithinLayer, Global)
either = pytest.mark.parametrize("kind", KINDS)


def divided(adaptation: Adaptation, layer: LayerScores) -> torch.Tensor:
    """Capacities of one layer."""
    (capacity,) = adaptation.divide([layer])
    return capacity


@either
@given(SEEDS, FLOORS)
def test_the_sum_stays_the_plans(layer_of, kind, seed, floor):
    layer = layer_of(seed, batch=2, protected=True)
    capacity = divided(kind(floor), layer)
    assert capacity.dtype == torch.int64
    assert capacity.sum(1).tolist() == [int(layer.capacity_tokens.sum())] * 2


@either
@given(SEEDS, FLOORS)
def test_no_head_gets_more_than_it_can_hold_while_another_has_use_for_it(
    layer_of, kind, seed, floor
):
    layer = layer_of(seed, batch=2, protected=True)
    reachable = layer.reach.sum(-1)
    for row, held in zip(divided(kind(floor), layer), reachable, strict=True):
        if int(held.sum()) >= int(layer.capacity_tokens.sum()):
            assert bool((row <= held).all())
        else:
            assert bool((row >= held).all())


@either
@given(SEEDS, FLOORS)
def test_each_head_keeps_its_floor_and_its_protected_tokens(layer_of, kind, seed, floor):
    layer = layer_of(seed, batch=2, protected=True)
    protected = layer.capacity_tokens.clamp(max=layer.sinks + layer.recent)
    share = layer.capacity_tokens.double() * floor
    owed = torch.maximum(share, protected.double()).minimum(layer.reach.sum(-1).double())
    assert bool((divided(kind(floor), layer) >= owed).all())


@either
@given(SEEDS, FLOORS, st.integers(0, 2), st.integers(1, 3))
def test_more_capacity_takes_nothing_from_any_head(layer_of, kind, seed, floor, head, more):
    layer = layer_of(seed, protected=True)
    head %= layer.capacity_tokens.shape[1]
    larger = layer.capacity_tokens.clone()
    larger[0, head] += more
    # beyond the last token a head holds places for tokens to come, which may move
    usable = layer.reach.sum(-1)
    before = divided(kind(floor), layer).minimum(usable)
    after = divided(kind(floor), replace(layer, capacity_tokens=larger)).minimum(usable)
    assert bool((before <= after).all())


@either
@given(SEEDS, st.randoms())
def test_the_order_of_the_heads_does_not_matter(layer_of, kind, seed, random):
    layer = layer_of(seed, most=30, protected=True, known=False)
    # no two tokens alike, and places for all of them: nothing is decided by the order
    scores = torch.randperm(layer.scores.numel(), dtype=torch.float32).view(layer.scores.shape)
    capacity = layer.capacity_tokens.minimum(layer.reach.sum(-1))
    layer = replace(layer, scores=scores + 1, capacity_tokens=capacity)
    heads = list(range(capacity.shape[1]))
    random.shuffle(heads)
    swapped = replace(
        layer,
        scores=layer.scores[:, heads],
        reach=layer.reach[:, heads],
        capacity_tokens=capacity[:, heads],
    )
    gains = layer.scores / layer.scores.masked_fill(~layer.reach, 0).sum(-1, keepdim=True)
    assume(len(gains[layer.reach].unique()) == len(gains[layer.reach]))
    assert torch.equal(divided(kind(), layer)[:, heads], divided(kind(), swapped))


@either
def test_equal_scores_give_equal_shares(kind):
    one = torch.rand(1, 1, 50).expand(1, 3, 50)
    layer = LayerScores(one, torch.ones(1, 3, 50, dtype=torch.bool), torch.tensor([[30, 28, 31]]))
    assert divided(kind(0.0), layer).tolist() == [[30, 30, 29]]


@either
@given(SEEDS)
def test_a_full_safeguard_is_the_plan(layer_of, kind, seed):
    layer = layer_of(seed, protected=True)
    planned = layer.capacity_tokens.minimum(layer.reach.sum(-1))
    layer = replace(layer, capacity_tokens=planned)
    assert torch.equal(divided(kind(1.0), layer), planned)


@either
@given(SEEDS)
def test_a_row_that_the_plan_holds_keeps_the_plan(layer_of, kind, seed):
    layer = layer_of(seed, protected=True)
    spare = layer.reach.sum(-1) + torch.tensor([[3, 0, 7]])[:, : layer.reach.shape[1]]
    layer = replace(layer, capacity_tokens=spare)
    assert torch.equal(divided(kind(), layer), spare)


@either
@given(SEEDS, st.integers(0, 1))
def test_rows_are_divided_by_themselves(layer_of, kind, seed, row):
    layer = layer_of(seed, batch=2, protected=True)
    alone = replace(layer, scores=layer.scores[row : row + 1], reach=layer.reach[row : row + 1])
    assert torch.equal(divided(kind(), layer)[row], divided(kind(), alone)[0])


@either
@given(SEEDS)
def test_rows_may_come_with_capacities_of_their_own(layer_of, kind, seed):
    layer = layer_of(seed, batch=2, protected=True)
    other = layer.capacity_tokens.flip(1) + 1
    both = replace(layer, capacity_tokens=torch.cat([layer.capacity_tokens, other]))
    alone = [divided(kind(), layer)[0], divided(kind(), replace(layer, capacity_tokens=other))[1]]
    assert torch.equal(divided(kind(), both), torch.stack(alone))


@either
@given(SEEDS, st.sampled_from([-3.4e38, 0.0, 3.4e38]))
def test_scores_of_tokens_out_of_reach_do_not_matter(layer_of, kind, seed, anything):
    layer = layer_of(seed, protected=True)
    other = layer.scores.masked_fill(~layer.reach, anything)
    changed = replace(layer, scores=other)
    assert torch.equal(divided(kind(), layer), divided(kind(), changed))


@either
def test_a_head_with_the_better_tokens_gets_more(kind):
    scores = torch.rand(1, 2, 40)
    scores[:, 1, 5:25] += 5
    layer = LayerScores(scores, torch.ones_like(scores, dtype=torch.bool), torch.tensor([[12, 12]]))
    layer = replace(layer, sinks=1, recent=2)
    low, high = divided(kind(0.0), layer)[0].tolist()
    assert low < 12 < high


@either
@pytest.mark.parametrize("name", ["floor", "trust"])
@pytest.mark.parametrize(
    ("share", "error"),
    [(-0.1, ValueError), (1.1, ValueError), ("0.2", TypeError), (True, TypeError)],
)
def test_a_share_must_be_one(kind, name, share, error):
    with pytest.raises(error, match=f"`{name}` must be"):
        kind(**{name: share})


@either
@given(SEEDS)
def test_without_trust_the_scores_do_not_matter(layer_of, kind, seed):
    layer = layer_of(seed, protected=True)
    other = replace(layer, scores=torch.rand_like(layer.scores))
    blind = kind(floor=0.0, trust=0.0)
    assert torch.equal(divided(blind, layer), divided(blind, other))


@either
def test_adaptations_are_values(kind):
    assert kind() == kind(0.2, 0.5)
    assert hash(kind()) == hash(kind())
    with pytest.raises(AttributeError):
        kind().floor = 0.5


@either
def test_a_safeguard_is_no_token_larger_than_its_share(kind):
    # 0.28 * 25 is a little more than 7 in floating point
    scores = torch.ones(1, 2, 50)
    scores[:, 1] = torch.linspace(100, 200, 50)
    savings = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    expected = Expected(torch.full((2, 1), 50), savings)
    every = torch.ones(1, 2, 50, dtype=torch.bool)
    layer = LayerScores(scores, every, torch.tensor([[25, 25]]), 1, expected, 1, 1)
    assert divided(kind(0.28), layer).tolist() == [[7, 43]]
