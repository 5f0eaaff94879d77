"""The table fits a terminal and says what the rows hold."""

import io
import json

import pytest
from rich.console import Console

import kvbudget as kvb
from kvbudget.demo.result import FULL, make_row
from kvbudget.demo.run import DemoResult, Example
from kvbudget.demo.table import make_table, summary, to_record
from kvbudget.demo.trying import Tally


@pytest.fixture
def result(profile):
    plan = kvb.allocate(profile, budget="25%", context_tokens=200)
    uniform = kvb.allocate(profile, budget="25%", context_tokens=200, solver=kvb.solvers.Uniform())
    rows = (
        make_row("100%", None, 51200, Tally([0.0], ["12345"], [True], 51200, [50.0])),
        make_row("25%", uniform, 51200, Tally([0.4], ["9"], [False], 12800, [50.0])),
        make_row("25%", plan, 51200, Tally([0.1], ["12345"], [True], 12800, [50.0])),
    )
    return DemoResult(rows, Example("12345", ("12345", "9", "12345")), plan, profile)


def test_the_table_fits_eighty_columns(result):
    screen = io.StringIO()
    Console(file=screen, width=80).print(make_table(result))
    text = screen.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert [
        word for word in (FULL, "Uniform", "Hull", "12.5 KiB", "0.4000") if word not in text
    ] == []


def test_the_summary_compares_and_shows_one_question(result):
    text = summary(result)
    assert "At 25% of the bytes Uniform diverges 4.0 times as much as Hull." in text
    assert "12345" in text
    assert "Uniform 25%: 9" in text


def test_the_record_is_json_with_every_row(result):
    record = json.loads(json.dumps(to_record(result)))
    assert [each["solver"] for each in record["rows"]] == [FULL, "Uniform", "Hull"]
    assert record["uniform_over_hull"] == {"25%": pytest.approx(4.0)}
