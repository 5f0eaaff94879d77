"""Attention minus redundancy."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import RKV, LayerView
from kvbudget.heuristics.tokens import r_kv

MakeView = Callable[..., LayerView]
WINDOW, KERNEL = 3, 5


def naive_importance(view: LayerView, row: int, head: int, held: list[int]) -> Tensor:
    """Pooled attention to the tokens before the window, in their order, float64."""
    old = held[:-WINDOW]
    keys = view.keys[row, head].double()
    rows = []
    for index in range(max(0, view.new - WINDOW), view.new):
        at = view.query_positions[index]
        queries = view.queries[row, head * view.group : (head + 1) * view.group, index].double()
        seen = [
            i
            for i, place in enumerate(old)
            if view.positions[row, head, place] <= at
            and (view.window is None or view.positions[row, head, place] > at - view.window)
        ]
        if not seen:
            continue
        logits = queries @ keys[[old[i] for i in seen]].T * view.scaling
        if view.softcap is not None:
            logits = view.softcap * torch.tanh(logits / view.softcap)
        mass = torch.zeros(len(old), dtype=torch.float64)
        mass[seen] = logits.max(dim=0).values.softmax(dim=0)
        rows.append(mass)
    if not rows:
        return torch.zeros(len(old), dtype=torch.float64)
    mass = torch.stack(rows).mean(dim=0)
    reach = KERNEL // 2
    return torch.stack([mass[max(0, i - reach) : i + reach + 1].max() for i in range(len(old))])


def naive_redundancy(keys: Tensor, similar: float) -> Tensor:
    """Softmax of the mean of a matrix of cosines with holes, float64."""
    directions = keys.double() / keys.double().norm(dim=-1, keepdim=True)
    cosines = (directions @ directions.T).fill_diagonal_(0.0)
    for token in range(len(keys)):
        alike = (cosines[token] > similar).nonzero().flatten()
        if len(alike):
            cosines[token, alike[-1]] = 0.0
    return cosines.mean(dim=0).softmax(dim=0)


@pytest.mark.parametrize(
    "fields",
    [{}, {"ragged": True}, {"new": 2}, {"new": 0}, {"window": 6}, {"softcap": 1.5}],
)
@pytest.mark.parametrize("similar", [0.3, 0.9])
def test_scores_equal_attention_and_a_matrix_of_cosines(
    fields: dict[str, object],
    similar: float,
    make_view: MakeView,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(r_kv, "ROWS_PER_CHUNK", 7)
    view = make_view(tokens=24, head_dim=4, seed=8, **fields)
    scores = RKV(WINDOW, KERNEL, attention=0.2, similar=similar).score(view)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head].nonzero().flatten().tolist()
            redundancy = naive_redundancy(view.keys[row, head, held], similar)
            importance = naive_importance(view, row, head, held)
            wanted = 0.2 * importance - 0.8 * redundancy[:-WINDOW]
            found = scores[row, head, held].double()
            torch.testing.assert_close(found[:-WINDOW], wanted, rtol=1e-4, atol=1e-6)
            assert found.argsort(descending=True)[:WINDOW].tolist() == [
                len(held) - 1 - i for i in range(WINDOW)
            ]


def test_of_many_repetitions_the_last_survives(make_view: MakeView) -> None:
    view = make_view(tokens=60, padding=(0, 0), head_dim=32, new=0)
    view.keys[:, :, [5, 20, 31]] = view.keys[:, :, 40:41]
    scores = RKV().score(view)
    earlier, last = scores[:, :, [5, 20, 31]], scores[:, :, 40:41]
    assert (earlier < last).all()
    assert (earlier < scores[:, :, 6:20].median(dim=-1, keepdim=True).values).all()


def test_the_weight_of_attention_goes_from_none_to_all(make_view: MakeView) -> None:
    view = make_view(tokens=40, padding=(0, 0))
    none, some, most = (RKV(attention=share).score(view)[..., :-8] for share in (0.0, 0.3, 1.0))
    torch.testing.assert_close(some, 0.7 * none + 0.3 * most)
    assert (none < 0).all()
    assert (most >= 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": 0}, "`window` must be at least 1, but got window=0."),
        ({"kernel": 6}, "`kernel` must be odd and at least 1, but got kernel=6."),
        ({"attention": 1.1}, "`attention` must be between 0 and 1, but got attention=1.1."),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        RKV(**settings)
    assert str(error.value) == message
