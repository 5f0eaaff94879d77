"""Rotary position embedding, against complex numbers."""

import cmath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kvbudget.heuristics import Rotation


def written_out(vector: list[float], position: int, rotation: Rotation) -> list[float]:
    """Each pair is a complex number; position turns it by that many times its frequency."""
    pairs = len(rotation.frequencies)
    turned = list(vector)
    for c, frequency in enumerate(rotation.frequencies.tolist()):
        number = complex(vector[c], vector[c + pairs])
        number *= rotation.scaling * cmath.exp(1j * position * frequency)
        turned[c], turned[c + pairs] = number.real, number.imag
    return turned


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    pairs=st.integers(0, 4),
    rest=st.integers(0, 3),
    scaling=st.floats(0.5, 2.0),
)
def test_pairs_turn_as_complex_numbers_and_the_rest_stays(
    seed: int, pairs: int, rest: int, scaling: float
) -> None:
    draw = torch.Generator().manual_seed(seed)
    rotation = Rotation(torch.rand(pairs, generator=draw), scaling)
    vectors = torch.randn(3, 2 * pairs + rest, generator=draw)
    positions = torch.tensor([0, 5, 31])
    wanted = [
        written_out(vector, position, rotation)
        for vector, position in zip(vectors.tolist(), positions.tolist(), strict=True)
    ]
    found = rotation.apply(vectors, positions)
    torch.testing.assert_close(found, torch.tensor(wanted).view_as(found), rtol=1e-5, atol=1e-5)


def test_undoing_gives_the_vectors_back() -> None:
    rotation = Rotation(torch.tensor([1.0, 0.01]), scaling=1.3)
    vectors, positions = torch.randn(2, 3, 7, 6), torch.randint(0, 500, (2, 3, 7))
    back = rotation.undo(rotation.apply(vectors, positions), positions)
    torch.testing.assert_close(back, vectors, rtol=1e-4, atol=1e-4)


def test_products_depend_on_the_distance_alone() -> None:
    rotation = Rotation(torch.tensor([1.0, 0.3, 0.02]))
    query, key = torch.randn(2, 1, 6)
    products = [
        (rotation.apply(query, torch.tensor([at])) * rotation.apply(key, torch.tensor([at - 7])))
        .sum()
        .item()
        for at in (7, 20, 90)
    ]
    assert products == pytest.approx([products[0]] * 3, abs=1e-4)
