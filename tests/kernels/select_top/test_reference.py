"""Selection of the largest: against sorting by hand, and for every size."""

import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.kernels import select_top

INFINITY = float("inf")
FLOATS = [0.0, -0.0, 1.0, -1.0, 1e-45, -1e-45, 3.4e38, -3.4e38, INFINITY, -INFINITY]
INTEGERS = [0, 1, -1, 2**31 - 1, -(2**31)]


@st.composite
def scored(draw: st.DrawFn) -> torch.Tensor:
    """Two rows with many ties, of either dtype."""
    tokens = draw(st.integers(1, 40))
    numbers, dtype = draw(st.sampled_from([(FLOATS, torch.float32), (INTEGERS, torch.int32)]))
    row = st.lists(st.sampled_from(numbers), min_size=tokens, max_size=tokens)
    return torch.tensor([draw(row), draw(row)], dtype=dtype)


def first_of_sorted(row: torch.Tensor, count: int) -> set[int]:
    numbers = row.tolist()
    return set(sorted(range(len(row)), key=lambda i: (-numbers[i], i))[: max(0, count)])


@settings(deadline=None)
@given(scored(), st.integers(0, 45), st.integers(0, 45))
def test_the_largest_are_marked_and_of_equal_ones_the_first(scores, one, other):
    marks = select_top(scores, torch.tensor([one, other]))
    assert marks.dtype == torch.bool
    assert marks.is_contiguous()
    for row, count in enumerate((one, other)):
        assert set(marks[row].nonzero().flatten().tolist()) == first_of_sorted(scores[row], count)


@pytest.mark.parametrize("count", [0, 1, 5, 9, 10, 11])
def test_scores_may_have_any_strides(count):
    scores = torch.randn(10, 3).round().T
    marks = select_top(scores, torch.full((3,), count))
    assert torch.equal(marks, select_top(scores.contiguous(), torch.full((3,), count)))
    assert marks.sum(1).tolist() == [min(count, 10)] * 3


@pytest.mark.parametrize("shape", [(0, 7), (3, 0), (0, 0)])
def test_nothing_to_select_from_is_served(shape):
    marks = select_top(torch.zeros(shape), torch.ones(shape[0], dtype=torch.int64))
    assert marks.shape == shape
    assert marks.dtype == torch.bool


def test_the_scores_stay_as_they_are():
    scores = torch.tensor([[-0.0, 2.0, 1.0]])
    select_top(scores, torch.tensor([2]))
    assert torch.equal(scores.view(torch.int32), torch.tensor([[-0.0, 2.0, 1.0]]).view(torch.int32))


def test_rows_in_the_order_of_their_worth_take_no_longer_than_others():
    """Quick selection by one pivot is quadratic there: some hundred times as long."""
    shuffled = torch.randn(60_000)
    rising = shuffled.sort().values
    # as protected tokens come: the first ones above all others, the newest above those before
    protected = torch.cat([torch.tensor([99.0, 98.0, 97.0, 96.0]), rising, rising[:16] + 50])
    spent = []
    for scores in (shuffled, rising, rising.flip(0), protected):
        before = time.process_time()
        for count in (15_000, 45_000):
            select_top(scores[None], torch.tensor([count]))
        spent.append(time.process_time() - before)
    assert max(spent[1:]) < 20 * spent[0] + 0.05


@pytest.mark.parametrize(
    ("scores", "counts", "error", "message"),
    [
        (torch.zeros(4), torch.zeros(4).long(), ValueError, r"\[rows, tokens\]"),
        (torch.zeros(4, 2), torch.zeros(2).long(), ValueError, r"\(4, 2\) and \(2,\)"),
        (torch.zeros(4, 2).double(), torch.zeros(4).long(), TypeError, "float64"),
        (torch.zeros(4, 2), torch.zeros(4).int(), TypeError, "int64, but got torch.int32"),
        (torch.zeros(4, 2), torch.zeros(4, device="meta").long(), TypeError, "meta"),
    ],
)
def test_wrong_arguments_are_refused_by_name(scores, counts, error, message):
    with pytest.raises(error, match=message):
        select_top(scores, counts)
