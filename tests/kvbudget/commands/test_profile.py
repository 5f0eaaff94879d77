"""`kvbudget profile` on a tiny model."""

import json
from types import SimpleNamespace

import pytest

import kvbudget as kvb
from kvbudget.commands.sample import Sample

SMALL = ("--context", 64, "--samples", 2)


def test_a_profile_is_measured_and_written(run, models, tmp_path):
    done = run("profile", "--model", models / "llama", *SMALL, "--json")
    record, profile = json.loads(done.out), kvb.Profile.load(tmp_path / "profile.safetensors")
    assert record["samples"] == len(profile.sample_loss) == 2
    assert record["loss"] == profile.loss.tolist()
    assert profile.heuristic == "observation_window"
    assert profile.model == str(models / "llama")


@pytest.mark.parametrize("measure", ["output_error", "attention_mass", "ablation"])
def test_measure_and_heuristic_can_be_chosen(run, models, tmp_path, measure):
    options = ("--measure", measure, "--heuristic", "key_norm", "--out", "other.safetensors")
    assert run("profile", "--model", models / "llama", *SMALL, *options).code == 0
    profile = kvb.Profile.load(tmp_path / "other.safetensors")
    assert (profile.measure, profile.heuristic) == (measure, "key_norm")


def test_a_text_of_ones_own_is_measured_on(run, models, tmp_path):
    (tmp_path / "mine.txt").write_text("Every word of this text is read by the model. " * 40)
    done = run("profile", "--model", models / "llama", *SMALL, "--text", "mine.txt", "--json")
    assert json.loads(done.out)["samples"] == 2


def test_a_measurement_goes_on_from_its_checkpoint(run, models, tmp_path, monkeypatch):
    arguments = ("--model", models / "llama", *SMALL, "--checkpoint", "so-far.safetensors")
    assert run("profile", *arguments).code == 0
    first = kvb.Profile.load(tmp_path / "profile.safetensors")

    def again(self, prompt, advance):
        raise AssertionError("both prompts are in the checkpoint")

    monkeypatch.setattr("kvbudget.runtime.prompt_losses.PromptLosses.of", again)
    assert run("profile", *arguments).code == 0
    assert kvb.Profile.load(tmp_path / "profile.safetensors") == first
    refused = run("profile", *arguments, "--heuristic", "key_norm")
    assert refused.code == 2
    assert "so-far.safetensors is not a usable checkpoint" in refused.err
    assert "another heuristic" in refused.err
    weighed = run("profile", *arguments, "--importance", "baklava")
    assert weighed.code == 2
    assert "leave out `--importance`" in weighed.err


def test_the_checkpoint_is_not_the_profile(run, models, tmp_path):
    options = ("--checkpoint", tmp_path / "one.safetensors", "--out", "one.safetensors")
    done = run("profile", "--model", models / "llama", *SMALL, *options)
    assert done.code == 2
    assert "`--checkpoint` must not be the file of `--out`" in done.err
    assert not (tmp_path / "one.safetensors").exists()


def test_a_measure_that_would_not_be_used_is_refused(run, models):
    options = ("--importance", "baklava", "--measure", "divergence")
    done = run("profile", "--model", models / "llama", *SMALL, *options)
    assert done.code == 2
    assert "`--measure` is for measured losses: leave out `--importance`" in done.err


def test_a_published_rule_can_weigh_the_caches(run, models, tmp_path):
    done = run("profile", "--model", models / "llama", *SMALL, "--importance", "baklava")
    assert done.code == 0
    profile = kvb.Profile.load(tmp_path / "profile.safetensors")
    assert profile.measure == "importance"
    assert profile.made_by.startswith("baklava(")


def test_profile_allocate_generate_work_together(run, models, tmp_path):
    model = ("--model", models / "llama")
    assert run("profile", *model, *SMALL).code == 0
    profile = tmp_path / "profile.safetensors"
    assert run("allocate", profile, "--budget", "50%", "--context", 100).code == 0
    prompt = ("--prompt", "hello there " * 10, "--max-new-tokens", 4)
    assert run("generate", "--plan", tmp_path / "plan.json", *model, *prompt).code == 0


@pytest.mark.parametrize("option", ["--out", "--checkpoint"])
def test_neither_the_text_nor_the_model_is_written_over(run, models, tmp_path, option):
    text, weights = tmp_path / "mine.txt", models / "llama" / "model.safetensors"
    text.write_text("Every word of this text is read by the model. " * 40)
    plain = ("profile", "--model", models / "llama", *SMALL, "--text", "mine.txt")
    before = weights.read_bytes()
    over_text, over_model = run(*plain, option, text), run(*plain, option, weights)
    assert (over_text.code, over_model.code) == (2, 2)
    assert f"`{option}` must not be the file of `--text`, but got {text}." in over_text.err
    assert f"`{option}` must not lie in the folder of `--model`, but got" in over_model.err
    assert text.read_text().startswith("Every word")
    assert weights.read_bytes() == before


@pytest.mark.parametrize("positions", [96, 100, 287, 288, 289, 290, 512, 2047, 2048])
def test_the_longest_context_that_fits_is_named(positions):
    """By trying them all."""
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=positions))
    longest = max(c for c in range(64, positions) if c + max(32, c // 8) <= positions)
    for context in range(64, longest + 1):
        Sample(None, context, 1).check_length(model)
    for context in (longest + 1, positions, 9 * positions):
        with pytest.raises(ValueError, match=f"longest `--context` that fits is {longest}."):
            Sample(None, context, 1).check_length(model)


def test_a_model_without_room_for_any_context_says_so():
    model = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=95))
    with pytest.raises(ValueError, match=r"It is too short to be measured."):
        Sample(None, 64, 1).check_length(model)
