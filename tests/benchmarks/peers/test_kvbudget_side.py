"""Our side is given no byte more than a press is asked to keep."""

import pytest
import torch

import kvbudget as kvb


@pytest.fixture(scope="module")
def model():
    return kvb.reference_model()[0]


@pytest.fixture(scope="module")
def ours(peers, model):
    """One solved arm, on a quick profile."""
    arm = peers("arms").Arm(kvb.heuristics.build("key_diff"), measure="attention_mass")
    prompt = torch.randint(1, 2048, (96,), generator=torch.Generator().manual_seed(0)).tolist()
    profile = kvb.measure_profile(
        model, [prompt], arm.heuristic, measure=arm.measure, progress=False
    )
    return peers("kvbudget_side").Ours(model, arm, profile)


@pytest.mark.parametrize("kept", [0.05, 0.25])
def test_a_plan_holds_what_a_press_holds_at_that_share(peers, model, ours, kept):
    context = torch.randint(1, 2048, (1, 1024), generator=torch.Generator().manual_seed(1))
    with torch.no_grad(), peers("kvbudget_side").FullCache(model).reading(context, 1.0) as full:
        allowed = int(1024 * kept) * full.held_bytes // 1024
    with torch.no_grad(), ours.reading(context, kept) as reading:
        assert 0.98 * allowed <= reading.held_bytes <= allowed
        assert reading.position == 1024


def test_arms_have_names_of_their_own(peers):
    names = [arm.name for arm in peers("arms").ARMS]
    assert len(set(names)) == len(names)


def test_only_a_heuristic_that_reads_twice_is_no_candidate_for_reading_once(peers):
    arms = peers("arms")
    assert {arm.name for arm in arms.SOLVED} - {arm.name for arm in arms.READ_ONCE} == {
        "KVZip, Hull",
        "KVZip, Hull, fine levels",
    }


def test_profiles_are_measured_once(peers, tmp_path, model, ours, monkeypatch):
    profiles = peers("kvbudget_side").Profiles(model, tmp_path, tmp_path / "none.jsonl")
    monkeypatch.setattr(type(profiles), "_measure", lambda self, arm: ours.profile)
    assert profiles.of(ours.arm) == ours.profile
    monkeypatch.setattr(type(profiles), "_measure", None)
    assert profiles.of(ours.arm) == ours.profile
