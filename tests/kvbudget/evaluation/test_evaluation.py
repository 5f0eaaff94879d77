"""Rows print, save and load."""

import json
import math
from dataclasses import replace

import pytest

import kvbudget as kvb
from kvbudget.evaluation import Evaluation, EvaluationRow, Origin
from kvbudget.evaluation.evaluation_table import cells_of, poor_tasks

ORIGIN = Origin("m", "0123", "2 x 2", "0.1", "2.13", "5.23", "a machine", None)
FULL = EvaluationRow(
    task="needle",
    cache="full cache",
    score=0.75,
    unit="share right",
    full_score=0.75,
    divergence=None,
    scores=(1.0, 0.5),
    samples=2,
    asked_bytes=2048,
    held_bytes=1024,
    peak_bytes=4096,
    prefill_seconds=0.25,
    token_seconds=0.0125,
)
PLANNED = replace(FULL, cache="plan", score=0.25, divergence=0.5, solver="Hull")
TEXT = replace(FULL, task="prose", unit="perplexity", score=12.345, token_seconds=None)


@pytest.fixture
def found():
    return Evaluation((FULL, PLANNED, TEXT), 1024, False, 3, ORIGIN, "89ab")


def test_what_is_saved_is_loaded(found, tmp_path):
    found.save(tmp_path / "rows.jsonl")
    assert Evaluation.load(tmp_path / "rows.jsonl") == found


def test_every_saved_row_stands_for_itself(found, tmp_path):
    found.save(tmp_path / "rows.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 3
    for row in rows:
        about = ("seed", "commit", "kvbudget", "torch", "transformers", "weights", "context_tokens")
        assert {name: row[name] for name in about} == {
            "seed": 3,
            "commit": None,
            "kvbudget": "0.1",
            "torch": "2.13",
            "transformers": "5.23",
            "weights": "0123",
            "context_tokens": 1024,
        }
    assert [row["cache"] for row in rows] == ["full cache", "plan", "full cache"]


@pytest.mark.parametrize("content", ["", "{}", "[1]", "nonsense", '{"task": "needle"}', "\udcff"])
def test_other_files_are_refused_by_name(content, tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(kvb.BadFile, match=r"rows\.jsonl is not a usable evaluation"):
        Evaluation.load(tmp_path / "rows.jsonl")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(kvb.BadFile, match="No file at"):
        Evaluation.load(tmp_path / "rows.jsonl")


def test_cells_are_in_the_units_of_their_headings():
    assert cells_of(FULL) == (
        "  full cache", "75%", "", "2.0 KiB", "1.0 KiB", "4.0 KiB", "250 ms", "12.5 ms",
    )  # fmt: skip
    assert cells_of(PLANNED)[1:3] == ("25%", "0.5000")
    assert cells_of(TEXT)[1] == "12.35"
    assert cells_of(TEXT)[-1] == ""


def test_the_table_has_a_block_for_each_task_that_says_what_is_counted(found):
    lines = str(found).splitlines()
    assert lines[0] == "m: 1024 tokens in all, question unknown when the cache is cut"
    assert "needle: share right, 2 questions on 2 contexts" in lines
    assert "prose: perplexity (less is better), 2 contexts" in lines
    ends = [line.index("KiB", line.index("KiB") + 3) for line in lines if "KiB" in line]
    assert len(ends) == 3
    assert len(set(ends)) == 1
    assert "can hardly do" not in str(found)


def test_tasks_that_the_full_cache_cannot_do_are_named(found):
    poor = replace(FULL, task="tracking", full_score=0.4)
    unknown = replace(FULL, task="other", full_score=None)
    assert poor_tasks((FULL, poor, unknown, replace(TEXT, full_score=0.1))) == ["tracking"]
    shown = str(replace(found, rows=(poor,), question_known=True, context_tokens=None))
    assert shown.endswith("with its full cache: tracking.")
    assert shown.startswith("m: contexts of a file, question known")


def test_a_row_counts_its_questions():
    assert FULL.questions == 2


def saved(found, path, **changes):
    """A file of rows of which the first was changed."""
    first, *others = found.to_records()
    path.write_text("\n".join(map(json.dumps, ({**first, **changes}, *others))))
    return path


@pytest.mark.parametrize(
    "changes",
    [{"score": "x"}, {"scores": 3}, {"scores": ["a"]}, {"task": 3}, {"held_bytes": None}],
)
def test_fields_of_another_kind_are_refused(found, tmp_path, changes):
    with pytest.raises(kvb.BadFile, match="it holds other rows"):
        Evaluation.load(saved(found, tmp_path / "rows.jsonl", **changes))


@pytest.mark.parametrize("changes", [{"seed": 4}, {"weights": "9999"}, {"text": ""}])
def test_rows_of_several_runs_are_not_taken_for_one(found, tmp_path, changes):
    with pytest.raises(kvb.BadFile, match="must hold the rows of one run, but holds those of 2"):
        Evaluation.load(saved(found, tmp_path / "rows.jsonl", **changes))


def test_figures_that_are_no_numbers_are_saved_as_null(found, tmp_path):
    broken = replace(FULL, score=math.nan, scores=(math.inf, 1.0), divergence=math.inf)
    replace(found, rows=(broken,)).save(tmp_path / "rows.jsonl")
    content = json.loads((tmp_path / "rows.jsonl").read_text())
    assert (content["score"], content["scores"], content["divergence"]) == (None, [None, 1.0], None)
    (row,) = Evaluation.load(tmp_path / "rows.jsonl").rows
    assert math.isnan(row.score)
    assert math.isnan(row.scores[0])
    assert row.divergence is None
