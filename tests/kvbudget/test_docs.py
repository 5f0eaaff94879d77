"""The code on the pages in docs/ runs as it stands there, and their links lead somewhere."""

import copy
import re
from pathlib import Path

import pytest
import torch

import kvbudget as kvb
from kvbudget.prose import built_in_sentences

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def profile():
    """Losses of the shipped model, from one short prompt."""
    model, tokenizer = kvb.reference_model()
    text = " ".join(built_in_sentences())[:1500]
    heuristic = kvb.heuristics.ObservationWindow()
    return kvb.measure_profile(
        model, [text], heuristic, tokenizer=tokenizer, measure="output_error", progress=False
    )


def test_everything_on_the_page_about_running_works(profile, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    model, tokenizer = kvb.reference_model()
    text = " ".join(built_in_sentences())[2000:4500]
    names = {
        **{"kvb": kvb, "torch": torch, "copy": copy, "model": model, "profile": profile},
        "inputs": tokenizer(text, return_tensors="pt"),
        "plan": kvb.allocate(profile, budget="25%", context_tokens=1024, batch_size=2),
    }
    tokens = names["inputs"]["input_ids"].shape[1]
    assert tokens > 300, "the text must not fit the budget"
    for block in blocks("running.md"):
        exec(block, names)
        assert names["cache"].nbytes() <= names["cache"].plan.budget_bytes
    first, second = re.findall(r"(\d+) -> (\d+)", capsys.readouterr().out)[0]
    assert int(second) < int(first)


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        if "://" not in target:
            assert (DOCS / target).exists(), target
