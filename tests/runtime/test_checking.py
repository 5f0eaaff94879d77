"""A check runs plans for real, and says what came out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from kvbudget.allocator import Certificate, KVBudgetError, Plan, Profile, allocate
from kvbudget.heuristics import ObservationWindow, SinkRecent
from kvbudget.heuristics.measures import Ablation
from kvbudget.runtime import budgeted, check_profile, measure_profile

LEVELS = (0.1, 0.3, 0.6, 1.0)
FUTURE = 12


@pytest.fixture
def model(model_of):
    return model_of("LlamaForCausalLM")


@pytest.fixture
def prompts():
    draw = torch.Generator().manual_seed(2)
    return [torch.randint(3, 97, (length,), generator=draw).tolist() for length in (60, 75)]


@pytest.fixture
def profile(model, prompts) -> Profile:
    return measure_profile(
        model,
        prompts,
        ObservationWindow(window=8),
        levels=LEVELS,
        measure=Ablation(),
        future_tokens=FUTURE,
        progress=False,
    )


def checked(model, profile, prompts, **options):
    options = {"plans": 8, "future_tokens": FUTURE, "progress": False, **options}
    return check_profile(model, profile, prompts, **options)


def test_the_check_is_stored_and_nothing_else_changes(model, profile, prompts):
    found = checked(model, profile, prompts)
    assert replace(found, check=None) == profile
    assert found.check.prompts == 2
    assert len(found.check.predicted) == 8
    assert sum(found.check.is_solved) == 4
    assert "rank correlation" in str(allocate(found, budget="50%", context_tokens=64))


def test_one_cache_cut_loses_what_ablation_predicts(model, profile, prompts):
    """Where additivity is no question, measured and predicted are the same number."""
    full = np.ones(profile.loss.shape[:2])
    full[0, 0] = LEVELS[0]
    found = _measured(model, profile, prompts, full)
    assert found == pytest.approx(float(profile.loss[0, 0, 0]), rel=1e-4)


def _measured(model, profile, prompts, fraction):
    """Mean divergence by hand: what a plan with these shares loses."""
    losses = []
    for ids in prompts:
        context = len(ids) - FUTURE
        capacity = np.maximum(1, np.floor(fraction * context)).astype(np.int64)
        plan = Plan(
            capacity_tokens=capacity,
            context_tokens=context,
            batch_size=1,
            budget_bytes=int(capacity.sum()) * profile.geometry.bytes_per_token,
            certificate=Certificate("by hand", "FEASIBLE", 0.0, 0.0, 0.0),
            geometry=profile.geometry,
            model="",
            heuristic="observation_window",
            heuristic_settings=(("window", 8),),
            measure="",
        )
        tokens = torch.tensor([ids])
        with torch.inference_mode():
            right = model(tokens).logits[0, context:].double().log_softmax(-1)
            with budgeted(model, plan) as cache:
                model(tokens[:, :context], past_key_values=cache)
                cut = model(tokens[:, context:], past_key_values=cache).logits[0]
        other = cut.double().log_softmax(-1)
        losses.append(float((right.exp() * (right - other)).sum(-1).mean()))
    return np.mean(losses)


def test_measured_is_what_the_budgeted_model_loses(model, profile, prompts):
    found = checked(model, profile, prompts).check
    solved = [index for index, is_solved in enumerate(found.is_solved) if is_solved]
    index = solved[1]
    menu = np.array(LEVELS)
    context = max(map(len, prompts)) - FUTURE
    least = np.floor(LEVELS[0] * context) / context
    share = np.linspace(least, 0.6, 4)[1]
    caches = profile.loss[..., 0].size
    budget = int(share * context * caches) * profile.geometry.bytes_per_token
    plan = allocate(profile, budget=budget, context_tokens=context)
    fraction = menu[np.abs(menu - plan.kept_fraction[..., None]).argmin(-1)]
    assert found.kept_fraction[index] == pytest.approx(plan.kept_fraction.mean())
    assert found.measured[index] == pytest.approx(_measured(model, profile, prompts, fraction))


def test_the_same_seed_checks_the_same_plans(model, profile, prompts):
    first, again = (checked(model, profile, prompts, seed=5).check for _ in range(2))
    other = checked(model, profile, prompts, seed=6).check
    assert first == again
    assert first.predicted != other.predicted


def test_another_heuristic_may_be_checked_against_and_is_named(model, profile, prompts):
    one = checked(model, profile, prompts).check
    other = checked(model, profile, prompts, heuristic=SinkRecent()).check
    assert one.predicted == other.predicted
    assert one.measured != other.measured
    assert (one.heuristic, other.heuristic) == ("", "sink_recent(sinks=4)")
    assert "tokens chosen by sink_recent(sinks=4)" in str(other)
    same = checked(model, profile, prompts, heuristic=ObservationWindow(window=8)).check
    assert same == one


@pytest.mark.parametrize("architecture", ["MistralForCausalLM", "Gemma3ForCausalLM"])
@pytest.mark.parametrize("levels", [(0.02, 0.3, 1.0), (1 / 3, 1.0), (0.7, 1.0)])
def test_sliding_windows_and_coarse_menus_are_checked_within_what_they_can_hold(
    architecture, levels, model_of
):
    windowed = model_of(architecture)
    draw = torch.Generator().manual_seed(3)
    prompts = [torch.randint(3, 97, (n,), generator=draw).tolist() for n in (300, 70)]
    measured = measure_profile(
        windowed,
        prompts[1:],
        ObservationWindow(window=8),
        levels=levels,
        measure="output_error",
        future_tokens=FUTURE,
        progress=False,
    )
    found = checked(windowed, measured, prompts, plans=6).check
    assert all(0 < kept <= 1 for kept in found.kept_fraction)
    assert not found.in_nats
    assert "worst" not in str(found)
    if levels[0] < 0.1:
        drawn = [k for k, s in zip(found.kept_fraction, found.is_solved, strict=True) if not s]
        assert min(drawn) < 0.5


def test_a_plan_that_keeps_everything_loses_nothing_whatever_is_asked(model, profile, prompts):
    whole = np.ones(profile.loss.shape[:2])
    assert _measured(model, profile, prompts, whole) == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="`future_tokens` must be at least 2"):
        checked(model, profile, prompts, future_tokens=1)


def test_a_profile_that_names_no_heuristic_needs_one(model, profile, prompts):
    nameless = replace(profile, heuristic="", heuristic_settings=())
    with pytest.raises(ValueError, match=r"names no token heuristic\. Pass one: check_profile"):
        checked(model, nameless, prompts)
    assert checked(model, nameless, prompts, heuristic=SinkRecent()).check.heuristic


def test_a_profile_of_one_level_leaves_nothing_to_choose(model, profile, prompts):
    one = replace(
        profile,
        loss=profile.loss[..., -1:],
        sample_loss=profile.sample_loss[..., -1:],
        kept_fraction=profile.kept_fraction[-1:],
    )
    with pytest.raises(ValueError, match="at least 2 levels"):
        checked(model, one, prompts)


def test_the_model_is_as_before(model, profile, prompts):
    model.train()
    implementation = model.config._attn_implementation
    checked(model, profile, prompts)
    assert model.training
    assert model.config._attn_implementation == implementation


def test_a_profile_of_another_model_is_refused(profile, prompts, model_of):
    with pytest.raises(KVBudgetError, match="Plan was made for"):
        checked(model_of("GPT2LMHeadModel"), profile, prompts)


def test_one_plan_is_refused(model, profile, prompts):
    with pytest.raises(ValueError, match="`plans` must be at least 2, but got plans=1"):
        checked(model, profile, prompts, plans=1)


@pytest.mark.parametrize("given", ["plan", "profile.safetensors"])
def test_what_is_no_profile_is_refused(given, model, profile, prompts):
    plan = allocate(profile, budget="50%", context_tokens=60)
    with pytest.raises(TypeError, match=r"`profile` must be a Profile, but got a (Plan|str)[.]"):
        checked(model, plan if given == "plan" else given, prompts)
