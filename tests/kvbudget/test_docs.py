"""Every block of Python and of shell on the pages in docs/ runs as it stands there.

A page is run from top to bottom in a folder that holds what pages presuppose: a model, texts, a
profile and a plan. Commands that measure get fewer samples than the page shows.
"""

import copy
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch

import kvbudget as kvb
from kvbudget import cli
from kvbudget.needles import make_needle_prompt
from kvbudget.prose import built_in_sentences

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path.name for path in DOCS.glob("*.md"))
BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LANGUAGES = {"python", "sh", "text", "toml"}
LESS = {
    "profile": ["--context", "256", "--samples", "1"],
    "check": ["--context", "256", "--samples", "1", "--plans", "2"],
    "demo": ["--context", "256", "--samples", "1"],
    "evaluate": ["--context", "256", "--samples", "1"],
    "generate": ["--max-new-tokens", "4"],
}


def blocks(page):
    """Languages and texts of the blocks that are to be run."""
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


RUN = [page for page in PAGES if blocks(page)]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with everything that pages name, and the names that their Python presupposes."""
    folder = tmp_path_factory.mktemp("reader")
    model, tokenizer = kvb.reference_model()
    # in the type that the names below have, so that a plan fits both
    model.save_pretrained(folder / "my-model")
    tokenizer.save_pretrained(folder / "my-model")
    made = [
        make_needle_prompt(
            built_in_sentences(), lambda text: tokenizer(text)["input_ids"], tokens=700, seed=seed
        )
        for seed in range(4)
    ]
    texts = [each.text + each.answer + ".\n" for each in made]
    (folder / "my-text.txt").write_text("".join(texts[:2]) * 2, encoding="utf-8")
    (folder / "other-text.txt").write_text(texts[2] * 3, encoding="utf-8")
    (folder / "question.txt").write_text(made[3].text, encoding="utf-8")
    profile = kvb.measure_profile(
        model,
        texts[:2],
        kvb.heuristics.ObservationWindow(),
        tokenizer=tokenizer,
        measure="output_error",
        progress=False,
    )
    plan = kvb.allocate(profile, budget="25%", context_tokens=1024, batch_size=2)
    profile.save(folder / "profile.safetensors")
    plan.save(folder / "plan.json")
    names = {"kvb": kvb, "torch": torch, "np": np, "copy": copy, "prompts": texts[:2]}
    names |= {"tokenizer": tokenizer, "profile": profile, "plan": plan}
    return folder, names | {"inputs": tokenizer(made[3].text, return_tensors="pt")}


@pytest.fixture
def reader(prepared, tmp_path, monkeypatch):
    """The same, anew for each page, and a model that no other page has touched."""
    folder, names = prepared
    shutil.copytree(folder, tmp_path / "reader")
    monkeypatch.chdir(tmp_path / "reader")
    return {**names, "model": kvb.reference_model()[0]}


def commands(block):
    """Lines of a shell block without their remarks; a line may go on behind a backslash."""
    lines = block.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_command(words, monkeypatch):
    """Run what a reader types: our own commands in this process, the others as far as it goes."""
    if words[0] == "kvbudget":
        monkeypatch.setattr(sys, "argv", [*words, *LESS.get(words[1], ())])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code in (0, None), words
    elif words[0] == "make":
        subprocess.run(["make", "-n", *words[1:]], cwd=ROOT, check=True, capture_output=True)
    elif words[0] == "python":
        assert (ROOT / words[1]).is_file(), words
        assert words[1].startswith("examples/"), "test_examples.py runs those"
    else:
        assert words in ([".", ".venv/bin/activate"], ["pip", "install", "."])


@pytest.mark.slow
@pytest.mark.parametrize("page", RUN)
def test_everything_on_the_page_works(page, reader, monkeypatch, capsys):
    # examples on a page may register heuristics
    with kvb.heuristics.registration_scope():
        for language, block in blocks(page):
            if language == "python":
                exec(compile(block, page, "exec"), reader)
                if "cache" in reader:
                    assert reader["cache"].nbytes() <= reader["cache"].plan.budget_bytes
            else:
                for words in commands(block):
                    run_command(words, monkeypatch)
    for before, after in re.findall(r"^(\d+) -> (\d+)$", capsys.readouterr().out, re.MULTILINE):
        assert int(after) < int(before)


@pytest.mark.slow
def test_the_commands_in_the_readme_work(reader, monkeypatch):
    # its programs have a test of their own
    found = [block for language, block in blocks("../README.md") if language == "sh"]
    for words in [each for block in found for each in commands(block)]:
        run_command(words, monkeypatch)
    assert kvb.Plan.load("plan.json").model == "my-model"


def test_the_entry_point_that_is_written_is_looked_for():
    text = (DOCS / "write-a-heuristic.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    (group,) = tomllib.loads(table)["project"]["entry-points"].items()
    assert group[0] == "kvbudget.heuristics"
    assert group[1] == {"attended_values": "your_package.attended_values:AttendedValues"}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_says_what_it_is_and_ends(page):
    fences = re.findall(r"^```(.*)$", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert len(fences) % 2 == 0
    assert set(fences[::2]) <= LANGUAGES
    assert set(fences[1::2]) <= {""}


def test_a_broken_command_or_block_would_be_noticed(reader, monkeypatch):
    with pytest.raises(AssertionError):
        run_command(["kvbudget", "allocate", "nowhere.safetensors"], monkeypatch)
    with pytest.raises(subprocess.CalledProcessError):
        run_command(["make", "no-such-target"], monkeypatch)
    with pytest.raises(AssertionError):
        run_command(["rm", "-rf", "x"], monkeypatch)
    assert commands("a b \\\n  c  # why\n\n# nothing\nd") == [["a", "b", "c"], ["d"]]


def listed(page, title):
    """Names in the first column of the table under a title."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"## {title}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `(\w+)", text, re.MULTILINE))


def test_every_heuristic_measure_constraint_and_solver_is_on_its_page():
    from kvbudget.heuristics import CacheHeuristic, TokenHeuristic, measures, names

    assert listed("heuristics.md", "All of them") == set(names(TokenHeuristic))
    assert listed("heuristics.md", "Cache heuristics") == set(names(CacheHeuristic))
    assert listed("heuristics.md", "What counts as loss") == set(measures.names())
    pages = (DOCS / "budgets.md", DOCS / "solvers.md")
    budgets, solvers = (path.read_text(encoding="utf-8") for path in pages)
    assert {name for name in kvb.constraints.__all__ if f"`{name}(" in budgets} == set(
        kvb.constraints.__all__
    )
    assert {name for name in kvb.solvers.__all__ if re.search(rf"`{name}(\(|`)", solvers)} == set(
        kvb.solvers.__all__
    )


def test_what_solvers_are_said_to_honour_they_do():
    text = (DOCS / "solvers.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    (header,) = (row for row in rows if "`Hull`" in row[1])
    for row in rows[rows.index(header) + 1 :]:
        for name in re.findall(r"`(\w+)`", row[0]):
            kind = getattr(kvb.constraints, name, None) or getattr(kvb, name)
            for solver, answer in zip(header[1:], row[1:], strict=True):
                honours = getattr(kvb.solvers, solver.strip(" `")).honours
                assert (kind in honours) == (answer.strip() == "yes"), (name, solver)


def test_every_task_is_on_its_page():
    assert listed("evaluate.md", "Tasks") == set(kvb.evaluation.tasks.names())
