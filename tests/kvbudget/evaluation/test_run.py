"""`kvb.evaluate` runs every task with every cache and refuses what makes no sense."""

import math
import random
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

import pytest
import torch

import kvbudget as kvb
from kvbudget.evaluation import Form, Question, Sample, Task, draw_samples, tasks

SMALL = {"context_tokens": 160, "samples": 2, "progress": False}


@pytest.fixture(scope="module")
def plan(plan_of):
    return plan_of("25%", 160)


@pytest.fixture(scope="module")
def found(shipped, plan):
    """Two tasks with the full cache and with two plans, one under two names."""
    plans = {"one": plan, "other": plan}
    chosen = [tasks.SingleNeedle(), tasks.Prose()]
    return kvb.evaluate(*shipped, plans, tasks=chosen, **SMALL)


def test_there_is_a_row_for_each_task_and_cache_the_full_one_first(found):
    names = [(row.task, row.cache) for row in found.rows]
    caches = ["full cache", "one", "other"]
    assert names == [(task, cache) for task in ("needle", "prose") for cache in caches]
    assert [row.unit for row in found.rows] == ["share right"] * 3 + ["perplexity"] * 3


def test_the_same_plan_gives_the_same_figures(found):
    for one, other in zip(found.rows[1::3], found.rows[2::3], strict=True):
        assert one.scores == other.scores
        assert one.divergence == other.divergence
        assert one.held_bytes == other.held_bytes


def test_every_row_tells_bytes_asked_for_and_held(found, plan, shipped):
    geometry = kvb.geometry_of(shipped[0])
    for row in found.rows:
        if row.cache == "full cache":
            assert row.asked_bytes <= geometry.full_bytes(160)
            assert 0.9 * row.asked_bytes <= row.held_bytes <= row.asked_bytes
        else:
            assert row.asked_bytes == plan.budget_bytes
            assert row.held_bytes == plan.used_bytes
        assert row.peak_bytes > row.held_bytes
        assert row.prefill_seconds > 0


def test_a_full_score_and_a_divergence_stand_beside_each_plans_score(found):
    for row in found.rows:
        full = next(r for r in found.rows if r.task == row.task and r.cache == "full cache")
        assert row.full_score == full.score
        assert (row.divergence is None) == (row.cache == "full cache")
        assert row.divergence is None or row.divergence > 0


def test_perplexity_and_divergence_are_those_of_plain_forwards(shipped, plan):
    model, tokenizer = shipped
    chosen = [tasks.Prose()]
    found = kvb.evaluate(*shipped, plan, tasks=chosen, **SMALL)
    losses, divergence = [], []
    for sample in draw_samples(tokenizer, tasks=chosen, context_tokens=160, samples=2):
        context, future = (
            tokenizer(text, return_tensors="pt")["input_ids"]
            for text in (sample.context, sample.questions[0].right)
        )
        with torch.no_grad():
            whole = torch.cat([context, future], dim=1)
            full = model(whole).logits[0, context.shape[1] - 1 :].double().log_softmax(-1)
            with kvb.budgeted(model, plan) as cache:
                first = model(context, past_key_values=cache).logits[0, -1:]
                cut = torch.cat([first, model(future, past_key_values=cache).logits[0]])
        losses.append(-float(full[:-1].gather(1, future[0][:, None]).mean()))
        gap = full - cut.double().log_softmax(-1)
        divergence.append(float((full.exp() * gap).sum(-1).mean()))
    assert found.rows[0].score == pytest.approx(math.exp(fmean(losses)), rel=1e-4)
    assert found.rows[0].scores == pytest.approx([math.exp(loss) for loss in losses], rel=1e-4)
    assert found.rows[1].divergence == pytest.approx(fmean(divergence), rel=1e-3)


@dataclass(frozen=True, slots=True)
class Echo(Task):
    """Says a word three times and asks for it."""

    name: ClassVar[str] = "echo"
    form: ClassVar[Form] = Form()

    def sample(self, room, rng):
        word = rng.choice(["amber", "birch"])
        question = Question(" What was said?", f"{word} {word}", (word, "never"), 4)
        return Sample(f"{word} {word} {word} {word}.", (question,), self.name, form=self.form)


def test_a_task_of_ones_own_runs_like_the_others(shipped):
    row = kvb.evaluate(*shipped, tasks=[Echo()], **SMALL).rows[0]
    assert (row.task, row.samples, row.questions) == ("echo", 2, 2)
    assert set(row.scores) <= {0.0, 0.5}
    assert row.right.endswith(", never")


def test_samples_of_a_file_run_by_themselves_or_beside_tasks(shipped):
    known = [Echo().sample(None, random.Random(0))]
    alone = kvb.evaluate(*shipped, dataset=known, **SMALL)
    assert [row.task for row in alone.rows] == ["echo"]
    assert alone.context_tokens is None
    both = kvb.evaluate(*shipped, tasks=[tasks.SingleNeedle()], dataset=known, **SMALL)
    assert [row.task for row in both.rows] == ["needle", "echo"]


def test_samples_of_one_task_make_one_row_wherever_they_stand(shipped):
    rng = random.Random(0)
    one, other = Echo().sample(None, rng), Sample("A b c.", (Question("", "A", ("b",), 2),), "abc")
    found = kvb.evaluate(*shipped, dataset=[one, other, one], **SMALL)
    assert [(row.task, row.samples) for row in found.rows] == [("echo", 2), ("abc", 1)]


def test_without_tasks_those_that_have_room_are_drawn(shipped):
    drawn = draw_samples(shipped[1], context_tokens=160, samples=1)
    names = [sample.task for sample in drawn]
    assert names[:2] == ["prose", "needle"]
    assert "common_words" not in names
    assert [
        s.task for s in draw_samples(shipped[1], context_tokens=500, samples=1)
    ] == tasks.names()


def test_seeds_follow_one_another(shipped):
    chosen = [tasks.SingleNeedle()]
    two = draw_samples(shipped[1], tasks=chosen, context_tokens=160, samples=2, seed=4)
    one = draw_samples(shipped[1], tasks=chosen, context_tokens=160, samples=1, seed=5)
    assert two[1:] == one


def test_a_text_of_ones_own_is_hidden_in_and_gone_on_with(shipped):
    text = "Nobody had ever seen so many red balloons over the harbour. " * 40
    chosen = [tasks.SingleNeedle(), tasks.Prose()]
    drawn = draw_samples(shipped[1], tasks=chosen, context_tokens=160, samples=1, text=text)
    assert all("red balloons" in sample.context for sample in drawn)


def test_the_shortest_plan_says_how_much_is_read(shipped, plan_of):
    plans = {"long": plan_of("50%", 300), "short": plan_of("50%", 200)}
    chosen = [tasks.SingleNeedle()]
    found = kvb.evaluate(*shipped, plans, tasks=chosen, samples=1, progress=False, full=False)
    assert found.context_tokens == 200
    assert [row.full_score for row in found.rows] == [None, None]
    assert [row.divergence for row in found.rows] == [None, None]


def test_heuristic_and_adaptation_hold_for_plans_and_are_named(shipped, plan):
    found = kvb.evaluate(
        *shipped,
        plan,
        tasks=[tasks.SingleNeedle()],
        heuristic=kvb.heuristics.SinkRecent(),
        adapt=kvb.WithinLayer(),
        **SMALL,
    )
    full, row = found.rows
    assert (full.heuristic, full.adaptation, full.solver) == ("", "", "")
    assert row.heuristic.startswith("sink_recent")
    assert "WithinLayer" in row.adaptation
    assert row.solver == "Uniform"


def test_a_model_is_left_in_the_mode_it_was_in(shipped):
    model, _ = shipped
    model.train()
    try:
        kvb.evaluate(*shipped, tasks=[Echo()], **SMALL)
        assert model.training
    finally:
        model.eval()


REFUSALS = {
    "`samples` must be": {"samples": 0},
    "`context_tokens` must be": {"context_tokens": 0},
    "The model reads at most 2048 tokens, but `context_tokens` is 3000": {"context_tokens": 3000},
    "`tasks` must be a list": {"tasks": "needle"},
    "`tasks` must hold objects of the class Task": {"tasks": ["needle"]},
    "`tasks` must hold at least one task": {"tasks": []},
    "`dataset` must hold objects of the class Sample": {"dataset": ["a"]},
    "`plan` must be a Plan, or plans by name": {"plan": {"a": "plan.json"}},
    "there is nothing to run": {"plan": None, "full": False},
    "`seed` must be an integer": {"seed": 1.5},
    "`text` must be prose as a string": {"text": 5},
    "Every task must come once": {"tasks": [tasks.MultiTurn(2), tasks.MultiTurn(3)]},
    "got 'needle' 2 times": {
        "dataset": [Sample("A b.", (Question("", "A", ("b",), 2),), "needle")]
    },
    "`text` must hold at least 20 sentences": {"text": "Too short."},
}


@pytest.mark.parametrize("sentence", REFUSALS)
def test_what_cannot_be_run_is_refused_in_one_sentence(shipped, sentence):
    asked = {"plan": None, "tasks": [tasks.SingleNeedle()], **SMALL, **REFUSALS[sentence]}
    with pytest.raises((TypeError, ValueError)) as refused:
        kvb.evaluate(*shipped, **asked)
    assert sentence in str(refused.value)


def test_a_plan_for_shorter_contexts_is_refused_by_name(shipped, plan):
    with pytest.raises(ValueError, match=r"The plan 'plan' is for contexts of at most 160 tokens"):
        kvb.evaluate(*shipped, plan, tasks=[tasks.Prose()], context_tokens=161, progress=False)
    long = Sample("word " * 400, (Question("", "", ("x",), 1),), "long")
    with pytest.raises(ValueError, match=r"at most 160 tokens, but sample 1 \(long\) takes \d+"):
        kvb.evaluate(*shipped, plan, dataset=[long], progress=False)


def test_a_sample_without_a_context_is_refused(shipped):
    empty = Sample("", (Question("", "", ("x",), 1),), "nothing")
    with pytest.raises(ValueError, match=r"must hold text, but sample 1 \(nothing\) has none"):
        kvb.evaluate(*shipped, dataset=[empty], progress=False)


def test_a_plan_must_not_be_called_like_the_full_cache(shipped, plan):
    with pytest.raises(ValueError, match="full cache"):
        kvb.evaluate(*shipped, {"full cache": plan}, **SMALL)


def test_a_plan_of_another_model_is_refused(shipped, profile):
    other = kvb.allocate(profile, budget="50%", context_tokens=160)
    with pytest.raises(kvb.WrongModel):
        kvb.evaluate(*shipped, other, **SMALL)


def test_rows_tell_the_prose_that_they_were_made_of(shipped, found):
    chosen = [tasks.SingleNeedle()]
    text = "Nobody had ever seen so many red balloons over the harbour. " * 40
    other = kvb.evaluate(*shipped, tasks=chosen, text=text, **SMALL)
    again = kvb.evaluate(*shipped, tasks=chosen, **{**SMALL, "samples": 1})
    assert len(found.text) == 16
    assert again.text == found.text != other.text
    assert other.to_records()[0]["text"] == other.text
    assert (
        kvb.evaluate(*shipped, dataset=[Echo().sample(None, random.Random(0))], **SMALL).text == ""
    )


def test_the_peak_is_that_of_the_longest_context_not_of_the_longest_answer(shipped):
    """A short context with a long answer stands beside a long context with a short answer."""
    talk = Sample("Nothing. " * 5, (Question("", "", ("word " * 600,), 2),), "talk")
    read = Sample("Nothing. " * 60, (Question("", "", ("x",), 2),), "talk")
    both, alone = (
        kvb.evaluate(*shipped, dataset=known, **SMALL).rows[0].peak_bytes
        for known in ([talk, read], [read])
    )
    assert both == alone
