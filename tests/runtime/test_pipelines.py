"""Programs that call `generate` themselves run inside a budget without knowing of it."""

import pytest
import torch
import transformers

import kvbudget as kvb
from kvbudget.heuristics import SinkRecent
from kvbudget.runtime import budgeted, geometry_of

TEXTS = ["The old fox ran over the hill and", "A letter came", "In the garden there were " * 8]
GREEDY = {"do_sample": False, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def reader():
    """The model of the package and its tokenizer."""
    model, tokenizer = kvb.reference_model()
    tokenizer.padding_side = "left"
    return model, tokenizer


@pytest.fixture
def plan_of(plan_for):
    """A plan that keeps as many tokens in every cache."""

    def build(model, tokens, rows=1):
        geometry = geometry_of(model)
        capacity = torch.full((geometry.layers, geometry.kv_heads), tokens).numpy()
        return plan_for(geometry, capacity, 256, rows)

    return build


@pytest.mark.parametrize("rows", [1, 3])
def test_a_pipeline_gives_the_same_texts_while_everything_fits(reader, plan_of, rows):
    model, tokenizer = reader
    write = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
    plain = write(TEXTS, batch_size=rows, **GREEDY)
    with budgeted(model, plan_of(model, 200, rows)) as cache:
        assert write(TEXTS, batch_size=rows, **GREEDY) == plain
        assert 0 < cache.nbytes() <= cache.plan.budget_bytes


def test_a_pipeline_writes_what_generate_writes_within_the_same_budget(reader, plan_of):
    model, tokenizer = reader
    plan, texts = plan_of(model, 16), []
    with budgeted(model, plan, SinkRecent()) as cache:
        for text in TEXTS:
            cache.reset()
            ids = tokenizer(text, return_tensors="pt")
            written = model.generate(**ids, **GREEDY, past_key_values=cache)
            texts.append(tokenizer.decode(written[0], skip_special_tokens=True))
        cache.reset()
        write = transformers.pipeline("text-generation", model=model, tokenizer=tokenizer)
        answers = write(TEXTS, **GREEDY)
        assert 0 < cache.nbytes() <= plan.budget_bytes
    assert [answer[0]["generated_text"] for answer in answers] == texts


@pytest.fixture
def harness(reader):
    """The model as lm_eval sees it."""
    hf = pytest.importorskip(
        "lm_eval.models.huggingface", reason="lm_eval is not installed", exc_type=ImportError
    )
    model, tokenizer = reader
    return hf.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1)


def asked(kind, arguments):
    """Requests as lm_eval makes them of a task's documents."""
    from lm_eval.api.instance import Instance

    return [
        Instance(request_type=kind, doc={}, arguments=each, idx=0, metadata=("made up", index, 1))
        for index, each in enumerate(arguments)
    ]


def test_lm_eval_answers_the_same_while_everything_fits(reader, harness, plan_of):
    model, _ = reader
    until = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    questions = asked("generate_until", [(text, until) for text in TEXTS])
    choices = asked("loglikelihood", [(TEXTS[0], " went home"), (TEXTS[0], " sang")])
    plain = harness.generate_until(questions), harness.loglikelihood(choices)
    with budgeted(model, plan_of(model, 200)) as cache:
        for ours, theirs in zip(harness.loglikelihood(choices), plain[1], strict=True):
            assert ours == (pytest.approx(theirs[0], abs=1e-4), theirs[1])
        assert cache.nbytes() == 0
        assert harness.generate_until(questions) == plain[0]
        assert 0 < cache.nbytes() <= cache.plan.budget_bytes


def test_lm_eval_generates_within_the_budget(reader, harness, plan_of):
    model, _ = reader
    until = {"until": ["."], "max_gen_toks": 12, "do_sample": False}
    seen, plan = [], plan_of(model, 16)
    with budgeted(model, plan, SinkRecent()) as cache:
        hook = model.register_forward_hook(lambda *_: seen.append(cache.nbytes()))
        answers = harness.generate_until(asked("generate_until", [(t, until) for t in TEXTS]))
        hook.remove()
    assert len(answers) == len(TEXTS)
    assert 0 < max(seen) <= plan.budget_bytes
