"""Keys that differ from the mean direction."""

from collections.abc import Callable

import pytest
import torch
from torch.nn.functional import cosine_similarity

from kvbudget.heuristics import KeyDiff, LayerView

MakeView = Callable[..., LayerView]


@pytest.mark.parametrize("ragged", [False, True])
def test_scores_are_minus_the_cosine_to_the_mean_direction_of_the_held_keys(
    ragged: bool, make_view: MakeView
) -> None:
    view = make_view(ragged=ragged, tokens=20)
    scores = KeyDiff().score(view)
    for row in range(2):
        for head in range(2):
            held = view.valid[row, head]
            keys = view.keys[row, head, held].double()
            anchor = torch.stack([key / key.norm() for key in keys]).mean(dim=0)
            wanted = -cosine_similarity(keys, anchor.expand_as(keys))
            torch.testing.assert_close(scores[row, head, held].double(), wanted, rtol=0, atol=1e-6)


def test_a_long_key_does_not_pull_the_mean_towards_itself(make_view: MakeView) -> None:
    view = make_view(tokens=5, head_dim=2, padding=(0, 0))
    view.keys[0, 0] = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, -0.1], [1.0, 0.2], [0.0, 99.0]])
    scores = KeyDiff().score(view)[0, 0]
    assert scores.argmax() == 4


def test_keys_of_no_length_do_not_matter(make_view: MakeView) -> None:
    view = make_view(tokens=6, padding=(0, 0))
    view.keys[0, 0] = 0.0
    assert KeyDiff().score(view)[0, 0].tolist() == [0.0] * 6
