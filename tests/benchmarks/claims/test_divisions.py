"""What is made for the claims alone, against computations by hand."""

import numpy as np
import pytest
import torch

from kvbudget import Profile, budgeted
from kvbudget.allocator.solvers import RazorAttention
from kvbudget.heuristics import HeavyHitter, RetrievalHeads, SinkRecent
from kvbudget.prose import built_in_sentences
from kvbudget.runtime import geometry_of
from kvbudget.runtime.adaptation import LayerScores
from kvbudget.trials import TrialMaker

TOKENS = 300


@pytest.fixture(scope="module")
def trial(reader):
    return TrialMaker(built_in_sentences(), reader.tokenizer, TOKENS, 40).needles(3)


@pytest.fixture(scope="module")
def known(claims, reader, tmp_path_factory):
    """A calibration whose profile is made up: equal shares do not look at it."""
    folder = tmp_path_factory.mktemp("measured")
    found = claims("calibration").Calibration(reader, (), folder, 40)
    geometry = geometry_of(reader.model)
    importance = np.arange(1.0, 25.0).reshape(6, 4)
    profile = Profile.from_importance(importance, geometry, heuristic="sink_recent")
    profile.save(folder / "profile-sink_recent-4.safetensors")
    return found


def test_equal_shares_are_equal(claims, known, trial):
    plan = claims("divisions").Equal().plan(known, HeavyHitter(), 30, trial)
    assert set(plan.capacity_tokens.ravel()) == {TOKENS * 30 // 100}


@pytest.mark.parametrize("window", [20, 64])
def test_corm_demands_what_its_rule_says(claims, known, reader, trial, window):
    plan = claims("divisions").Demanded(window).plan(known, HeavyHitter(), 0, trial)
    before = reader.model.config._attn_implementation
    reader.model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            ids = torch.tensor([trial.context])
            maps = reader.model(ids, output_attentions=True).attentions
    finally:
        reader.model.set_attn_implementation(before)
    tokens = len(trial.context)
    for layer, attention in enumerate(maps):
        shared = (
            attention[0].unflatten(0, (4, 2)).mean(1)[:, -window:]
        )  # [kv_heads, window, tokens]
        even = 1 / torch.arange(tokens - window + 1, tokens + 1).view(1, -1, 1)
        # weights next to even may round either way
        most, least = (demand(shared, even * share) for share in (0.9999, 1.0001))
        capacity = torch.tensor(plan.capacity_tokens[layer])
        assert (least <= capacity).all()
        assert (capacity <= most).all()
    assert plan.budget_bytes == plan.used_bytes


def demand(attention, even):
    """Tokens of each head that a query of the window gave so much, or that are newest."""
    looked_at = (attention >= even).any(dim=1)
    looked_at[:, -attention.shape[1] :] = True
    return looked_at.sum(dim=1).clamp(min=20)


def test_the_newest_come_first_and_the_rest_as_the_other_scores(claims, known, reader, trial):
    newest = claims("tokens").NewestFirst(HeavyHitter(), 40)
    plan = claims("divisions").Equal().plan(known, HeavyHitter(), 30, trial)
    with budgeted(reader.model, plan, HeavyHitter()) as cache:
        reader.read_context(trial, cache)
        plain = [cache.kept_positions(layer) for layer in range(6)]
    with budgeted(reader.model, plan, newest) as cache:
        reader.read_context(trial, cache)
        kept = [cache.kept_positions(layer) for layer in range(6)]
    last = set(range(TOKENS - 40, TOKENS))
    for layer in range(6):
        for ours, theirs in zip(heads(kept[layer]), heads(plain[layer]), strict=True):
            assert last <= ours
            assert len(ours) == len(theirs) == 90
            # of the older ones those stay that the other heuristic ranks first
            assert ours - last <= theirs - last
    assert any(not last <= each for layer in range(6) for each in heads(plain[layer])), (
        "the plain heuristic would have done the same"
    )


def heads(kept):
    """Positions of each KV head of the first sequence, as sets."""
    return [set(torch.as_tensor(each).tolist()) for each in kept[0]]


def test_the_newest_are_a_share_of_what_is_kept(claims):
    tokens = claims("tokens")
    assert tokens.H2O_WITH_WINDOW.built(200).tokens == 100
    assert tokens.KEYFORMER_WITH_WINDOW.built(200).tokens == 60
    assert tokens.H2O.built(200) == HeavyHitter()


def layer_scores(scores, capacity, reach=None):
    everything = torch.ones_like(scores, dtype=torch.bool)
    return LayerScores(scores, everything if reach is None else reach, torch.tensor(capacity))


def test_the_best_tokens_of_all_caches_are_counted_where_they_lie(claims):
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(1, 2, length, generator=generator) for length in (200, 150)]
    scores[0][0, 1] += 1
    layers = [layer_scores(each, [[60, 60]]) for each in scores]
    first, second = claims("top_of_all").TopOfAll().divide(layers)
    rows = [*scores[0][0], *scores[1][0]]
    # the same by sorting: 20 of each cache, then the best of what is left
    best = [row.sort(descending=True).values for row in rows]
    left = sorted((float(x), i) for i, row in enumerate(best) for x in row[20:])
    wanted = np.full(4, 20) + np.bincount([i for _, i in left[-(240 - 80) :]], minlength=4)
    assert [*first[0].tolist(), *second[0].tolist()] == wanted.tolist()
    assert wanted.sum() == 240
    assert wanted[1] > 100


def test_tokens_that_nobody_may_see_win_nothing(claims):
    scores = torch.rand(1, 2, 100, generator=torch.Generator().manual_seed(1))
    reach = torch.ones_like(scores, dtype=torch.bool)
    scores[0, 0, :50] += 10
    reach[0, 0, :50] = False
    (found,) = claims("top_of_all").TopOfAll().divide([layer_scores(scores, [[50, 50]], reach)])
    assert found.sum() == 100
    assert found[0, 0] <= 50


def test_a_rule_divides_by_the_importance_that_was_measured(claims, known, trial):
    importance = np.ones((6, 4))
    importance[4, 0], importance[2, 1] = 100, 50
    np.savetxt(known._file("importance", RetrievalHeads(), ".txt"), importance)
    rule = claims("divisions").ByRule(RazorAttention, RetrievalHeads())
    capacity = rule.plan(known, SinkRecent(), 30, trial).capacity_tokens
    # 30 % is room for two whole caches, and the others are near a fifth
    assert np.argwhere(capacity == TOKENS).tolist() == [[2, 1], [4, 0]]
    assert np.sort(capacity.ravel())[-3] < 0.3 * TOKENS
