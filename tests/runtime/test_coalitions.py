"""Shapley values against their definition, and the game that a model's caches play."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import kvbudget as kvb
from kvbudget import heuristics as H
from kvbudget.runtime import budgeted, geometry_of, measure_profile
from kvbudget.runtime.coalitions import (
    _Game,
    draw_coalitions,
    shapley_importance,
    shapley_values,
)

worths = st.lists(st.floats(-5, 5), min_size=2, max_size=6)


def all_coalitions(players, size=None):
    masks = np.array(list(itertools.product([False, True], repeat=players)))
    sizes = masks.sum(axis=1)
    return masks[(sizes > 0) & (sizes < players) & ((size is None) | (sizes == size))]


def by_definition(utility, players):
    """Mean over all orders of what each player adds to those before it."""
    values = np.zeros(players)
    for order in itertools.permutations(range(players)):
        members = np.zeros(players, dtype=bool)
        for player in order:
            before = utility(members)
            members[player] = True
            values[player] += utility(members) - before
    return values / math.factorial(players)


@given(worths, st.data())
def test_where_contributions_add_up_they_are_the_values_from_one_size_alone(worth, data):
    size = data.draw(st.integers(1, len(worth) - 1))
    coalitions = all_coalitions(len(worth), size)
    found = shapley_values(lambda members: members @ np.array(worth), coalitions, len(worth))
    assert found == pytest.approx(worth, abs=1e-9)


@pytest.mark.parametrize("players", [1, 2, 3, 4, 5])
def test_all_coalitions_give_the_values_of_any_game(players):
    table = np.random.default_rng(players).normal(size=2**players)

    def utility(members):
        return table[members @ 2 ** np.arange(players)]

    found = shapley_values(utility, all_coalitions(players), players)
    assert found == pytest.approx(by_definition(utility, players))


@given(st.integers(2, 7), st.integers(1, 9), st.floats(0.05, 0.95), st.integers(0, 50))
def test_values_share_out_what_all_players_are_worth_together(players, count, share, seed):
    table = np.random.default_rng(seed).normal(size=2**players)

    def utility(members):
        return table[members @ 2 ** np.arange(players)]

    found = shapley_values(utility, draw_coalitions(players, count, share, seed), players)
    assert found.sum() == pytest.approx(table[-1] - table[0])


def test_players_that_do_the_same_are_worth_the_same_and_idle_ones_nothing():
    def utility(members):
        return float(members[0] and members[1])

    found = shapley_values(utility, all_coalitions(4), 4)
    assert found == pytest.approx([0.5, 0.5, 0, 0])


def test_few_coalitions_come_near_the_values():
    worth = np.array([8.0, 1, 1, 1, 1, 0, 0, 0])
    found = shapley_values(lambda members: members @ worth, draw_coalitions(8, 400), 8)
    assert found == pytest.approx(worth, abs=1.0)


@given(st.integers(2, 40), st.integers(1, 20), st.floats(0.01, 0.99), st.integers(0, 9))
def test_coalitions_are_of_one_size_and_never_all_or_none(players, count, share, seed):
    drawn = draw_coalitions(players, count, share, seed)
    assert drawn.shape == (count, players)
    assert set(drawn.sum(axis=1)) == {min(max(round(share * players), 1), players - 1)}
    assert np.array_equal(drawn, draw_coalitions(players, count, share, seed))


def test_every_player_is_drawn_about_as_often():
    assert draw_coalitions(10, 2000, 0.3).mean(axis=0) == pytest.approx([0.3] * 10, abs=0.04)
    assert not np.array_equal(draw_coalitions(10, 5, seed=0), draw_coalitions(10, 5, seed=1))


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(3, 97, (80,), generator=generator).tolist() for _ in range(2)]


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "Gemma3ForCausalLM"])
def test_a_coalition_is_worth_minus_the_measured_divergence(
    model_of, plan_for, prompts, architecture
):
    model, future = model_of(architecture), 20
    geometry = geometry_of(model)
    members = np.array([True, False, False, True, True, False])
    game = _Game.of(model, prompts, future, 22)
    whole = np.array([[60 if window is None else window] * 2 for window in geometry.windows])
    capacity = np.where(members.reshape(3, 2), whole, np.minimum(whole, 22))
    plan = plan_for(geometry, capacity, 60)
    wanted = []
    for ids in prompts:
        tokens = torch.tensor([ids])
        with torch.no_grad(), budgeted(model, plan, H.SinkRecent()) as cache:
            full = model(tokens, use_cache=False).logits[0, 60:].double().log_softmax(-1)
            model(tokens[:, :60], past_key_values=cache)
            held = [[len(kept) for kept in cache.kept_positions(layer)[0]] for layer in range(3)]
            # a token that the next query cannot see any more is not held
            assert np.array_equal(held, np.minimum(capacity, whole - (whole < 60)))
            found = model(tokens[:, 60:], past_key_values=cache).logits[0].double().log_softmax(-1)
        wanted.append(float((full.exp() * (full - found)).sum(-1).mean()))
    assert game.utility(members) == pytest.approx(-np.mean(wanted), rel=1e-4)
    assert game.utility(members) < -1e-3


def test_all_caches_together_are_worth_everything(model_of, prompts):
    game = _Game.of(model_of("LlamaForCausalLM"), prompts, None, 20)
    everybody = np.ones(6, dtype=bool)
    assert game.utility(everybody) == 0
    assert game.utility(~everybody) < game.utility(draw_coalitions(6, 1, 0.9)[0]) < 0


def test_nearly_full_coalitions_are_cut_although_they_almost_fit(model_of, prompts):
    """The bytes of five whole caches and a small one must not be shared out evenly."""
    game = _Game.of(model_of("LlamaForCausalLM"), prompts, 20, 20)
    for outside in range(6):
        members = np.arange(6) != outside
        assert game.utility(members) < -1e-6


def test_importance_is_one_number_per_cache_none_below_nothing(model_of, prompts):
    model = model_of("LlamaForCausalLM")
    settings = {"coalitions": 2, "future_tokens": 10, "progress": False}
    found = shapley_importance(model, prompts, **settings)
    assert found.shape == (3, 2)
    assert (found >= 0).all()
    assert found.max() > 0
    assert np.array_equal(found, shapley_importance(model, prompts, **settings))
    assert not np.array_equal(found, shapley_importance(model, prompts, seed=1, **settings))


def test_a_cache_that_the_model_does_better_without_gets_nothing(model_of, prompts, monkeypatch):
    monkeypatch.setattr(
        "kvbudget.runtime.coalitions.shapley_values",
        lambda *_: np.array([0.5, -0.25, 0.0, 1.0, -2.0, 3.0]),
    )
    found = shapley_importance(model_of("LlamaForCausalLM"), prompts, progress=False)
    assert found.tolist() == [[0.5, 0.0], [0.0, 1.0], [0.0, 3.0]]


def test_importance_feeds_the_rule_that_divides_by_it(model_of, prompts):
    model = model_of("LlamaForCausalLM")
    found = shapley_importance(model, prompts, coalitions=2, progress=False)
    profile = measure_profile(model, prompts, H.SinkRecent(), progress=False)
    solver = kvb.solvers.CoKV(importance=found)
    plan = kvb.allocate(profile, budget="50%", context_tokens=80, solver=solver)
    best = np.unravel_index(found.argmax(), found.shape)
    assert plan.capacity_tokens[best] == plan.capacity_tokens.max()


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"coalitions": 0}, "coalitions"),
        ({"small_tokens": 0}, "small_tokens"),
        ({"member_share": 1.0}, "member_share"),
        ({"future_tokens": 80}, "future_tokens"),
    ],
)
def test_numbers_out_of_range_are_refused(model_of, prompts, settings, name):
    with pytest.raises(ValueError, match=f"`{name}` must be "):
        shapley_importance(model_of("LlamaForCausalLM"), prompts, **settings, progress=False)
