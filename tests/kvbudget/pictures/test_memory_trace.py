"""Memory over a generation, with the budget drawn in."""

import numpy as np
import pytest

from kvbudget.pictures import MemoryTrace, draw_memory

MIB = 2**20
FULL = MemoryTrace("full cache", (10, 11, 12), (3 * MIB, 4 * MIB, 5 * MIB))
HALF = MemoryTrace("half", (10, 11, 12), (2 * MIB,) * 3, 2 * MIB + 7)


def lines(picture):
    (axes,) = picture.figure.axes
    return {line.get_label(): line for line in axes.get_lines()}


def test_each_line_is_its_trace_in_the_unit_of_the_axis():
    picture = draw_memory([FULL, HALF])
    (axes,) = picture.figure.axes
    assert axes.get_ylabel() == "memory held (MiB)"
    for trace in (FULL, HALF):
        x, y = lines(picture)[trace.name].get_data()
        assert tuple(x) == trace.tokens
        assert (np.array(y) * MIB).tolist() == list(trace.held_bytes)


def test_the_budget_is_a_dashed_line_over_the_others():
    picture = draw_memory([FULL, HALF])
    others = [line for name, line in lines(picture).items() if name not in ("full cache", "half")]
    (budget,) = others
    assert set(budget.get_ydata()) == {(2 * MIB + 7) / MIB}
    assert budget.is_dashed()
    assert budget.get_zorder() > lines(picture)["half"].get_zorder()


def test_lines_are_told_apart_without_colour():
    traces = [MemoryTrace(f"{n}", (1, 2), (n, n)) for n in range(1, 9)]
    marks = {line.get_marker() for line in lines(draw_memory(traces)).values()}
    assert len(marks) == 8


def test_a_single_step_is_seen(seen):
    one, none = (draw_memory(MemoryTrace("a", (5,), (held,))) for held in (100, 100))
    none.figure.axes[0].get_lines()[0].set_visible(False)
    assert (seen(one) != seen(none)).sum() > 20


@pytest.mark.parametrize("budgets", [(1, 2), (100, 101), (100, 101, 102, 900)])
def test_no_text_lies_over_another(budgets, texts_that_touch):
    traces = [MemoryTrace(f"trace {n}", (1, 900), (n, n), n) for n in budgets]
    assert texts_that_touch(draw_memory(traces)) == []


def test_the_words_say_what_was_held_and_allowed():
    words = str(draw_memory([FULL, HALF]))
    assert "from 10 to 12 tokens" in words
    assert "full cache 3.0 MiB at first, 5.0 MiB at last" in words
    assert "half 2.0 MiB throughout, where 2.0 MiB is allowed" in words


def test_a_peak_between_the_ends_is_told():
    assert "9.0 MiB at most" in str(draw_memory(MemoryTrace("a", (1, 2, 3), (MIB, 9 * MIB, MIB))))


@pytest.mark.parametrize(
    ("tokens", "held", "said"),
    [((1, 2), (3,), "one entry per step"), ((2, 2), (3, 3), "must rise"), ((), (), "empty axis")],
)
def test_what_is_no_trace_is_refused(tokens, held, said):
    with pytest.raises(ValueError, match=said):
        MemoryTrace("a", tokens, held)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="at least one trace"):
        draw_memory([])
