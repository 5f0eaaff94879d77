"""`kvbudget evaluate` on a tiny model."""

import json

import pytest

import kvbudget as kvb

SMALL = ("--context", 160, "--samples", 1, "--task", "needle", "--task", "prose")


@pytest.fixture
def tiny(models):
    return ("--model", models / "llama")


def test_plans_stand_side_by_side_with_the_full_cache(run, tiny, plan_file, tmp_path):
    (tmp_path / "other.json").write_bytes(plan_file.read_bytes())
    done = run("evaluate", *tiny, "--plan", plan_file, "--plan", "other.json", *SMALL, "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    caches = ["full cache", "plan", "other"]
    assert [(r["task"], r["cache"]) for r in rows] == [
        (task, cache) for task in ("needle", "prose") for cache in caches
    ]
    plan = kvb.Plan.load(plan_file)
    assert {row["held_bytes"] for row in rows if row["cache"] == "plan"} == {plan.used_bytes}
    assert {row["question_known"] for row in rows} == {False}


def test_a_plan_may_be_named_without_its_option(run, tiny, plan_file):
    done = run("evaluate", plan_file, *tiny, *SMALL, "--no-full", "--json")
    assert [row["cache"] for row in json.loads(done.out)] == ["plan", "plan"]


def test_rows_are_written_and_the_table_is_printed(run, tiny, tmp_path):
    done = run("evaluate", *tiny, *SMALL, "--out", "rows.jsonl")
    assert "Wrote rows.jsonl." in done.err
    found = kvb.Evaluation.load(tmp_path / "rows.jsonl")
    assert done.out.strip() == str(found)
    assert [row.task for row in found.rows] == ["needle", "prose"]


def test_the_seed_the_text_and_the_question_are_passed_on(run, tiny, tmp_path):
    text = "Nobody had ever seen so many red balloons over the harbour. " * 40
    (tmp_path / "mine.txt").write_text(text, encoding="utf-8")
    options = ("--seed", 7, "--text", "mine.txt", "--question", "known", "--json")
    rows = json.loads(run("evaluate", *tiny, *SMALL, *options).out)
    assert {(row["seed"], row["question_known"]) for row in rows} == {(7, True)}
    (drawn,) = kvb.evaluation.draw_samples(
        kvb.reference_model()[1],
        tasks=[kvb.evaluation.tasks.SingleNeedle()],
        context_tokens=160,
        samples=1,
        seed=7,
        text=text,
    )
    assert rows[0]["right"] == drawn.questions[0].right


def test_a_data_set_is_written_and_run(run, tiny, tmp_path):
    done = run("evaluate", *tiny, *SMALL, "--write-dataset", "data.jsonl")
    assert "Wrote 1 rows to data.jsonl." in done.err
    (sample,) = kvb.evaluation.read_samples(tmp_path / "data.jsonl")
    rows = json.loads(run("evaluate", *tiny, "--dataset", "data.jsonl", "--json").out)
    assert [(row["task"], row["right"]) for row in rows] == [("needle", sample.questions[0].right)]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--task", "nedle"), "Did you mean 'needle'?"),
        (("--question", "perhaps"), "`--question` must be known or unknown, but got 'perhaps'."),
        (("--context", 5000), "The model reads at most 512 tokens"),
        (("--plan", "nowhere.json"), "nowhere.json"),
        (("--dataset", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--text", "nowhere.txt"), "There is no text file at nowhere.txt."),
        (("--out", "no/folder.jsonl"), "`--out` must lie in a folder that exists"),
        (("--no-full",), "there is nothing to run"),
        (("--task", "common_words", "--context", 100), "for the task common_words"),
        (("--write-dataset", "a.jsonl", "--dataset", "b.jsonl"), "`--write-dataset` runs nothing"),
        (("--write-dataset", "a.jsonl", "--out", "b.jsonl"), "leave out `--plan`, `--dataset` and"),
        (("--write-dataset", "a.json", "--task", "prose", "--context", 200), "must ask something"),
        (("--task", "needle", "--task", "needle"), "must come once"),
        (("--write-dataset", "a.parquet"), "must be a .jsonl, .json or .csv file"),
    ],
)
def test_bad_input_ends_with_one_sentence(run, tiny, options, sentence):
    refused = run("evaluate", *tiny, *options)
    assert refused.code == 2
    assert sentence in refused.err
    assert "Traceback" not in refused.err
    assert refused.out == ""


def test_a_plan_of_another_model_is_refused(run, models, plan_file):
    refused = run("evaluate", "--model", models / "other", "--plan", plan_file, *SMALL)
    assert refused.code == 2
    assert "Plan was made for" in refused.err


def test_the_same_plan_twice_is_refused_and_two_of_one_name_are_told_apart(
    run, tiny, plan_file, tmp_path
):
    refused = run("evaluate", *tiny, "--plan", plan_file, "--plan", plan_file, *SMALL)
    assert "`--plan` must name each file once." in refused.err
    (tmp_path / "plan.json").write_bytes(plan_file.read_bytes())
    options = (*SMALL, "--no-full", "--json")
    done = run("evaluate", *tiny, "--plan", plan_file, "--plan", "plan.json", *options)
    names = {row["cache"] for row in json.loads(done.out)}
    assert names == {"plan.json", str(plan_file)}


@pytest.mark.parametrize("name", ["plan.json", "data.jsonl", "mine.txt", "llama/config.json"])
@pytest.mark.parametrize("option", ["--out", "--write-dataset"])
def test_nothing_that_is_read_is_written_over(run, models, plan_file, tmp_path, option, name):
    (tmp_path / "llama").symlink_to(models / "llama")
    (tmp_path / "plan.json").write_bytes(plan_file.read_bytes())
    (tmp_path / "data.jsonl").write_text("data")
    (tmp_path / "mine.txt").write_text("words")
    before = (tmp_path / name).read_bytes()
    reads = ("plan.json", "--dataset", "data.jsonl", "--text", "mine.txt", "--model", "llama")
    refused = run("evaluate", *reads, option, name)
    assert refused.code == 2
    assert f"`{option}` must not " in refused.err
    assert (tmp_path / name).read_bytes() == before


def test_a_plan_of_another_model_asks_for_that_model(run, plan_file):
    refused = run("evaluate", plan_file, *SMALL)
    assert refused.code == 2
    assert "without `--model` the shipped model runs. Add --model tiny." in refused.err
