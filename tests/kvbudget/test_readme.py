"""The README's code runs as it stands there."""

import inspect
import re
import tomllib
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
    inputs = tokenizer(question, return_tensors="pt")
    found = {"model": model, "tokenizer": tokenizer, "inputs": inputs}
    return {**found, "prompts": prompts, "question": question}


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
        lines = [
            line for line in block.splitlines() if line and not line.startswith(("import", "from"))
        ]
        assert len(lines) <= 10


def test_a_budget_is_applied(names, capsys):
    exec(blocks()[0], names)
    held, allowed = map(
        int, re.findall(r"(\d+) bytes held, (\d+) allowed", capsys.readouterr().out)[0]
    )
    assert 0.9 * allowed < held <= allowed
    assert names["output"].shape[1] > names["inputs"]["input_ids"].shape[1]


def test_solvers_are_compared(names, capsys):
    exec(blocks()[1], names)
    assert "PyramidKV" in capsys.readouterr().out
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")
    assert names["solution"].bound <= names["solution"].loss


def test_a_heuristic_is_registered_measured_and_run_by_its_name(names):
    with kvb.heuristics.registration_scope():
        exec(blocks()[2], names)
        assert names["profile"].heuristic == "value_norm"
        assert names["profile"].loss.max() > 0
        chosen = {type(layer.heuristic) for layer in names["cache"].stack.layers}
        assert chosen == {names["ValueNorm"]}
        assert names["cache"].nbytes() <= names["plan"].budget_bytes
        check_heuristic(names["ValueNorm"]())


def test_the_entry_point_that_it_writes_is_looked_for():
    (table,) = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    declared = tomllib.loads(table)["project"]["entry-points"]
    assert declared == {"kvbudget.heuristics": {"value_norm": "your_package.value_norm:ValueNorm"}}


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
