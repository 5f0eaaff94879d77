"""Bad input gives one clear sentence and exit code 2, no stack trace, and leaves nothing behind."""

import re
from dataclasses import replace

import numpy as np
import pytest

import kvbudget as kvb


@pytest.fixture
def refused(run, tmp_path):
    """Run a command that must fail, and return its one sentence."""

    def call(*arguments):
        before = sorted(tmp_path.rglob("*"))
        done = run(*arguments)
        assert done.code == 2, done
        assert done.out == ""
        lines = [line for line in done.err.splitlines() if line.strip()]
        assert len(lines) == 1, done.err
        assert lines[0].startswith("kvbudget: ")
        assert lines[0].endswith((".", "?"))
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0].removeprefix("kvbudget: ")

    return call


@pytest.mark.parametrize(
    ("budget", "words"),
    [
        ("banana", "must be a number with a unit"),
        ("-1", "must be at least 1 byte, but got -1"),
        ("0", "must be at least 1 byte, but got 0"),
        ("", "must be a number with a unit"),
        ("200%", "must be at most 100%"),
        ("nan%", "must be a number with a unit"),
        ("inf", "must be a number with a unit"),
        ("-5GiB", "must be a number with a unit"),
        ("0tokens", "must be at least 1"),
        ("100", "the smallest needs"),
        ("1tokens", "the smallest needs"),
    ],
)
def test_a_budget_that_cannot_be(refused, profile_file, budget, words):
    assert words in refused("allocate", profile_file, "--budget", budget, "--context", 200)


def test_a_budget_that_cannot_be_compared(refused, profile_file):
    arguments = ("compare", profile_file, "--context", 200, "--budget", "25%", "--budget", "banana")
    assert "banana" in refused(*arguments)


def test_an_impossible_budget_names_the_smallest_possible_one(run, refused, profile_file):
    sentence = refused("allocate", profile_file, "--budget", 100, "--context", 200)
    smallest = sentence.split("the smallest needs ")[1].split(" (")[0].replace(" ", "")
    assert run("allocate", profile_file, "--budget", smallest, "--context", 200).code == 0


@pytest.mark.parametrize(
    ("option", "name", "meant"),
    [
        ("--heuristic", "heavy_hiter", "heavy_hitter"),
        ("--heuristic", "nothing_like_it", None),
        ("--heuristic", "SnapKV", "observation_window"),
        ("--heuristic", "h2o", "heavy_hitter"),
        ("--heuristic", "keydiff", "key_diff"),
        ("--importance", "razor-attention", "retrieval_heads"),
        ("--measure", "output_eror", "output_error"),
        ("--importance", "baclava", "baklava"),
    ],
)
def test_an_unknown_name_in_a_profile_is_answered_with_the_names(refused, option, name, meant):
    sentence = refused("profile", option, name)
    assert f"`{option}` must be one of " in sentence
    assert sentence.endswith(f"but got '{name}'." + (f" Did you mean '{meant}'?" if meant else ""))


@pytest.mark.parametrize(
    ("option", "name"), [("--heuristic", "baklava"), ("--importance", "key_norm")]
)
def test_heuristics_of_the_other_kind_are_refused(refused, option, name):
    assert f"`{option}` must be one of " in refused("profile", option, name)


def test_an_unknown_solver_is_answered_with_the_names(refused, profile_file):
    arguments = ("--budget", "25%", "--context", 200, "--solver", "hul")
    sentence = refused("allocate", profile_file, *arguments)
    assert "uniform" in sentence
    assert sentence.endswith("Did you mean 'hull'?")


@pytest.mark.parametrize("command", ["allocate", "compare"])
@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--risk", "best", "`--risk` must be mean, worst, or cvar:0.9"),
        ("--risk", "cvar:2", "at least 0 and below 1"),
        ("--layer-budget", "2GiB", "`--layer-budget` must read like 0-15=2GiB"),
        ("--head-budget", "0=banana", "must be a number with a unit"),
        ("--layer-budget", "0-7=1KiB", "`layers` must be in 0..1, but got 7"),
        ("--head-budget", "2=1KiB", "`kv_heads` must be in 0..1, but got 2"),
        ("--protect-layer", "9", "`layers` must be in 0..1, but got 9"),
    ],
)
def test_a_limit_that_cannot_be(refused, profile_file, command, option, value, words):
    arguments = ("--budget", "50%", "--context", 200, option, value)
    assert words in refused(command, profile_file, *arguments)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--least-tokens", 0),
        ("--most-tokens", -1),
        ("--page-tokens", 0),
        ("--most-capacities", 0),
        ("--protect-layer", -1),
        ("--least-tokens", "many"),
    ],
)
def test_a_number_out_of_range_is_refused_by_its_option(run, profile_file, option, value):
    done = run("allocate", profile_file, "--budget", "50%", "--context", 200, option, value)
    assert done.code == 2
    assert option in done.err
    assert "Traceback" not in done.err


def test_limits_that_leave_nothing(refused, profile_file):
    arguments = ("--budget", "50%", "--context", 200, "--least-tokens", 90, "--most-tokens", 60)
    assert "No plan meets LeastTokens(tokens=90) and MostTokens(tokens=60)" in refused(
        "allocate", profile_file, *arguments
    )


def test_a_solver_that_cannot_honour_a_limit(refused, profile_file, monkeypatch):
    monkeypatch.setattr(kvb.solvers.Greedy, "honours", frozenset())
    arguments = ("--budget", "50%", "--context", 200, "--solver", "greedy", "--risk", "worst")
    sentence = refused("allocate", profile_file, *arguments)
    assert "must honour WorstSample, but got Greedy" in sentence


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        ("nowhere/a.png", "`--plot` must lie in a folder that exists"),
        (".", "`--plot` must name a file"),
        ("a.jpg", "must end in .png or .svg, but got 'a.jpg'"),
        ("/proc/a.png", "`--plot` must be writable"),
    ],
)
def test_a_picture_that_cannot_be_written(refused, profile_file, plot, words):
    assert words in refused("compare", profile_file, "--context", 200, "--plot", plot)


def test_a_picture_of_nothing(refused, profile_file):
    arguments = ("--budget", 10, "--plot", "a.png")
    sentence = refused("compare", profile_file, "--context", 200, *arguments)
    assert "`rows` must hold a plan" in sentence


@pytest.mark.parametrize("name", ["missing", "folder", "empty", "text", "cut", "plan"])
def test_a_profile_that_is_none(refused, tmp_path, profile_file, plan_file, name):
    path = tmp_path / name
    contents = {
        "empty": b"",
        "text": b"hello",
        "cut": profile_file.read_bytes()[:-100],
        "plan": plan_file.read_bytes(),
    }
    if name == "folder":
        path.mkdir()
    elif name != "missing":
        path.write_bytes(contents[name])
    assert str(path) in refused("allocate", path, "--budget", "25%", "--context", 200)


def test_a_profile_with_nan(refused, tmp_path, profile):
    damaged = replace(profile)
    loss = profile.loss.copy()
    loss[1, 0, 3] = np.nan
    # only a program with a fault of its own could write such a file
    object.__setattr__(damaged, "loss", loss)
    path = tmp_path / "nan.safetensors"
    damaged.save(path)
    sentence = refused("allocate", path, "--budget", "25%", "--context", 200)
    assert str(path) in sentence
    assert "layer 1, KV head 0" in sentence


def test_a_newer_plan(refused, tmp_path, plan_file, models):
    path = tmp_path / "newer.json"
    path.write_text(re.sub(r'"version": \d+', '"version": 99', plan_file.read_text()))
    sentence = refused("generate", "--plan", path, "--model", models / "llama", "--prompt", "hi")
    assert "newer version" in sentence


@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("nowhere/plan.json", "must lie in a folder that exists"),
        (".", "must name a file"),
        ("file/plan.json", "must lie in a folder that exists"),
        ("/proc/plan.json", "must be writable"),
    ],
)
def test_an_output_that_cannot_be_written(refused, tmp_path, profile_file, out, words):
    (tmp_path / "file").write_text("in the way")
    arguments = ("--budget", "25%", "--context", 200, "--out", out)
    assert words in refused("allocate", profile_file, *arguments)


@pytest.mark.parametrize(
    ("out", "words"), [("file", "must name a folder"), ("/proc/demo", "must be writable")]
)
def test_a_demo_that_has_nowhere_to_write(refused, tmp_path, out, words):
    (tmp_path / "file").write_text("in the way")
    assert words in refused("demo", "--out", out)


@pytest.mark.parametrize("command", ["demo", "profile"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("./nowhere", "There is no folder ./nowhere"),
        ("no/such/folder", "There is no folder no/such/folder"),
        ("empty", "is not a model's folder: it holds no config.json"),
        ("damaged", "could not be loaded as a causal language model"),
        ("a_file", "is a file"),
    ],
)
def test_a_model_that_is_none(refused, tmp_path, command, name, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "config.json").write_text("{")
    (tmp_path / "a_file").write_text("")
    assert words in refused(command, "--model", name)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("mamba", "MambaForCausalLM is not supported"),
        ("untold", "no tokenizer"),
        ("llama", "reads at most 512 tokens"),
    ],
)
def test_a_model_that_cannot_be_profiled(refused, models, model, words):
    assert words in refused("profile", "--model", models / model, "--context", 1000)


def test_a_model_whose_weights_are_cut(refused, tmp_path, models):
    import shutil

    shutil.copytree(models / "llama", tmp_path / "cut")
    weights = tmp_path / "cut" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "could not be loaded" in refused("profile", "--model", "cut")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "There is no text file"),
        (b"", "it is empty"),
        (b"hello \xff", "must be UTF-8 text, but byte 6 is not"),
        (b"Too short.", "must have at least 1152 tokens"),
    ],
)
def test_a_text_that_cannot_be_measured_on(refused, tmp_path, content, words):
    if content is not None:
        (tmp_path / "text").write_bytes(content)
    assert words in refused("profile", "--text", "text")


def test_a_text_too_short_for_the_demo(refused, tmp_path):
    (tmp_path / "text").write_text("This is one single sentence that is long enough to count.")
    assert "at least 20 sentences" in refused("demo", "--text", "text")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prompt", ""), "must hold text"),
        ((), "either --prompt or --prompt-file"),
        (("--prompt", "a", "--prompt-file", "b"), "either --prompt or --prompt-file"),
        (("--prompt-file", "nowhere.txt"), "There is no text file at nowhere.txt"),
        (("--prompt", "one two three " * 100), "contexts of at most 200 tokens"),
        (("--prompt", "hi", "--max-new-tokens", 600), "reads at most 512 tokens"),
    ],
)
def test_a_prompt_that_cannot_be(refused, models, plan_file, arguments, words):
    generate = ("generate", "--plan", plan_file, "--model", models / "llama")
    assert words in refused(*generate, *arguments)


def test_a_plan_of_another_model(refused, models, plan_file):
    sentence = refused(
        "generate", "--plan", plan_file, "--model", models / "other", "--prompt", "hi"
    )
    assert "Plan was made for" in sentence
    assert "3 layers" in sentence


@pytest.mark.parametrize("name", ["missing", "damaged", "profile"])
def test_a_plan_that_is_none(refused, tmp_path, models, plan_file, profile_file, name):
    path = tmp_path / name
    if name == "damaged":
        path.write_text(
            plan_file.read_text().replace('"context_tokens": 200', '"context_tokens": 9')
        )
    if name == "profile":
        path.write_bytes(profile_file.read_bytes())
    generate = ("generate", "--plan", path, "--model", models / "llama", "--prompt", "hi")
    assert str(path) in refused(*generate)


def test_the_library_says_the_same(profile):
    with pytest.raises(ValueError, match="must be a number with a unit"):
        kvb.allocate(profile, budget="banana", context_tokens=200)


def test_a_generation_needs_one_plan(refused, plan_file):
    wanted = "Give one plan: kvbudget generate plan.json --prompt ..."
    assert refused("generate", "--prompt", "hi") == wanted
    assert refused("generate", plan_file, "--plan", plan_file, "--prompt", "hi") == wanted


def test_a_forgotten_model_is_asked_for_by_name(refused, plan_file, profile_file):
    words = "was made for tiny, but without `--model` the shipped model runs. Add --model tiny."
    assert refused("generate", plan_file, "--prompt", "hi") == f"The plan {words}"
    assert refused("check", profile_file) == f"The profile {words}"
