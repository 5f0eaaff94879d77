"""`kvbudget draw` draws plans and profiles and says what is to be seen."""

import json
from dataclasses import replace

import pytest
from PIL import Image

import kvbudget as kvb


@pytest.fixture
def checked_file(profile, tmp_path):
    check = kvb.ProfileCheck((1.0, 2.0, 3.0), (1.0, 2.5, 2.0), (0.5,) * 3, (True, False, True), 2)
    replace(profile, check=check).save(tmp_path / "checked.safetensors")
    return tmp_path / "checked.safetensors"


def test_a_plan_is_drawn_as_the_tokens_of_its_caches(run, plan_file, tmp_path):
    done = run("draw", plan_file)
    assert done.code == 0
    assert done.out.startswith("Heat map of the tokens that each KV cache of tiny keeps")
    image = Image.open(tmp_path / "picture.png")
    assert image.text["Description"] == done.out.strip()
    assert "Wrote picture.png." in done.err


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("curves", "Curves of loss"),
        ("frontier", "Least possible loss of tiny"),
        ("check", "Scatter of measured over predicted loss"),
    ],
)
def test_a_profile_gives_every_other_picture(run, checked_file, what, words, tmp_path):
    done = run("draw", checked_file, "--what", what, "--out", "a.svg", "--json")
    record = json.loads(done.out)
    assert record["description"].startswith(words)
    assert record["description"] in (tmp_path / "a.svg").read_text()
    assert record["out"] == "a.svg"


def test_a_profile_is_drawn_as_curves_if_nothing_else_is_asked_for(run, profile_file):
    assert run("draw", profile_file).out.startswith("Curves of loss")


def test_a_plan_remembers_its_losses(run, plan_file, profile):
    done = run("draw", plan_file, "--what", "frontier")
    path = kvb.solve_path(profile, context_tokens=200)
    assert f"{len(path)} plans" in done.out
    longer = run("draw", plan_file, "--what", "frontier", "--context", 5000).out
    assert longer != done.out


def test_the_frontier_of_a_plan_keeps_its_constraints(run, profile, tmp_path):
    limits = (kvb.constraints.MostTokens(60),)
    plan = kvb.allocate(profile, budget="25%", context_tokens=200, constraints=limits)
    plan.save(tmp_path / "limited.json")
    path = kvb.solve_path(profile, context_tokens=200, constraints=limits)
    done = run("draw", "limited.json", "--what", "frontier")
    assert f"{len(path)} plans" in done.out


def test_what_cannot_be_drawn_is_said_in_a_sentence(run, plan_file, profile_file, tmp_path):
    assert (
        "nobody looked yet. Run `kvbudget check`" in run("draw", plan_file, "--what", "check").err
    )
    assert "must come with a plan" in run("draw", profile_file, "--what", "plan").err
    assert "No file at" in run("draw", "nothing.json").err
    assert "must end in .png or .svg" in run("draw", plan_file, "--out", "a.jpg").err
    assert list(tmp_path.iterdir()) == []


def test_a_context_is_refused_where_nothing_depends_on_it(run, profile_file, tmp_path):
    done = run("draw", profile_file, "--context", 99)
    assert (done.code, list(tmp_path.glob("*.png"))) == (2, [])
    assert "`--context` must come with `--what frontier`" in done.err


def test_the_context_of_a_frontier_can_be_chosen(run, profile_file):
    for context in (1024, 300):
        more = () if context == 1024 else ("--context", context)
        done = run("draw", profile_file, "--what", "frontier", *more)
        full = kvb.Profile.load(profile_file).geometry.full_bytes(context)
        assert f" of {kvb.allocator.format_bytes(full)}." in done.out


def test_a_profile_whose_lowest_level_is_high_has_a_frontier_too(run, profile, tmp_path):
    high = replace(
        profile,
        loss=profile.loss[..., -1:],
        sample_loss=profile.sample_loss[..., -1:],
        kept_fraction=(1.0,),
    )
    high.save(tmp_path / "high.safetensors")
    done = run("draw", "high.safetensors", "--what", "frontier")
    assert done.code == 0
    assert "at 100% of" in done.out


def test_a_plan_without_curves_is_sent_to_its_profile(run, plan_file, tmp_path):
    replace(kvb.Plan.load(plan_file), curves=None).save(tmp_path / "old.json")
    done = run("draw", "old.json", "--what", "curves")
    assert done.code == 2
    assert "Name the profile." in done.err


def test_the_picture_is_not_written_over_what_it_shows(run, profile, tmp_path):
    profile.save(tmp_path / "mine.png")
    before = (tmp_path / "mine.png").read_bytes()
    done = run("draw", "mine.png", "--out", "./mine.png")
    assert done.code == 2
    assert "`--out` must not be the file of FILE, but got mine.png." in done.err
    assert (tmp_path / "mine.png").read_bytes() == before
