"""A layer's places: against every other division, and against Ada-KV as it is published."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kvbudget.runtime.adaptation import LayerScores, WithinLayer
from kvbudget.runtime.adaptation.gains import token_shares
from kvbudget.runtime.eviction import select

SEEDS = st.integers(0, 10**6)


def kept_score(layer: LayerScores, capacity: torch.Tensor) -> float:
    """Sum of the scores that one row keeps under these capacities."""
    keep = select(layer.scores, layer.reach, capacity, sinks=layer.sinks, recent=layer.recent)
    return float(layer.scores[keep].double().sum())


def ada_kv(layer: LayerScores, safeguard: float) -> torch.Tensor:
    """Head budgets of Ada-KV: winners of the best tokens of the layer, mixed with the plan's."""
    heads, tokens = layer.scores.shape[1:]
    total = int(layer.capacity_tokens.sum())
    winners = layer.scores[0].flatten().topk(total).indices // tokens
    owned = torch.bincount(winners, minlength=heads)
    return safeguard * layer.capacity_tokens[0] + (1 - safeguard) * owned


def plain_layer(seed: int, tokens: int = 60) -> LayerScores:
    """Three heads of which some have larger weights than others; nothing protected."""
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(1, 3, tokens, generator=generator) ** torch.tensor([[[1.0], [4.0], [9.0]]])
    capacity = torch.randint(1, tokens, (1, 3), generator=generator)
    every = torch.ones(1, 3, tokens, dtype=torch.bool)
    return LayerScores(scores, every, capacity, sinks=0, recent=0)


@given(SEEDS, st.sampled_from([0.0, 0.2, 0.7]))
def test_no_division_above_the_floors_keeps_a_higher_score(layer_of, divisions, seed, floor):
    layer = layer_of(seed, known=False)
    planned, reachable = layer.capacity_tokens[0], layer.reach[0].sum(-1)
    total = min(int(planned.sum()), int(reachable.sum()))
    least = (planned.double() * floor - 1e-9).ceil().long().minimum(reachable)
    every = (c for c in divisions(least, reachable) if sum(c) == total)
    best = max(kept_score(layer, torch.tensor(c)) for c in every)
    (capacity,) = WithinLayer(floor).divide([layer])
    assert kept_score(layer, capacity[0]) == pytest.approx(best, rel=1e-6, abs=1e-6)


@given(SEEDS)
def test_without_a_safeguard_it_is_ada_kv(seed):
    layer = plain_layer(seed)
    (capacity,) = WithinLayer(0.0).divide([layer])
    assert torch.equal(capacity[0], ada_kv(layer, 0.0).long())


@given(SEEDS, st.sampled_from([0.2, 0.5, 0.8]))
def test_with_a_safeguard_it_keeps_no_less_than_ada_kv(seed, safeguard):
    layer = plain_layer(seed)
    mixed = ada_kv(layer, safeguard)
    # Ada-KV rounds to the nearest and so may keep more than there is room for
    (capacity,) = WithinLayer(safeguard).divide([layer])
    assert kept_score(layer, capacity[0]) >= kept_score(layer, mixed.floor().long())
    assert bool((capacity[0] >= (layer.capacity_tokens[0] * safeguard).floor()).all())


@given(SEEDS, st.sampled_from([0.25, 1.0, 8.0]), st.integers(-4, 4))
def test_only_the_order_of_the_scores_counts(layer_of, seed, scale, shift):
    layer = layer_of(seed, protected=True, known=False)
    whole = LayerScores(layer.scores.round(), layer.reach, layer.capacity_tokens, sinks=1, recent=1)
    moved = LayerScores(
        whole.scores * scale + shift, layer.reach, layer.capacity_tokens, sinks=1, recent=1
    )
    assert torch.equal(*(WithinLayer().divide([each])[0] for each in (whole, moved)))


@given(SEEDS, st.sampled_from([0.0, 0.25, 0.6]))
def test_no_division_gains_more_from_scores_and_curves_together(layer_of, divisions, seed, trust):
    layer = layer_of(seed)
    reachable = layer.reach[0].sum(-1)
    assert layer.expected is not None
    savings, worth = layer.expected.at(layer.scores.shape[2]), layer.expected.worth
    shares = token_shares(layer.scores, layer.reach)[0]
    gains = [
        (1 - trust) * savings[head, :count]
        + trust * worth[head] * shares[head][layer.reach[0, head]].sort(descending=True).values
        for head, count in enumerate(reachable.tolist())
    ]
    total = min(int(layer.capacity_tokens.sum()), int(reachable.sum()))
    every = (c for c in divisions(torch.zeros_like(reachable), reachable) if sum(c) == total)
    best = max(sum(float(g[:n].sum()) for g, n in zip(gains, c, strict=True)) for c in every)
    (capacity,) = WithinLayer(0.0, trust).divide([layer])
    got = sum(float(g[:n].sum()) for g, n in zip(gains, capacity[0].tolist(), strict=True))
    assert got == pytest.approx(best, rel=1e-5, abs=1e-6)


@given(SEEDS)
def test_with_all_the_trust_curves_do_not_matter(layer_of, seed):
    layer = layer_of(seed, protected=True)
    blind = replace(layer, expected=None)
    alone = WithinLayer(trust=1.0)
    assert torch.equal(alone.divide([layer])[0], alone.divide([blind])[0])


def test_layers_do_not_share():
    poor, rich = plain_layer(1), plain_layer(2)
    rich = LayerScores(rich.scores + 100, rich.reach, rich.capacity_tokens, sinks=0, recent=0)
    together = WithinLayer().divide([poor, rich])
    alone = [WithinLayer().divide([each])[0] for each in (poor, rich)]
    assert all(map(torch.equal, together, alone))


def test_protected_tokens_win_no_places_of_their_own():
    # head 0 is planned too small for its protected tokens and has nothing else worth keeping
    scores = torch.full((1, 2, 30), 0.01)
    scores[0, 1, 4:24] = 0.5
    every = torch.ones(1, 2, 30, dtype=torch.bool)
    layer = LayerScores(scores, every, torch.tensor([[3, 21]]), sinks=2, recent=6)
    assert WithinLayer().divide([layer])[0].tolist() == [[3, 21]]
    # the one good token of head 0 stands behind its 8 protected ones, which it has to pay for
    scores[0, 0, 12] = 0.9
    assert WithinLayer().divide([layer])[0].tolist() == [[9, 15]]


def test_a_head_with_protected_tokens_only_counts_them_by_its_best():
    scores = torch.full((1, 2, 30), 0.01)
    scores[0, 0, 3] = 0.9
    reach = torch.ones(1, 2, 30, dtype=torch.bool)
    reach[0, 0, 5:] = False
    layer = LayerScores(scores, reach, torch.tensor([[2, 20]]), sinks=2, recent=6)
    assert WithinLayer().divide([layer])[0].tolist() == [[5, 17]]
