"""Names of heuristics, and heuristics of one's own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

import pytest
import torch
from torch import Tensor

from kvbudget import heuristics
from kvbudget.heuristics import (
    Baklava,
    CacheHeuristic,
    LayerView,
    ObservationWindow,
    Reduction,
    TokenHeuristic,
    checked_scores,
    register,
    registration_scope,
    settings_of,
)


@pytest.fixture(autouse=True)
def _scope() -> Iterator[None]:
    with registration_scope():
        yield


def test_a_heuristic_of_ones_own_takes_under_ten_lines(
    make_view: Callable[..., LayerView],
) -> None:
    @register("worth")
    @dataclass(frozen=True, slots=True)
    class Worth(TokenHeuristic):
        order: float = 1.0

        def score(self, view: LayerView) -> Tensor:
            size: Tensor = torch.linalg.vector_norm(view.values, self.order, dim=-1)
            return view.recent_attention(8) * size

    view = make_view()
    mine = heuristics.build("worth", (("order", 2),))
    assert mine == Worth(2.0)
    assert "worth" in heuristics.names()
    assert checked_scores(mine, view).shape == (2, 2, 12)
    assert heuristics.name_of(mine) == "worth"


def test_a_heuristic_without_settings_needs_no_dataclass(
    make_view: Callable[..., LayerView],
) -> None:
    @register("by_column")
    class ByColumn(TokenHeuristic):
        def score(self, view: LayerView) -> Tensor:
            return view.positions.float()

    mine = heuristics.build("by_column")
    assert isinstance(mine, ByColumn)
    assert settings_of(mine) == ()
    assert checked_scores(mine, make_view())[0, 0].argmax() == 11


def test_what_is_registered_in_a_scope_is_forgotten_after_it() -> None:
    before = heuristics.names()

    class Mine(TokenHeuristic):
        def score(self, view: LayerView) -> Tensor:
            return view.positions.float()

    def fail_inside_a_scope() -> None:
        with registration_scope():
            register("mine")(Mine)
            assert heuristics.get("mine") is Mine
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        fail_inside_a_scope()
    assert heuristics.names() == before
    with pytest.raises(ValueError, match="must be of a registered class"):
        heuristics.name_of(Mine())


def test_names_are_sorted_and_can_be_asked_by_kind() -> None:
    assert heuristics.names() == sorted(heuristics.names())
    tokens, caches = heuristics.names(TokenHeuristic), heuristics.names(CacheHeuristic)
    assert {"heavy_hitter", "key_norm"} <= set(tokens)
    assert "baklava" in caches
    assert sorted(tokens + caches) == heuristics.names()


def test_a_name_has_one_owner() -> None:
    with pytest.raises(ValueError, match=r"'key_norm', which belongs to .*KeyNorm\. Choose"):
        register("key_norm")(ObservationWindow)
    assert heuristics.get("key_norm") is heuristics.KeyNorm


@pytest.mark.parametrize("name", ["", "Key", "key-norm", "1st", "key norm", "key\n"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="`name` must be lower-case letters"):
        register(name)


@pytest.mark.parametrize("thing", [int, "key_norm", ObservationWindow(), len])
def test_what_is_no_heuristic_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match="subclass of TokenHeuristic or CacheHeuristic, but got"):
        register("thing")(thing)  # type: ignore[type-var]


def test_an_abstract_class_is_refused() -> None:
    class Half(TokenHeuristic):
        pass

    with pytest.raises(
        TypeError, match="`Half` must define every abstract method, but lacks score"
    ):
        register("half")(Half)


def test_a_class_that_needs_arguments_is_refused() -> None:
    @dataclass(frozen=True)
    class Needy(TokenHeuristic):
        share: float

        def score(self, view: LayerView) -> Tensor:
            return torch.full(view.valid.shape, self.share)

    with pytest.raises(TypeError, match="`Needy` must work without arguments, but needs share"):
        register("needy")(Needy)


def test_settings_that_would_be_lost_are_refused() -> None:
    class Plain(TokenHeuristic):
        def __init__(self, window: int = 8) -> None:
            self.window = window

        def score(self, view: LayerView) -> Tensor:
            return view.recent_attention(self.window)

    class Child(ObservationWindow):
        def __init__(self, window: int = 8, power: float = 2.0) -> None:
            super().__init__(window)

    with pytest.raises(
        TypeError, match=r"`Plain` must hold its settings in fields.* takes window\. Make it a fro"
    ):
        register("plain")(Plain)
    with pytest.raises(TypeError, match=r"`Child` must hold .* but takes power\."):
        register("child")(Child)


def test_a_decorator_without_a_name_is_refused() -> None:
    class Mine(TokenHeuristic):
        def score(self, view: LayerView) -> Tensor:
            return view.positions.float()

    with pytest.raises(TypeError, match=r'`name` must be a text, as in @register\("a_name"\), but'):
        register(Mine)  # type: ignore[arg-type]


def test_an_unknown_name_lists_the_known_and_the_nearest() -> None:
    message = r"one of .*baklava, .*'keynorm'\. Did you mean 'key_norm'"
    with pytest.raises(ValueError, match=message):
        heuristics.get("keynorm")
    with pytest.raises(ValueError, match=r"but got 'zzz'\.$"):
        heuristics.get("zzz")


@pytest.mark.parametrize("name", heuristics.names())
def test_name_and_settings_build_an_equal_heuristic(name: str) -> None:
    made = heuristics.build(name)
    assert heuristics.name_of(made) == name
    assert heuristics.build(name, settings_of(made)) == made


def test_settings_are_plain_values_and_survive_the_round_trip() -> None:
    made = Baklava(reduction=Reduction.MAX, skip_first=2)
    settings = settings_of(made)
    assert ("reduction", "MAX") in settings
    assert ("skip_first", 2) in settings
    assert heuristics.build("baklava", [list(pair) for pair in settings]) == made  # type: ignore[misc]
    assert settings_of(ObservationWindow(16, 5))[:2] == (("window", 16), ("kernel", 5))


def test_an_unknown_setting_names_the_fields_there_are() -> None:
    with pytest.raises(ValueError, match=r"fields of KeyNorm \(it has none\), but got 'order'"):
        heuristics.build("key_norm", (("order", 1),))
    with pytest.raises(ValueError, match=r"\(window, kernel, \w+\), but got 'width'"):
        heuristics.build("observation_window", (("width", 1),))


def test_a_setting_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(TypeError, match="`window` must be of type int, but got '32'"):
        heuristics.build("observation_window", (("window", "32"),))
    with pytest.raises(TypeError, match="`window` must be of type int, but got True"):
        heuristics.build("observation_window", (("window", True),))
    with pytest.raises(ValueError, match="`reduction` must be one of MEAN, MAX, but got 'SUM'"):
        heuristics.build("baklava", (("reduction", "SUM"),))


def test_a_field_that_cannot_be_written_is_refused() -> None:
    @dataclass(frozen=True)
    class Odd:
        table: tuple[int, ...] = (1, 2)

    with pytest.raises(TypeError, match="`table` must be a bool, int, float, str or Enum"):
        settings_of(Odd())


def test_an_enum_is_written_as_its_name() -> None:
    class Side(Enum):
        LEFT = 1.5

    @dataclass(frozen=True)
    class Sided:
        side: Side = Side.LEFT

    assert settings_of(Sided()) == (("side", "LEFT"),)
