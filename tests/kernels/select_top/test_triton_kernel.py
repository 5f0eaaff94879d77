"""The Triton selection against the reference, on a GPU or in the interpreter."""

from __future__ import annotations

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = "cpu"
elif torch.cuda.is_available():
    DEVICE = "cuda"
else:
    pytest.skip("no GPU; test_interpreter.py runs this file", allow_module_level=True)

pytest.importorskip("triton", reason="triton is not installed (it is made for Linux only)")

from kvbudget.kernels.launches import Launch, Program, using
from kvbudget.kernels.select_top import reference, triton_kernel

INFINITY = float("inf")


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """What is allocated holds 77 until it is written."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **options: empty(*a, **options).fill_(77))


@pytest.fixture(autouse=True)
def small_tiles():
    """Several tiles per row already at small sizes."""
    with using({Program.SELECT: Launch(tokens=32)}):
        yield


def assert_equals_reference(scores, counts):
    got = triton_kernel.select_top(scores.to(DEVICE), counts.to(DEVICE))
    assert got.dtype == torch.bool
    assert got.is_contiguous()
    assert torch.equal(got.cpu(), reference.select_top(scores, counts))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("tokens", [1, 31, 32, 33, 100])
def test_every_count_equals_the_reference(tokens):
    counts = torch.tensor([0, 1, tokens // 3, tokens - 1, tokens, tokens + 1, 2**40])
    assert_equals_reference(normal(7, tokens, seed=tokens), counts)


@pytest.mark.parametrize("scale", [0.5, 1.0, 3.0])
def test_ties_across_tiles_go_to_the_first(scale):
    scores = normal(6, 110).mul(scale).round()
    assert_equals_reference(scores, torch.tensor([1, 20, 40, 60, 80, 109]))
    assert_equals_reference(torch.zeros(6, 110), torch.tensor([1, 20, 40, 60, 80, 109]))


def test_scores_that_differ_in_one_byte_only_are_told_apart():
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    for shift in (0, 8, 16, 24):
        scores = (order << shift).sub(2**31).int()[None]
        assert_equals_reference(scores, torch.tensor([100]))


def test_whole_numbers_of_any_size_equal_the_reference():
    random = torch.Generator().manual_seed(2)
    scores = torch.randint(-(2**31), 2**31, (4, 90), generator=random).int()
    scores[:, ::7], scores[:, 3::11] = -(2**31), 2**31 - 1
    assert_equals_reference(scores, torch.tensor([3, 30, 80, 89]))


def test_zeros_of_either_sign_and_infinities_equal_the_reference():
    values = torch.tensor([0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, INFINITY, -INFINITY, 1.0])
    chosen = torch.randint(0, len(values), (5, 70), generator=torch.Generator().manual_seed(3))
    assert_equals_reference(values[chosen], torch.tensor([5, 20, 35, 50, 68]))
    zeros = torch.tensor([[0.0, -0.0]]).repeat(2, 30)
    assert_equals_reference(zeros, torch.tensor([7, 40]))
    assert_equals_reference(-zeros, torch.tensor([7, 40]))
    assert_equals_reference(torch.full((2, 40), -INFINITY), torch.tensor([9, 0]))


def test_scores_may_have_any_strides():
    assert_equals_reference(normal(60, 3).T, torch.tensor([1, 30, 59]))
    assert_equals_reference(normal(4, 90)[::2, ::2], torch.tensor([10, 44]))
    assert_equals_reference(normal(3, 50), torch.tensor([[5, 9], [6, 9], [7, 9]])[:, 0])


def test_real_tiles_equal_the_reference():
    with using({Program.SELECT: Launch(tokens=4096, warps=8)}):
        assert_equals_reference(normal(2, 5000), torch.tensor([1234, 4999]))


@pytest.mark.parametrize("shape", [(0, 7), (3, 0)])
def test_nothing_to_select_from_is_served(shape):
    assert_equals_reference(torch.zeros(shape), torch.ones(shape[0], dtype=torch.int64))
