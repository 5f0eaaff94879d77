"""What a heuristic's answer must fulfil, and what is said if it does not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from kvbudget.heuristics import (
    CacheHeuristic,
    CacheView,
    LayerView,
    RunningHeuristic,
    TokenHeuristic,
    check_kind,
    checked_importance,
    checked_scores,
    observed,
)


@dataclass(frozen=True)
class Answers(TokenHeuristic):
    answer: Any

    def score(self, view: LayerView) -> Tensor:
        return self.answer  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Remembers(RunningHeuristic):
    channels = 2
    answer: Any

    def observe(self, view: LayerView) -> Tensor:
        return self.answer  # type: ignore[no-any-return]

    def score(self, view: LayerView) -> Tensor:
        return view.known_state(self.channels).sum(dim=-1)


@dataclass(frozen=True)
class Weighs(CacheHeuristic):
    answer: Any

    def importance(self, view: CacheView) -> Tensor:
        return self.answer  # type: ignore[no-any-return]


@pytest.fixture
def view(make_view: Callable[..., LayerView]) -> LayerView:
    return make_view(batch=1, kv_heads=4, tokens=96, padding=(2,))


@pytest.fixture
def cache_view(make_cache_view: Callable[..., CacheView]) -> CacheView:
    return make_cache_view(kv_heads=4)


@pytest.mark.parametrize(
    ("wrong", "kind", "remedy"),
    [
        (Answers(0), CacheHeuristic, "Baklava"),
        (Weighs, CacheHeuristic, "Baklava"),
        (Weighs(0), TokenHeuristic, "ObservationWindow"),
        ("key_norm", TokenHeuristic, "ObservationWindow"),
    ],
)
def test_the_other_kind_is_refused_and_the_right_one_named(
    wrong: object, kind: type, remedy: str
) -> None:
    message = rf"instance of a {kind.__name__}, .*, such as heuristics\.{remedy}\(\)\."
    with pytest.raises(TypeError, match=message):
        check_kind(wrong, kind)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_scores_become_float32(dtype: torch.dtype, view: LayerView) -> None:
    scores = checked_scores(Answers(torch.ones(1, 4, 96, dtype=dtype)), view)
    assert scores.dtype == torch.float32
    assert (scores[view.valid] == 1).all()


def test_nan_at_invalid_places_is_replaced_by_the_lowest_number(view: LayerView) -> None:
    answer = torch.zeros(1, 4, 96).masked_fill(~view.valid, torch.nan)
    scores = checked_scores(Answers(answer), view)
    assert (scores[~view.valid] == torch.finfo(torch.float32).min).all()
    assert (scores[view.valid] == 0).all()
    assert answer.isnan().any()


def test_a_wrong_shape_is_refused_by_name(view: LayerView) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        checked_scores(Answers(torch.ones(1, 96)), view)
    assert str(error.value) == (
        "`score` of Answers must return [1, 4, 96], but got [1, 96]. "
        "Return one number per sequence, KV head and token."
    )


def test_a_score_that_is_not_finite_is_refused_with_its_place(view: LayerView) -> None:
    answer = torch.zeros(1, 4, 96)
    answer[0, 3, 7] = torch.inf
    with pytest.raises(ValueError, match="got inf at sequence 0, KV head 3, place 7"):
        checked_scores(Answers(answer), view)


def test_a_float64_score_too_large_for_float32_is_refused(view: LayerView) -> None:
    with pytest.raises(ValueError, match="must be finite, but got inf"):
        checked_scores(Answers(torch.full((1, 4, 96), 1e300, dtype=torch.float64)), view)


@pytest.mark.parametrize("answer", [torch.ones(1, 4, 96).long(), torch.ones(1, 4, 96).bool()])
def test_whole_numbers_are_refused(answer: Tensor, view: LayerView) -> None:
    with pytest.raises(TypeError, match=r"must return floating numbers, but got torch\.(int|bool)"):
        checked_scores(Answers(answer), view)


def test_something_that_is_no_tensor_is_refused(view: LayerView) -> None:
    with pytest.raises(TypeError, match=r"must return a torch\.Tensor, but got NoneType"):
        checked_scores(Answers(None), view)


def test_a_heuristic_without_a_memory_is_shown_nothing(view: LayerView) -> None:
    assert observed(Answers(None), view) is view


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_new_state_is_float32_and_0_at_empty_places(
    dtype: torch.dtype, view: LayerView
) -> None:
    answer = torch.full((1, 4, 96, 2), 3.0, dtype=dtype)
    answer[~view.valid] = torch.nan
    shown = observed(Remembers(answer), view)
    assert view.state is None
    assert shown.state is not None
    assert shown.state.dtype == torch.float32
    assert (shown.state[view.valid] == 3).all()
    assert (shown.state[~view.valid] == 0).all()
    assert shown.queries is view.queries
    assert answer.isnan().any()


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (None, TypeError, "`observe` of Remembers must return a torch.Tensor, but got NoneType"),
        (torch.ones(1, 4, 96, 2).long(), TypeError, "must return floating numbers, but got"),
        (torch.ones(1, 4, 96), ValueError, r"must return \[1, 4, 96, 2\], but got \[1, 4, 96\]"),
        (torch.ones(1, 4, 96, 3), ValueError, r"must return \[1, 4, 96, 2\], but got .*channel"),
        (
            torch.ones(1, 4, 96, 2).index_fill(2, torch.tensor([7]), torch.nan),
            ValueError,
            "`observe` of Remembers must be finite, but got nan at sequence 0, KV head 0, place 7, "
            "channel 0",
        ),
    ],
)
def test_a_wrong_state_is_refused(
    answer: object, kind: type[Exception], message: str, view: LayerView
) -> None:
    with pytest.raises(kind, match=message):
        observed(Remembers(answer), view)


def test_importance_becomes_float32(cache_view: CacheView) -> None:
    found = checked_importance(Weighs(torch.arange(4).double()), cache_view)
    assert found.dtype == torch.float32
    assert found.tolist() == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.ones(8), r"`importance` of Weighs must return \[4\], but got \[8\]. Return one"),
        (torch.tensor([1.0, torch.nan, 1.0, 1.0]), "must be finite, but got nan at KV head 1"),
        (torch.tensor([1.0, 1.0, 1.0, -2.0]), "must never be negative, but got -2"),
    ],
)
def test_a_wrong_importance_is_refused(answer: Tensor, message: str, cache_view: CacheView) -> None:
    with pytest.raises(ValueError, match=message):
        checked_importance(Weighs(answer), cache_view)
