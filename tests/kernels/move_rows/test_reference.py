"""Moving of rows: against one row at a time."""

import pytest
import torch

from kvbudget.kernels import move_rows
from kvbudget.kernels.move_rows import reference


def assert_moves(keys, values, sources, targets):
    wanted = keys.clone(), values.clone()
    for source, target in zip(sources.tolist(), targets.tolist(), strict=True):
        for storage in wanted:
            storage[target] = storage[source].clone()
    pointers = keys.data_ptr(), values.data_ptr()
    move_rows(keys, values, sources, targets)
    assert torch.equal(keys, wanted[0])
    assert torch.equal(values, wanted[1])
    assert pointers == (keys.data_ptr(), values.data_ptr())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("moved", [0, 1, 9, 20])
def test_every_source_lands_on_its_target(moved, dtype):
    places = torch.randperm(41, generator=torch.Generator().manual_seed(moved))
    keys, values = torch.randn(41, 6).to(dtype), torch.randn(41, 3).to(dtype)
    assert_moves(keys, values, places[:moved], places[moved : 2 * moved])


def test_a_row_may_go_to_several_places():
    keys, values = torch.randn(9, 6), torch.randn(9, 3)
    assert_moves(keys, values, torch.tensor([8, 8, 2]), torch.tensor([0, 5, 1]))


def test_more_rows_than_are_copied_at_a_time_are_moved(monkeypatch):
    monkeypatch.setattr(reference, "_PART_ROWS", 4)
    places = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    assert_moves(torch.randn(60, 6), torch.randn(60, 3), places[:30], places[30:])


def test_rows_of_a_larger_storage_are_moved_in_place():
    storage = torch.randn(30, 6)
    before = storage.clone()
    move_rows(storage[10:20], torch.zeros(10, 3), torch.tensor([0]), torch.tensor([9]))
    before[19] = before[10]
    assert torch.equal(storage, before)


def arguments(**others):
    given = {
        "keys": torch.zeros(6, 4),
        "values": torch.zeros(6, 5),
        "sources": torch.tensor([0]),
        "targets": torch.tensor([3]),
    }
    return given | others


@pytest.mark.parametrize(
    ("others", "error", "message"),
    [
        ({"keys": torch.zeros(1, 6, 4)}, ValueError, r"\[rows, head_dim\]"),
        ({"values": torch.zeros(5, 4)}, ValueError, r"\(6, 4\) and \(5, 4\)"),
        ({"keys": torch.zeros(4, 6).T}, ValueError, "contiguous"),
        ({"values": torch.zeros(6, 8)[:, :5]}, ValueError, "contiguous"),
        ({"sources": torch.tensor([0, 1])}, ValueError, r"\(2,\) and \(1,\)"),
        ({"sources": torch.tensor([0]).int()}, TypeError, "torch.int32 and torch.int64"),
        ({"targets": torch.tensor([0]).int()}, TypeError, "torch.int64 and torch.int32"),
        ({"targets": torch.zeros(1, device="meta").long()}, TypeError, "one device"),
    ],
)
def test_wrong_arguments_are_refused_by_name(others, error, message):
    with pytest.raises(error, match=message):
        move_rows(**arguments(**others))
