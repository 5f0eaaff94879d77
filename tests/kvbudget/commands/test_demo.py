"""The whole demo, on the reference model."""

import json

import pytest

import kvbudget as kvb


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    """Run the demo once, as a user does, and return its folder, JSON and progress."""
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("demo")
    done = subprocess.run(
        [sys.executable, "-m", "kvbudget", "demo", "--json", "--out", "here"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "here", json.loads(done.stdout), done.stderr


def rows_of(shown):
    return {(row["budget"], row["solver"]): row for row in shown[1]["rows"]}


@pytest.mark.slow
def test_bytes_held_are_those_of_the_plan(shown):
    rows = rows_of(shown)
    assert len(rows) == 7
    for row in rows.values():
        assert row["held_bytes"] == row["plan_bytes"] <= row["budget_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("budget", ["10%", "25%", "50%"])
def test_hull_loses_less_than_uniform(shown, budget):
    rows = rows_of(shown)
    hull, uniform = rows[budget, "Hull"], rows[budget, "Uniform"]
    assert hull["divergence"] < uniform["divergence"]
    assert hull["predicted_loss"] < uniform["predicted_loss"]
    assert hull["needle_accuracy"] >= uniform["needle_accuracy"]
    assert hull["bound"] <= hull["predicted_loss"]


@pytest.mark.slow
def test_what_is_written_can_be_read(shown):
    folder, record, progress = shown
    profile = kvb.Profile.load(folder / "profile.safetensors")
    plan = kvb.Plan.load(folder / "plan.json")
    assert plan == kvb.allocate(profile, budget="25%", context_tokens=record["context_tokens"])
    assert sorted(path.name for path in folder.iterdir()) == [
        "plan.json",
        "plan.png",
        "profile.safetensors",
    ]
    assert "testing: 100%" in progress


@pytest.mark.slow
def test_the_demo_runs_on_a_model_and_a_text_of_ones_own(run, models, tmp_path):
    text = [f"This is sentence number {n} of a text of some length." for n in range(60)]
    (tmp_path / "text").write_text(" ".join(text))
    done = run("demo", "--model", models / "long", "--text", "text", "--out", "mine")
    assert done.code == 0, done.err
    assert "tokens" in done.out
    assert (tmp_path / "mine" / "plan.png").is_file()
