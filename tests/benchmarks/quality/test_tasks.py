"""The rows of an evaluation become figures, times as ratios to the full cache."""

from dataclasses import replace
from importlib import import_module

import pytest

from kvbudget.evaluation import Evaluation, EvaluationRow, Origin

FULL = EvaluationRow(
    task="needle",
    cache="full cache",
    score=1.0,
    unit="share right",
    full_score=1.0,
    divergence=None,
    scores=(1.0,),
    samples=1,
    asked_bytes=400,
    held_bytes=390,
    peak_bytes=900,
    prefill_seconds=2.0,
    token_seconds=0.5,
)
PLANNED = replace(
    FULL,
    cache="25% Hull",
    score=0.5,
    divergence=0.125,
    asked_bytes=100,
    held_bytes=98,
    prefill_seconds=3.0,
    token_seconds=0.25,
)


@pytest.fixture
def benchmark(monkeypatch, request):
    monkeypatch.syspath_prepend(str(request.config.rootpath))
    return import_module("benchmarks.quality.tasks")


def test_a_plans_figures_stand_beside_the_full_caches(benchmark):
    origin = Origin("m", "0", "2 x 2", "0.1", "2.13", "5.23", "a machine", None)
    found = Evaluation((FULL, PLANNED), 1024, False, 7, origin)
    rows = list(benchmark.figures(found, ", question known"))
    assert {row.seed for row in rows} == {7}
    figures = {(row.case, row.metric): row.value for row in rows}
    full, planned = (f"needle, question known, {each}" for each in ("full cache", "25% Hull"))
    assert figures[full, "score"] == 1.0
    assert figures[planned, "score"] == 0.5
    assert figures[planned, "divergence"] == 0.125
    assert (figures[planned, "allowed"], figures[planned, "held"]) == (100, 98)
    assert figures[planned, "prefill time"] == 1.5
    assert figures[planned, "time per token"] == 0.5
    assert (full, "prefill time") not in figures
