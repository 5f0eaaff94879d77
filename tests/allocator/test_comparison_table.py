from dataclasses import replace
from typing import Any

import pytest

from kvbudget.allocator import Comparison, ComparisonRow, Profile, Status, Tokens, compare
from kvbudget.allocator.solvers import Greedy, Hull, Uniform


def row(solver: str, budget_bytes: int, loss: float, **changes: Any) -> ComparisonRow:
    plain = ComparisonRow(
        solver, f"{budget_bytes // 10}%", loss, loss / 2, 0.5, budget_bytes, 1, 0.0, Status.FEASIBLE
    )
    return replace(plain, **changes)


def test_the_table_has_a_block_for_every_budget(profile: Profile) -> None:
    budgets = ["1%", "40%", Tokens(300)]
    chosen = [Uniform(), Greedy(), Hull()]
    comparison = compare(profile, budgets=budgets, solvers=chosen, context_tokens=1000)
    blocks = [block.splitlines() for block in str(comparison).split("\n\n")]
    assert blocks[0][0].split() == "solver loss x bound bound gap memory time status".split()
    titles = [block[0] for block in blocks[1:4]]
    assert titles[0].startswith("Budget 1% (")
    assert titles[0].endswith(": no plan")
    for title, bound in zip(titles[1:], comparison.bounds.values(), strict=True):
        assert title.endswith(f"every plan loses at least {bound:.6g}")
    column = blocks[0][0].index("status")
    for block in blocks[1:4]:
        assert [line.split()[0] for line in block[1:]] == ["Uniform", "Greedy", "Hull"]
        assert all(line[column:] in Status.__members__ for line in block[1:])
        assert all(line[column - 1] == " " for line in block[1:])
    assert len(blocks[4]) == 1
    assert blocks[4][0].startswith("Budget 1%: No plan fits")


def test_the_table_multiplies_the_bound() -> None:
    rows = (row("A", 2048, 8.0, bound=1.0), row("B", 2048, 5.0, bound=4.0))
    assert [line.split()[2] for line in str(Comparison(rows)).splitlines()[3:]] == ["2.00", "1.25"]


@pytest.mark.parametrize(("loss", "text"), [(0.0, "-"), (4e9, "4.0e+09")])
def test_a_bound_of_almost_nothing_is_no_column_of_digits(loss: float, text: str) -> None:
    rows = (row("A", 2048, loss, bound=min(loss, 1.0)),)
    assert str(Comparison(rows)).splitlines()[-1].split()[2] == text


def test_a_table_of_many_solvers_is_as_wide_as_its_longest_names(profile: Profile) -> None:
    every = [Uniform(), Greedy(), Hull()] * 9
    comparison = compare(profile, budgets=["40%", "50%"], solvers=every, context_tokens=1000)
    lines = str(comparison).splitlines()
    assert len(lines) == 1 + 2 * (2 + len(every))
    assert max(map(len, lines)) < 100


@pytest.mark.parametrize(
    ("gap", "text"), [(0.0, "0.00"), (1e-12, "<0.01"), (0.012345, "1.23"), (0.99999, "100.00")]
)
def test_a_gap_reads_as_zero_only_if_it_is(gap: float, text: str) -> None:
    assert str(Comparison((row("A", 2048, 8.0, gap=gap),))).split()[-7] == text
