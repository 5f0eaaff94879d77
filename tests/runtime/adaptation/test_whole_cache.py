"""The whole cache: against brute force, and against the solvers of the allocator."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget import Problem, solve
from kvbudget.allocator.solvers import Hull, LinearProgram
from kvbudget.runtime.adaptation import Global, LayerScores
from kvbudget.runtime.adaptation.expected import Expected
from kvbudget.runtime.adaptation.gains import token_shares

SEEDS = st.integers(0, 10**6)
TRUST = st.sampled_from([0.0, 0.25, 1.0])


def loss_curves(layer: LayerScores, trust: float) -> torch.Tensor:
    """Loss of each cache of the only row at every number of kept tokens, [kv_heads, tokens + 1]."""
    assert layer.expected is not None
    savings = layer.expected.at(layer.scores.shape[2])
    shares = token_shares(layer.scores, layer.reach)[0].masked_fill(~layer.reach[0], 0.0)
    told = shares.sort(dim=-1, descending=True).values * layer.expected.worth[:, None]
    seen = torch.arange(layer.scores.shape[2]) < layer.reach[0].sum(-1)[:, None]
    gains = torch.where(seen, (1 - trust) * savings + trust * told, 0.0)
    return torch.nn.functional.pad(gains.flip(-1).cumsum(-1).flip(-1), (0, 1))


def loss_of(layers: list[LayerScores], capacity: list[torch.Tensor], trust: float) -> float:
    """What a division loses."""
    lost = 0.0
    for layer, each in zip(layers, capacity, strict=True):
        curves = loss_curves(layer, trust)
        places = each[0].clamp(max=curves.shape[1] - 1)
        lost += float(curves.gather(1, places[:, None]).sum())
    return lost


def problem_of(layers: list[LayerScores], floor: float, trust: float) -> Problem:
    """The same choice as a knapsack with one level for each number of tokens above the floor."""
    losses, costs, budget = [], [], 0
    longest = max(layer.scores.shape[2] for layer in layers)
    for layer in layers:
        budget += int(layer.capacity_tokens.sum()) * layer.token_bytes
        reachable = layer.reach[0].sum(-1).tolist()
        for curve, held, planned in zip(
            loss_curves(layer, trust).tolist(),
            reachable,
            layer.capacity_tokens[0].tolist(),
            strict=True,
        ):
            least = min(int(np.ceil(floor * planned - 1e-9)), held)
            tokens = np.clip(np.arange(longest + 1), least, held)
            losses.append(np.minimum.accumulate([curve[count] for count in tokens]))
            costs.append(tokens * layer.token_bytes)
    return Problem(np.array(losses), np.array(costs, dtype=np.int64), budget)


def some_layers(layer_of, seed: int, sizes: tuple[int, ...]) -> list[LayerScores]:
    """Two or three layers with heads, tokens and token sizes of their own."""
    layers = [layer_of(seed + index, most=5) for index in range(2 + seed % 2)]
    return [
        replace(layer, token_bytes=sizes[(seed + index) % len(sizes)])
        for index, layer in enumerate(layers)
    ]


@settings(deadline=None)  # the first program takes long to start
@given(SEEDS, st.sampled_from([0.0, 0.5]), TRUST)
def test_it_equals_the_linear_program_and_the_hulls_where_tokens_cost_the_same(
    layer_of, seed, floor, trust
):
    layers = some_layers(layer_of, seed, (48,))
    problem = problem_of(layers, floor, trust)
    lost = loss_of(layers, Global(floor, trust).divide(layers), trust)
    relaxed = solve(problem, LinearProgram())
    assert lost == pytest.approx(relaxed.bound, abs=1e-6)
    assert lost == pytest.approx(solve(problem, Hull()).loss, abs=1e-6)


@given(SEEDS, TRUST)
def test_no_division_of_the_bytes_loses_less(layer_of, divisions, seed, trust):
    layers = [layer_of(seed, most=4), layer_of(seed + 1, most=3)]
    capacity = torch.cat([layer.capacity_tokens[0] for layer in layers])
    most = torch.cat([layer.reach[0].sum(-1) for layer in layers])
    heads = [layer.scores.shape[1] for layer in layers]
    curves = [curve for layer in layers for curve in loss_curves(layer, trust).tolist()]
    every = divisions(torch.zeros_like(most), most)
    best = min(
        sum(curve[count] for curve, count in zip(curves, counts, strict=True))
        for counts in every
        if sum(counts) <= int(capacity.sum())
    )
    assert len(curves) == sum(heads)
    assert loss_of(layers, Global(0.0, trust).divide(layers), trust) == pytest.approx(
        best, abs=1e-6
    )


@settings(deadline=None)  # the first program takes long to start
@given(SEEDS, st.sampled_from([0.0, 0.5]), TRUST)
def test_with_tokens_of_unequal_size_it_loses_one_token_more_at_most(layer_of, seed, floor, trust):
    layers = some_layers(layer_of, seed, (32, 80, 48))
    capacity = Global(floor, trust).divide(layers)
    problem = problem_of(layers, floor, trust)
    spent = sum(
        int(each.sum()) * layer.token_bytes for each, layer in zip(capacity, layers, strict=True)
    )
    assert spent <= problem.budget_bytes
    step = max(float((-loss_curves(layer, trust).diff(dim=-1)).amax()) for layer in layers)
    lost = loss_of(layers, capacity, trust)
    bound = solve(problem, LinearProgram()).bound
    assert bound - 1e-6 <= lost <= bound + step + 1e-6


def test_a_token_that_does_not_fit_makes_way_for_cheaper_ones():
    every = torch.ones(1, 1, 4, dtype=torch.bool)
    scores = torch.tensor([[[4.0, 3.0, 2.0, 1.0]]])
    large = LayerScores(scores, every, torch.tensor([[1]]), 70, sinks=0, recent=0)
    small = LayerScores(scores, every, torch.tensor([[2]]), 20, sinks=0, recent=0)
    # 110 bytes: per byte the small tokens are better, and after them no large one fits
    assert [each.tolist() for each in Global(0.0).divide([large, small])] == [[[0]], [[4]]]
    # a large cache worth ten times as much comes first; 40 bytes are left for small tokens
    worth = torch.tensor([[10.0], [1.0]], dtype=torch.float64)
    large = replace(large, expected=Expected(torch.tensor([[4]]), worth[:1]))
    small = replace(small, expected=Expected(torch.tensor([[4]]), worth[1:]))
    assert [each.tolist() for each in Global(0.0).divide([large, small])] == [[[1]], [[2]]]


@given(SEEDS)
def test_the_scale_of_a_caches_scores_does_not_matter(layer_of, seed):
    layers = some_layers(layer_of, seed, (1,))
    scaled = [replace(layer, scores=layer.scores * 4) for layer in layers]
    assert all(map(torch.equal, Global().divide(layers), Global().divide(scaled)))


@given(SEEDS, st.integers(0, 2), TRUST)
def test_a_cache_that_is_worth_more_gets_no_less(layer_of, seed, head, trust):
    layer = layer_of(seed, most=20, protected=True)
    head %= layer.scores.shape[1]
    savings = layer.expected.savings.clone()
    savings[head] *= 3
    dearer = replace(layer, expected=Expected(layer.expected.ends, savings))
    before, after = (Global(0.2, trust).divide([each])[0] for each in (layer, dearer))
    # places for tokens to come may move
    usable = layer.reach.sum(-1)
    assert int(after.minimum(usable)[0, head]) >= int(before.minimum(usable)[0, head])


def test_without_curves_all_caches_are_worth_the_same(layer_of):
    layer = layer_of(3, most=20)
    flat = Expected(
        torch.full((len(layer.expected.ends), 1), 20),
        torch.ones_like(layer.expected.savings[:, :1]),
    )
    alone = Global(0.0, 1.0).divide([replace(layer, expected=flat)])
    assert torch.equal(Global(0.0).divide([replace(layer, expected=None)])[0], alone[0])


def test_memory_moves_between_layers():
    flat, peaked = torch.ones(1, 2, 40), torch.full((1, 2, 40), 1e-3)
    peaked[..., 3] = 1.0
    every = torch.ones(1, 2, 40, dtype=torch.bool)
    planned = torch.tensor([[10, 10]])
    layers = [LayerScores(each, every, planned, sinks=1, recent=1) for each in (flat, peaked)]
    wide, narrow = Global(0.0).divide(layers)
    assert wide.tolist() == [[17, 17]]
    assert narrow.tolist() == [[3, 3]]


def test_layers_may_have_unequal_heads_and_tokens():
    many = LayerScores(
        torch.rand(2, 4, 9), torch.ones(2, 4, 9, dtype=torch.bool), torch.full((1, 4), 3)
    )
    few = LayerScores(
        torch.rand(2, 1, 30), torch.ones(2, 1, 30, dtype=torch.bool), torch.full((1, 1), 25)
    )
    capacity = Global().divide([many, few])
    assert [tuple(each.shape) for each in capacity] == [(2, 4), (2, 1)]
    assert torch.cat(capacity, 1).sum(1).tolist() == [37, 37]


@given(SEEDS)
def test_shares_add_up_to_one_and_keep_the_order(layer_of, seed):
    layer = layer_of(seed)
    shares = token_shares(layer.scores, layer.reach)
    assert bool((shares >= 0).all())
    some = layer.reach.any(-1)
    assert torch.allclose(shares.sum(-1)[some], torch.ones(int(some.sum()), dtype=torch.float64))
    for share, score, seen in zip(shares[0], layer.scores[0], layer.reach[0], strict=True):
        in_order = share[seen][score[seen].argsort(descending=True)]
        assert bool((in_order.diff() <= 0).all())


def test_only_scores_below_zero_are_raised():
    every = torch.ones(1, 3, 4, dtype=torch.bool)
    scores = torch.tensor([[[1.0, 3, 2, 2], [-1, 1, 0, 0], [0, 0, 0, 0]]])
    expected = [[0.125, 0.375, 0.25, 0.25], [0, 0.5, 0.25, 0.25], [0.25] * 4]
    assert token_shares(scores, every)[0].tolist() == expected
