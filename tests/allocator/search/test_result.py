"""What a search found."""

import json
from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest

from kvbudget.allocator import Problem
from kvbudget.allocator.search import Outcome, SearchResult, TrialRecord


def record(
    number: int, used_bytes: int, value: float, outcome: Outcome = Outcome.MEASURED
) -> TrialRecord:
    return TrialRecord(
        number, outcome, (("x", 0.5),), np.array([0]), used_bytes, 9.0 - value, value
    )


PROBLEM = Problem([[1.0, 0.0]], [[0, 9]], 9)
RECORDS = (
    record(0, 9, 4.0),
    record(1, 5, 6.0),
    record(2, 5, 5.0),
    record(3, 7, 5.5),
    record(4, 7, 2.0, Outcome.PRUNED),
    record(5, 2, nan, Outcome.FAILED),
    record(6, 8, 4.0),
    record(7, 12, 0.0, Outcome.OVER_BUDGET),
)
RESULT = SearchResult(PROBLEM, "Some search", RECORDS)


def test_the_best_is_the_lowest_of_those_measured_to_the_end() -> None:
    assert RESULT.best.number == 0
    assert [r.number for r in RESULT.measured] == [0, 1, 2, 3, 6]


def test_of_equal_values_the_one_with_less_predicted_loss_is_best() -> None:
    better = TrialRecord(9, Outcome.MEASURED, (), np.array([1]), 9, 4.5, 4.0)
    assert SearchResult(PROBLEM, "", (*RECORDS, better)).best is better
    alone = SearchResult(PROBLEM, "", (RECORDS[0], better))
    assert alone.front == (better,)


def test_the_front_holds_what_nothing_beats() -> None:
    assert [r.number for r in RESULT.front] == [2, 6]


def test_it_prints_the_outcomes_and_the_front() -> None:
    assert str(RESULT).splitlines() == [
        "Some search: 8 trials, 7 calls of the objective: 5 measured, 1 pruned, 1 failed,"
        " 1 over budget",
        "  best plan:",
        "           9 B  value 4, predicted loss 5 (trial 0)",
        "  front, no plan with less memory has a lower value:",
        "           5 B  value 5, predicted loss 4 (trial 2)",
        "           8 B  value 4, predicted loss 5 (trial 6)",
    ]
    alone = SearchResult(PROBLEM, "S", RECORDS[5:6])
    assert str(alone) == "S: 1 trial, 1 call of the objective: 1 failed"


def test_it_prints_what_earlier_runs_left_above_the_plans() -> None:
    lines = str(SearchResult(PROBLEM, "S", RECORDS, ("One.", "Two."))).splitlines()
    assert lines[1:4] == ["  One.", "  Two.", "  best plan:"]


def test_repeated_plans_cost_no_call_and_are_neither_best_nor_on_the_front() -> None:
    repeated = [record(number, 9, 4.0, Outcome.REPEATED) for number in (8, 9)]
    result = SearchResult(PROBLEM, "S", (repeated[0], *RECORDS, repeated[1]))
    assert result.calls == RESULT.calls == 7
    assert (result.best, result.front) == (RESULT.best, RESULT.front)
    assert "5 measured, 2 repeated, 1 pruned" in str(result)


def test_records_are_json() -> None:
    records = json.loads(
        json.dumps(SearchResult(PROBLEM, "", RECORDS[:3]).to_records(), allow_nan=False)
    )
    assert records[0] == {
        "number": 0, "outcome": "MEASURED", "x": 0.5, "used_bytes": 9, "loss": 5.0, "value": 4.0,
    }  # fmt: skip


def test_values_that_json_does_not_know_are_left_out() -> None:
    failed, infinite = (replace(RECORDS[5], loss=1.0, value=value) for value in (nan, inf))
    assert failed.to_record()["value"] is infinite.to_record()["value"] is None


def test_nothing_measured_has_no_best() -> None:
    with pytest.raises(ValueError, match="1 trials gave none"):
        _ = SearchResult(PROBLEM, "", RECORDS[4:5]).best


def test_records_compare_by_content() -> None:
    assert record(0, 9, 4.0) == record(0, 9, 4.0) != record(1, 9, 4.0)
