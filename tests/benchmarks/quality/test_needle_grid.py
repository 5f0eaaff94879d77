"""What the grid of needles asks, and where its rows go."""

from importlib import import_module
from pathlib import Path

import pytest

import kvbudget as kvb
from kvbudget.demo.trying import Reader
from kvbudget.prose import built_in_sentences

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def grids():
    """The benchmark, which is no part of the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield import_module("benchmarks.quality.needle_grid")


@pytest.fixture(scope="module")
def reader():
    return Reader(*kvb.reference_model())


@pytest.mark.parametrize("depth", [0.0, 1.0])
def test_the_question_comes_after_the_cut_and_the_answer_last(grids, reader, depth):
    trial = grids.needle_trial(reader, built_in_sentences(), grids.Cell(300, depth), 7)
    context, future = map(reader.tokenizer.decode, (trial.context, trial.future))
    assert 250 < len(trial.ids) < 310
    assert "Question" not in context
    assert future.startswith("\nQuestion: What is the ")
    ((start, end),) = trial.answers
    assert end == len(trial.future)
    answer = reader.tokenizer.decode(trial.future[start:end])
    assert answer.isdigit()
    who = future.split(" of ")[1].split("?")[0]
    sentence = f" of {who} is {answer}."
    assert sentence in context
    # four facts are hidden; the one that is asked for lies at the end that it should
    at = context.index(sentence) / len(context)
    assert at < 0.3 if depth == 0 else at > 0.7


def test_the_full_cache_finds_what_a_plan_of_a_token_a_cache_does_not(grids, reader):
    trial = grids.needle_trial(reader, built_in_sentences(), grids.Cell(300, 0.2), 7)
    geometry = kvb.geometry_of(reader.model)
    profile = kvb.Profile.from_importance(
        [[1.0] * 4] * 6, geometry, kept_fraction=(0.01, 1.0), heuristic="sink_recent"
    )
    least = kvb.allocate(profile, budget="1%", context_tokens=300)
    assert grids.is_found(reader, trial, None)
    assert not grids.is_found(reader, trial, least)


def test_rows_become_one_grid_for_each_cache(grids):
    names = ("full cache", "Hull, 10%")
    rows = [
        grids.Row(grids.Cell(tokens, depth).case(name), "found", value / 100, "share", 0)
        for place, name in enumerate(names)
        for value, (tokens, depth) in enumerate(
            ((t, d) for t in grids.LENGTHS for d in grids.DEPTHS), start=10 * place
        )
    ]
    full, hull = grids.grids(rows, 3)
    assert (full.name, hull.name, full.samples) == (*names, 3)
    assert (full.lengths, full.depths) == (grids.LENGTHS, grids.DEPTHS)
    # by depth downwards, by length to the right
    assert full.found[1][0] == pytest.approx(0.01)
    assert full.found[0][1] == pytest.approx(len(grids.DEPTHS) / 100)
    assert hull.found[0][0] == pytest.approx(0.1)
