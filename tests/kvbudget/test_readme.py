"""The README's code runs as it stands there."""

import inspect
import re
from pathlib import Path

import pytest

import kvbudget as kvb
from kvbudget.allocator.solvers import published
from kvbudget.prose import built_in_sentences
from kvbudget.testing import check_heuristic

README = Path(__file__).resolve().parents[2] / "README.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def names():
    """What the README's text presupposes: a few prompts and a question about a long text."""
    model, tokenizer = kvb.reference_model()
    prose = " ".join(built_in_sentences())
    prompts, question = [prose[:1500], prose[2000:3500]], prose[4000:6500]
    return {"model": model, "tokenizer": tokenizer, "prompts": prompts, "question": question}


@pytest.fixture(autouse=True)
def beside_the_demo(names, tmp_path, monkeypatch):
    """A folder in which the demo has left a profile."""
    geometry = kvb.Geometry("LlamaForCausalLM", 6, 4, 32, 32, "float32", (None,) * 6)
    (tmp_path / "kvbudget-demo").mkdir()
    importance = [[1.0, 2.0, 3.0, 4.0]] * 6
    profile = kvb.Profile.from_importance(importance, geometry)
    profile.save(tmp_path / "kvbudget-demo" / "profile.safetensors")
    monkeypatch.chdir(tmp_path)


def test_there_is_a_program_for_each_of_three_people():
    assert len(blocks()) == 3
    for block in blocks():
        assert len([line for line in block.splitlines() if line.strip()]) < 10


def test_a_budget_is_applied(names, capsys):
    exec(blocks()[0], names)
    held, allowed = map(
        int, re.findall(r"(\d+) bytes held, (\d+) allowed", capsys.readouterr().out)[0]
    )
    assert 0.9 * allowed < held <= allowed
    read = names["tokenizer"](names["question"], return_tensors="pt")["input_ids"]
    assert names["output"].shape[1] > read.shape[1]


def test_solvers_are_compared(names, capsys):
    exec(blocks()[1], names)
    printed = capsys.readouterr().out
    assert "PyramidKV" in printed
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")
    assert 0 <= float(printed.splitlines()[-1]) < 0.05


def test_a_heuristic_is_registered_measured_and_run_by_its_name(names):
    with kvb.heuristics.registration_scope():
        exec(blocks()[2], names)
        profile, model = names["profile"], names["model"]
        assert profile.heuristic == "value_norm"
        assert profile.loss.max() > 0
        plan = kvb.allocate(profile, budget="25%", context_tokens=1024)
        inputs = names["tokenizer"](names["question"], return_tensors="pt")
        with kvb.budgeted(model, plan) as cache:
            model.generate(**inputs, max_new_tokens=4)
            assert {type(each.heuristic) for each in cache.stack.layers} == {names["ValueNorm"]}
            assert cache.nbytes() <= plan.budget_bytes
        check_heuristic(names["ValueNorm"]())


def test_its_links_lead_to_files():
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", README.read_text(encoding="utf-8"))
    assert len(targets) > 15
    for target in targets:
        assert "://" in target or (README.parent / target).exists(), target


def test_every_name_in_the_table_of_what_is_supported_exists():
    text = README.read_text(encoding="utf-8")
    rows = re.findall(r"\| ([A-Z]\w+(?: \w+)?) \| (.*?) \|", text)
    listed = {kind: set(re.findall(r"`(\w+)`", names)) for kind, names in rows}
    assert listed["Solvers"] | listed["Published rules"] == set(kvb.solvers.__all__)
    assert listed["Published rules"] == set(published.__all__)
    assert listed["Constraints"] == set(kvb.constraints.__all__)
    own = vars(kvb.heuristics).values()
    for kind, base in (
        ("Token heuristics", kvb.heuristics.TokenHeuristic),
        ("Cache heuristics", kvb.heuristics.CacheHeuristic),
    ):
        classes = [c for c in own if isinstance(c, type) and issubclass(c, base)]
        assert listed[kind] == {c.__name__ for c in classes if not inspect.isabstract(c)}
    (losses,) = re.findall(r"\| Losses \| (.*?) \|", text)
    assert set(re.findall(r"`(\w+)`", losses)) == set(kvb.heuristics.measures.names())


def test_the_comparison_is_the_one_on_its_page():
    page = (README.parent / "docs" / "comparison.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+ %) \|(.+)\|$", README.read_text(encoding="utf-8"), re.MULTILINE)
    classes = ("press, frees", "press, masks", "**ours**, reads once", "**ours**")
    assert [kept for kept, _ in rows] == ["5 %", "10 %", "25 %", "50 %"]
    for kept, figures in rows:
        for name, figure in zip(classes, figures.split("|"), strict=True):
            row = re.search(
                rf"^\| {kept} \| {re.escape(name)} \|[^|]+\|[^|]+\| (\S+) \|", page, re.M
            )
            assert row is not None
            assert row[1] == figure.strip()
