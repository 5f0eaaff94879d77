"""Leverage, against the hat matrix of ridge regression."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import LayerView, Leverage, Rotation

MakeView = Callable[..., LayerView]
ROTATION = Rotation(torch.tensor([0.9, 0.31, 0.02]))


def hat_diagonal(keys: Tensor, ridge: float) -> Tensor:
    """Diagonal of X (X'X + ridge I)^-1 X' with X the centred keys, float64."""
    rows = keys.double() - keys.double().mean(dim=0)
    gram = rows.T @ rows + ridge * torch.eye(rows.shape[1])
    return (rows @ torch.linalg.inv(gram) @ rows.T).diagonal()


@pytest.mark.parametrize("ridge", [0.01, 3.0])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("sketch", [48, 5])
def test_scores_equal_the_diagonal_of_the_hat_matrix(
    ridge: float, ragged: bool, sketch: int, make_view: MakeView
) -> None:
    view = make_view(tokens=30, ragged=ragged)
    directions = torch.eye(8)
    if sketch == 5:
        draw = torch.Generator().manual_seed(7)
        directions = torch.randn(8, 5, generator=draw) / 5**0.5
    scores = Leverage(sketch, ridge, seed=7).score(view)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head]
            wanted = hat_diagonal(view.keys[row, head, held] @ directions, ridge)
            torch.testing.assert_close(scores[row, head, held].double(), wanted, rtol=0, atol=1e-5)


def test_rotated_keys_score_as_before_their_rotation(make_view: MakeView) -> None:
    view = make_view(tokens=30, padding=(0, 0))
    turned = replace(view, keys=ROTATION.apply(view.keys, view.positions), rotation=ROTATION)
    torch.testing.assert_close(Leverage().score(turned), Leverage().score(view))


def test_a_sketch_does_not_notice_padding(make_view: MakeView) -> None:
    view = make_view(tokens=30, padding=(0, 0), rotation=ROTATION)
    behind_padding = replace(view, positions=view.positions + 11)
    heuristic = Leverage(sketch=4)
    torch.testing.assert_close(heuristic.score(behind_padding), heuristic.score(view))


def test_the_only_key_in_its_direction_scores_one_and_copies_share(make_view: MakeView) -> None:
    view = make_view(tokens=40, padding=(0, 0))
    view.keys[..., 5] = 0.0
    view.keys[:, :, 7, 5] = 50.0
    view.keys[:, :, 20:40] = view.keys[:, :, 20:21]
    scores = Leverage().score(view)
    assert (scores[:, :, 7] > 0.95).all()
    assert (scores[:, :, 20:] < 0.05).all()
    assert (scores.sum(dim=-1) <= 8).all()


def test_long_keys_on_a_line_do_not_break_it(make_view: MakeView) -> None:
    view = make_view(tokens=2000, padding=(0, 0), head_dim=8)
    line = torch.randn(8)
    view.keys[:] = 300 * torch.randn(2, 2, 2000, 1) * line + 1e-3 * torch.randn(2, 2, 2000, 8)
    scores = Leverage().score(view)
    assert scores.isfinite().all()
    assert (scores >= 0).all()
    assert (scores <= 1 + 1e-5).all()


def test_another_seed_draws_another_sketch_and_the_same_seed_the_same(
    make_view: MakeView,
) -> None:
    view = make_view(tokens=30)
    first, again, other = (Leverage(4, seed=seed).score(view) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sketch": 0}, "`sketch` must be at least 1, but got sketch=0."),
        ({"ridge": 0.0}, "`ridge` must be above 0, but got ridge=0.0."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Leverage(**settings)
    assert str(error.value) == message
