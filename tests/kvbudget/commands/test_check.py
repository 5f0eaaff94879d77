"""`kvbudget check` on a tiny model."""

import json

import pytest

import kvbudget as kvb

SMALL = ("--context", 64, "--samples", 2)


@pytest.fixture
def measured(run, models, tmp_path):
    assert run("profile", "--model", models / "llama", *SMALL).code == 0
    return tmp_path / "profile.safetensors"


def test_the_outcome_is_written_into_the_profile_and_shown_with_its_plans(run, models, measured):
    before = kvb.Profile.load(measured)
    done = run("check", measured, "--model", models / "llama", *SMALL, "--plans", 4, "--json")
    record, after = json.loads(done.out), kvb.Profile.load(measured)
    assert after.check.predicted == tuple(record["predicted"])
    assert len(record["measured"]) == 4
    assert record["spearman"] == after.check.spearman
    assert (after.loss == before.loss).all()
    assert "checked   4 plans" in run("allocate", measured, "--budget", "50%", "--context", 64).out


def test_the_old_profile_stays_if_another_file_is_named(run, models, measured, tmp_path):
    before = measured.read_bytes()
    options = ("--plans", 2, "--out", "checked.safetensors")
    done = run("check", measured, "--model", models / "llama", *SMALL, *options)
    assert "rank correlation" in done.out
    assert measured.read_bytes() == before
    assert kvb.Profile.load(tmp_path / "checked.safetensors").check is not None


def test_the_contexts_are_not_those_of_the_profile(run, models, measured):
    """Prompts that were measured on would flatter the profile."""
    from kvbudget.commands.check import FRESH
    from kvbudget.commands.profile import MEASURED
    from kvbudget.commands.sample import Sample

    tokenizer = kvb.reference_model()[1]
    sample = Sample(None, 128, 4)
    known, fresh = (sample.prompts(tokenizer, seed) for seed in (MEASURED, FRESH))
    assert not {tuple(ids) for ids in known} & {tuple(ids) for ids in fresh}


def test_a_profile_of_another_model_is_refused_and_left_alone(run, models, measured):
    before = measured.read_bytes()
    refused = run("check", measured, "--model", models / "other", *SMALL, "--plans", 2)
    assert refused.code == 2
    assert "Plan was made for" in refused.err
    assert measured.read_bytes() == before


def test_a_missing_profile_is_said_to_be_missing(run):
    refused = run("check", "nowhere.safetensors")
    assert refused.code == 2
    assert "nowhere.safetensors" in refused.err


def test_only_the_profile_itself_is_written_over(run, models, measured, tmp_path):
    text, before = tmp_path / "mine.txt", "Every word of this text is read by the model. " * 40
    text.write_text(before)
    options = ("--text", text, "--model", models / "llama", *SMALL, "--plans", 4)
    for out in (text, models / "llama" / "model.safetensors"):
        refused = run("check", measured, *options, "--out", out)
        assert refused.code == 2
        assert "`--out` must not " in refused.err
    assert text.read_text() == before
    assert run("check", measured, *options, "--out", measured).code == 0
    assert kvb.Profile.load(measured).check is not None
