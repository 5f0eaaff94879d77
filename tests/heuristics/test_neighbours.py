"""Neighbours among some of the tokens, against lists."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kvbudget.heuristics.neighbours import largest_nearby, mean_nearby, runs, spread


def drawn(seed: int, tokens: int) -> tuple[Tensor, Tensor]:
    """Mass and which tokens count; what stands at the others is NaN."""
    draw = torch.Generator().manual_seed(seed)
    among = torch.rand(2, 3, tokens, generator=draw) < 0.6
    return torch.rand(among.shape, generator=draw).masked_fill(~among, torch.nan), among


def heads(mass: Tensor, among: Tensor) -> list[tuple[int, int, list[int], list[float]]]:
    """Row, head, places that count and all mass."""
    return [
        (row, head, among[row, head].nonzero().flatten().tolist(), mass[row, head].tolist())
        for row in range(mass.shape[0])
        for head in range(mass.shape[1])
    ]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), tokens=st.integers(1, 15), reach=st.integers(0, 4))
def test_the_largest_nearby_is_looked_for_among_those_that_count(
    seed: int, tokens: int, reach: int
) -> None:
    mass, among = drawn(seed, tokens)
    found = largest_nearby(mass, among, 2 * reach + 1)
    for row, head, places, values in heads(mass, among):
        for i, place in enumerate(places):
            near = places[max(0, i - reach) : i + reach + 1]
            assert found[row, head, place].item() == max(values[other] for other in near)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), tokens=st.integers(1, 15), reach=st.integers(0, 4))
def test_the_mean_nearby_counts_missing_neighbours_as_nothing(
    seed: int, tokens: int, reach: int
) -> None:
    mass, among = drawn(seed, tokens)
    found = mean_nearby(mass, among, 2 * reach + 1)
    for row, head, places, values in heads(mass, among):
        for i, place in enumerate(places):
            near = places[max(0, i - reach) : i + reach + 1]
            wanted = sum(values[other] for other in near) / (2 * reach + 1)
            assert found[row, head, place].item() == pytest.approx(wanted, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), tokens=st.integers(1, 15), length=st.integers(1, 20))
def test_runs_are_cut_from_the_oldest_on(seed: int, tokens: int, length: int) -> None:
    mass, among = drawn(seed, tokens)
    found = runs(mass, among, length)
    assert found.shape == (2, 3, -(-tokens // length), length)
    for row, head, places, values in heads(mass, among):
        wanted = [values[place] for place in places]
        wanted += [-torch.inf] * (found[row, head].numel() - len(wanted))
        assert found[row, head].flatten().tolist() == wanted


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), tokens=st.integers(1, 15), length=st.integers(1, 20))
def test_every_token_gets_the_number_of_its_run(seed: int, tokens: int, length: int) -> None:
    mass, among = drawn(seed, tokens)
    by_run = torch.rand(2, 3, -(-tokens // length))
    found = spread(by_run, among, length)
    assert found.shape == mass.shape
    for row, head, places, _ in heads(mass, among):
        for i, place in enumerate(places):
            assert found[row, head, place] == by_run[row, head, i // length]
