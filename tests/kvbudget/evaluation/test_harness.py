"""lm-evaluation-harness runs within a plan; where it is not installed, that is said."""

import importlib.util
import json

import pytest
import torch

import kvbudget as kvb
from kvbudget.evaluation import draw_samples, harness_model, tasks

TOKENS = 220
has_harness = importlib.util.find_spec("lm_eval") is not None
needs_harness = pytest.mark.skipif(not has_harness, reason="lm_eval is not installed")


@pytest.mark.skipif(has_harness, reason="lm_eval is installed")
def test_without_the_harness_a_sentence_says_what_to_install(shipped):
    with pytest.raises(ImportError, match="lm-evaluation-harness must be installed"):
        harness_model(*shipped)


@pytest.fixture
def known_tasks(shipped, tmp_path, monkeypatch):
    """A task of each kind over a local file."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    rows = []
    drawn = draw_samples(shipped[1], tasks=[tasks.SingleNeedle()], context_tokens=TOKENS, samples=3)
    for sample in drawn:
        (question,) = sample.questions
        prompt = f"{sample.context}{question.text}\n{question.answer_prefix}"
        wrong = [str(int(question.right) + more).zfill(len(question.right)) for more in (1, 17)]
        rows.append({"prompt": prompt, "text": sample.context, "choices": [question.right, *wrong]})
    path = tmp_path / "rows.json"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    files = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(path)}}}
    base = {**files, "test_split": "test", "doc_to_text": "{{prompt}}"}
    until = {"until": ["\n"], "max_gen_toks": 10, "do_sample": False}
    return [
        {
            **base,
            "task": "written",
            "output_type": "generate_until",
            "doc_to_target": "{{choices[0]}}",
            "generation_kwargs": until,
            "metric_list": [{"metric": "exact_match"}],
        },
        {
            **base,
            "task": "chosen",
            "output_type": "multiple_choice",
            "doc_to_target": 0,
            "doc_to_choice": "{{choices}}",
            "target_delimiter": "",
            "metric_list": [{"metric": "acc"}],
        },
        {
            **base,
            "task": "told",
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{text}}",
            "metric_list": [{"metric": "byte_perplexity"}],
        },
    ]


def scores(lm, known_tasks):
    """What the harness finds, by task."""
    import lm_eval

    found = lm_eval.simple_evaluate(
        model=lm, tasks=[dict(each) for each in known_tasks], bootstrap_iters=0
    )["results"]
    names = {"written": "exact_match,none", "chosen": "acc,none", "told": "byte_perplexity,none"}
    return {task: float(found[task][name]) for task, name in names.items()}


@needs_harness
def test_the_full_cache_scores_as_the_harness_own_model(shipped, known_tasks):
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = shipped
    theirs = scores(HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1), known_tasks)
    ours = scores(harness_model(model, tokenizer), known_tasks)
    assert ours == pytest.approx(theirs, rel=1e-5)
    assert theirs["written"] == 1.0


@needs_harness
def test_a_plan_changes_what_is_written_chosen_and_told(shipped, known_tasks, plan_of):
    full = scores(harness_model(*shipped), known_tasks)
    small = scores(harness_model(*shipped, plan_of("8%", TOKENS)), known_tasks)
    assert small["written"] < full["written"]
    assert small["told"] > full["told"]


@needs_harness
def test_a_plan_that_keeps_everything_changes_nothing(shipped, known_tasks, plan_of):
    full = scores(harness_model(*shipped), known_tasks)
    kept = scores(harness_model(*shipped, plan_of("100%", TOKENS)), known_tasks)
    assert kept == pytest.approx(full, rel=1e-5)


@needs_harness
def test_an_answer_is_scored_behind_a_context_that_was_cut(shipped, plan_of):
    """The same by hand: read, cut, go on."""
    from lm_eval.api.instance import Instance

    model, tokenizer = shipped
    plan = plan_of("20%", TOKENS)
    (sample,) = draw_samples(tokenizer, tasks=[tasks.Prose()], context_tokens=TOKENS, samples=1)
    pair = (sample.context, sample.questions[0].right)
    request = Instance("loglikelihood", {}, pair, 0, metadata=("made up", 0, 1))
    ((found, _),) = harness_model(model, tokenizer, plan).loglikelihood([request])
    context, answer = (tokenizer(each, return_tensors="pt")["input_ids"] for each in pair)
    with kvb.budgeted(model, plan) as cache, torch.no_grad():
        first = model(context, past_key_values=cache).logits[0, -1:]
        others = model(answer, past_key_values=cache).logits[0, :-1]
    expected = torch.cat([first, others]).log_softmax(-1).gather(1, answer[0][:, None]).sum()
    assert answer.shape[1] < 64
    assert found == pytest.approx(float(expected), rel=1e-5)


@needs_harness
def test_a_context_is_cut_on_the_left_to_what_the_plan_reads(shipped, plan_of):
    lm = harness_model(*shipped, plan_of("50%", TOKENS))
    assert lm.most_tokens == TOKENS
    assert lm._cut(list(range(300)), [1, 2, 3]) == list(range(300 - 218, 300))
    assert lm._cut([5], list(range(400))) == [5]


@needs_harness
def test_what_is_no_plan_and_a_plan_of_another_model_are_refused(shipped, profile):
    with pytest.raises(TypeError, match="`plan` must be a Plan or None"):
        harness_model(*shipped, "plan.json")
    other = kvb.allocate(profile, budget="50%", context_tokens=160)
    with pytest.raises(kvb.WrongModel):
        harness_model(*shipped, other)
