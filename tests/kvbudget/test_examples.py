"""Each program in examples/ runs by itself on the shipped model, and says what it promises."""

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

import kvbudget as kvb

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HELPERS = {"haystacks"}
SAID = {
    "chat": r"shrunk: 1,572,864 -> ",
    "check_losses": r"solved +5% kept: +[\d.]+ predicted",
    "compare_solvers": r"Hull +0[.]\d+ +1[.]",
    "device_limits": r"with limits: [\d,]+ \+ [\d,]+ bytes",
    "draw_pictures": r"plan.png: Heat map .*\n(.*\n)*memory.png: Memory ",
    "evaluate_plan": r"solved 25% +100%",
    "many_questions": r"Answer: (\d+) [(]right: \1[)]",
    "own_heuristic": r"tokens +chosen by attended_values[(]window=16[)]",
    "own_model": r"BudgetedCache[(]\d+ tokens read, 768.0 KiB of 768.0 KiB held[)]",
    "own_solver": r"BestFirst +0[.]\d+",
    "per_prompt": r"WithinLayer: .*layer 0 holds \[\d+",
}
PROGRAMS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in HELPERS)


@pytest.fixture
def ran(tmp_path, monkeypatch, capsys):
    """Run a program as a user would, from an empty folder, and return what it printed."""

    def call(name, *arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(EXAMPLES)
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        with kvb.heuristics.registration_scope():
            runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    return call


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_example_runs_and_says_what_it_promises(name, ran):
    said = ran(name)
    assert re.search(SAID[name], said)
    if name == "device_limits":
        (halves,) = re.findall(r"with limits: ([\d,]+) \+ ([\d,]+)", said)[-1:]
        assert int(halves[0].replace(",", "")) <= 600 * 2**10
        assert int(halves[1].replace(",", "")) <= 2**20


@pytest.mark.slow
def test_the_first_example_takes_a_model_and_a_text_of_ones_own(ran, models, tmp_path):
    (tmp_path / "mine.txt").write_text("a text of my own, word by word. " * 400)
    with pytest.raises(ValueError, match=r"reads at most 512 tokens"):
        ran("own_model", models / "llama", tmp_path / "mine.txt")
    assert "LlamaForCausalLM (2 layers x 2 KV heads" in ran(
        "own_model", models / "long", tmp_path / "mine.txt"
    )
    assert kvb.Plan.load(tmp_path / "plan.json").geometry.layers == 2


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_is_short_and_says_what_it_is_for(name):
    text = (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 40
    assert len((ast.get_docstring(ast.parse(text)) or "").split()) > 5
    assert name in SAID


def test_the_list_in_the_folder_is_complete():
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)[.]py`", text, re.MULTILINE)) == set(PROGRAMS)
