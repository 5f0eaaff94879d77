"""Expected attention, against sums over queries and future positions."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import ExpectedAttention, LayerView, Rotation

MakeView = Callable[..., LayerView]
ROTATION = Rotation(torch.tensor([0.9, 0.31, 0.02]), scaling=1.1)
FUTURE = 7


def turning(position: int) -> Tensor:
    """Matrix that turns a vector of 8 numbers, of which 6 turn in pairs, [8, 8], float64."""
    columns = torch.eye(8)
    return ROTATION.apply(columns, torch.full((8,), position)).T.double()


def moments(view: LayerView, row: int, head: int, start: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a query head's unrotated queries behind the first four tokens."""
    unrotated = [
        torch.linalg.solve(turning(column), view.queries[row, head, index].double())
        for index, column in enumerate(view.query_positions.tolist())
        if column >= start + 4
    ]
    if not unrotated:
        return torch.zeros(8).double(), torch.zeros(8, 8).double()
    queries = torch.stack(unrotated)
    return queries.mean(dim=0), torch.cov(queries.T, correction=0)


def naive_scores(view: LayerView, row: int, kv_head: int, settings: ExpectedAttention) -> Tensor:
    """Scores of the held tokens behind the first four, each sum written out, float64."""
    held = view.valid[row, kv_head]
    start = view.positions[row, kv_head, held][0].item()
    newest = view.query_positions[-1].item()
    mean_turn = torch.stack([turning(newest + 1 + i) for i in range(FUTURE)]).mean(dim=0)
    keys = view.keys[row, kv_head, held][4:].double()
    norms = view.values[row, kv_head, held][4:].double().norm(dim=-1)
    shares = []
    for head in range(kv_head * view.group, (kv_head + 1) * view.group):
        mean, covariance = moments(view, row, head, start)
        mean, covariance = mean_turn @ mean, mean_turn @ covariance @ mean_turn.T
        logits = view.scaling * keys @ mean
        if settings.covariance:
            logits += view.scaling**2 / 2 * torch.stack([key @ covariance @ key for key in keys])
        weights = logits.exp()
        sink = 0.0 if view.sinks is None else view.sinks[head].double().exp()
        shares.append(weights / (weights.sum() + sink))
    return (torch.stack(shares).mean(dim=0) + settings.epsilon) * norms


@pytest.mark.parametrize(
    "settings",
    [
        ExpectedAttention(future=FUTURE),
        ExpectedAttention(future=FUTURE, covariance=False, epsilon=0.02),
    ],
)
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ragged": True},
        {"new": 5, "padding": (0, 0)},
        {"new": 2, "padding": (0, 9)},
        {"sinks": True},
    ],
)
def test_scores_equal_expected_weights_written_out(
    settings: ExpectedAttention, fields: dict[str, object], make_view: MakeView
) -> None:
    view = make_view(tokens=16, seed=3, rotation=ROTATION, **fields)
    scores = settings.score(view)
    for row in range(2):
        for kv_head in range(2):
            found = scores[row, kv_head, view.valid[row, kv_head]]
            wanted = naive_scores(view, row, kv_head, settings)
            torch.testing.assert_close(found[4:].double(), wanted, rtol=1e-4, atol=1e-5)
            assert found[:4].min() > found[4:].max()


def test_with_the_covariance_weights_are_the_mean_over_normal_queries(
    make_view: MakeView,
) -> None:
    view = replace(make_view(tokens=40, padding=(0, 0), group=1, head_dim=4), scaling=0.2)
    shares = ExpectedAttention().score(view) / view.values.norm(dim=-1)
    queries, keys = view.queries[0, 0, 4:].double(), view.keys[0, 0, 4:].double()
    centre, spread = queries.mean(dim=0), torch.cov(queries.T, correction=0)
    drawn = torch.distributions.MultivariateNormal(centre, spread).sample((400_000,))
    weights = (drawn @ keys.T * view.scaling).exp().mean(dim=0)
    torch.testing.assert_close(
        shares[0, 0, 4:].double(), weights / weights.sum(), rtol=0.1, atol=1e-3
    )


def test_the_mean_of_a_rotation_is_the_mean_of_what_it_does() -> None:
    vectors, positions = torch.randn(3, 8), torch.arange(40, 60)
    each = ROTATION.apply(vectors.unsqueeze(1).expand(3, 20, 8), positions)
    torch.testing.assert_close(ROTATION.mean(vectors, positions), each.mean(dim=1))


def test_padding_and_where_the_text_begins_change_nothing(make_view: MakeView) -> None:
    view = make_view(tokens=20, padding=(0, 0), rotation=ROTATION)
    behind_padding = replace(
        view, positions=view.positions + 9, query_positions=view.query_positions + 9
    )
    # nine positions further, without being scaled a second time
    on = partial(Rotation(ROTATION.frequencies).apply, positions=torch.tensor(9))
    later = replace(behind_padding, keys=on(view.keys), queries=on(view.queries))
    for changed in (behind_padding, later):
        found, wanted = ExpectedAttention().score(changed), ExpectedAttention().score(view)
        torch.testing.assert_close(found, wanted)


def test_without_any_query_the_length_of_the_value_decides(make_view: MakeView) -> None:
    view = make_view(tokens=30, padding=(0, 0), new=0, rotation=ROTATION)
    scores = ExpectedAttention().score(view)[..., 4:]
    norms = view.values.norm(dim=-1)[..., 4:]
    assert torch.equal(scores.argsort(dim=-1), norms.argsort(dim=-1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"future": 0}, "`future` must be at least 1, but got future=0."),
        ({"sinks": -1}, "`sinks` must be at least 0, but got sinks=-1."),
        ({"epsilon": -0.5}, "`epsilon` must be at least 0, but got epsilon=-0.5."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        ExpectedAttention(**settings)
    assert str(error.value) == message
