"""The suite for other people's heuristics lets good ones pass and catches bad ones."""

import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from kvbudget import heuristics
from kvbudget.heuristics import (
    CacheHeuristic,
    CacheView,
    Heuristic,
    LayerView,
    RunningHeuristic,
    TokenHeuristic,
)
from kvbudget.testing import HeuristicCheck, check_heuristic, heuristic_checks

CALLS = itertools.count()
KINDS = (TokenHeuristic, RunningHeuristic, CacheHeuristic)


def norm(view: LayerView) -> Tensor:
    """A good score that depends on nothing but the values."""
    return view.held_values().norm(dim=-1)


@dataclass(frozen=True, slots=True)
class ValueNorm(TokenHeuristic):
    """As simple as can be, and it does not say what it does without."""

    order: float = 2.0

    def score(self, view: LayerView) -> Tensor:
        return view.values.float().norm(self.order, dim=-1)


@dataclass(frozen=True, slots=True)
class Counter(RunningHeuristic):
    """Attention so far, and how many queries saw a token."""

    channels: ClassVar[int] = 2

    def observe(self, view: LayerView) -> Tensor:
        seen = view.seen(slice(0, view.new)).sum(2)
        return view.known_state(2) + torch.stack([view.total_attention(), seen], -1)

    def score(self, view: LayerView) -> Tensor:
        total, seen = view.known_state(2).unbind(-1)
        return total / (1 + seen)


@dataclass(frozen=True, slots=True)
class Written(CacheHeuristic):
    """How long the attention outputs are."""

    def importance(self, view: CacheView) -> Tensor:
        real = view.layer.valid.any(1)  # [batch, tokens]
        lengths = view.outputs().norm(dim=-1)
        rows = (lengths * real[:, None]).sum(-1) / real.sum(-1, keepdim=True)
        return view.layer.group_mean(rows).mean(0)


def token(name: str, score: Any, **claims: bool) -> TokenHeuristic:
    """An otherwise proper token heuristic with this ``score``."""
    body = {"score": lambda self, view: score(view), **claims}
    made: TokenHeuristic = dataclass(frozen=True)(type(name, (TokenHeuristic,), body))()
    return made


def running(name: str, observe: Any) -> RunningHeuristic:
    """An otherwise proper running heuristic with one channel and this ``observe``."""
    body = {
        "observe": lambda self, view: observe(view),
        "score": lambda self, view: view.known_state(1)[..., 0] + norm(view),
    }
    made: RunningHeuristic = dataclass(frozen=True)(type(name, (RunningHeuristic,), body))()
    return made


def cache(name: str, importance: Any) -> CacheHeuristic:
    """An otherwise proper cache heuristic with this ``importance``."""
    body = {"importance": lambda self, view: importance(view)}
    made: CacheHeuristic = dataclass(frozen=True)(type(name, (CacheHeuristic,), body))()
    return made


def drawn(view: LayerView) -> Tensor:
    torch.manual_seed(0)
    return norm(view) * torch.rand(view.valid.shape[-1])


def scribbled(view: LayerView) -> Tensor:
    view.values.mul_(2.0)
    return norm(view)


def batched(view: LayerView) -> Tensor:
    return norm(view) / norm(view).amax()


def first_head(view: LayerView) -> Tensor:
    """The right number of query heads, but not those of each KV head."""
    rows = view.probabilities(slice(0, view.new)).flatten(1, 2)[:, : view.valid.shape[1]]
    return norm(view) + rows.sum(2)


def summed(view: LayerView) -> Tensor:
    return norm(view) + view.probabilities(slice(0, view.new)).sum(dim=(2, 3))


def zero_times_nan(view: LayerView) -> Tensor:
    """Nobody attends to an empty place, but what stands there is added all the same."""
    output = view.attention(1) @ view.values.float()
    return norm(view) * output.norm(dim=-1)


def all_pairs(view: LayerView) -> Tensor:
    return (view.held_values() @ view.held_values().mT).norm(dim=-1)


def with_cpu_tensor(view: LayerView) -> Tensor:
    return norm(view) * torch.ones(view.valid.shape)


def with_cpu_state(view: LayerView) -> Tensor:
    return last_block(view) + torch.zeros(*view.valid.shape, 1)


def last_block(view: LayerView) -> Tensor:
    return view.total_attention().unsqueeze(-1)


def fading(view: LayerView) -> Tensor:
    return 0.9 * view.known_state(1) + last_block(view)


def by_place(view: LayerView) -> Tensor:
    places = torch.arange(view.valid.shape[-1], device=view.keys.device)
    return view.known_state(1) + view.new * places[:, None]


def by_row(view: LayerView) -> Tensor:
    rows = torch.arange(len(view.valid), device=view.keys.device)
    return view.known_state(1) + view.new * (1 + norm(view)[..., None] * rows.view(-1, 1, 1, 1))


def mutating(view: LayerView) -> Tensor:
    view.values.mul_(2.0)
    return last_block(view)


def block_counter(view: LayerView) -> Tensor:
    return view.known_state(1) + 1


@dataclass
class NotFrozen(TokenHeuristic):
    order: float = 2.0

    def score(self, view: LayerView) -> Tensor:
        return norm(view)


@dataclass(frozen=True)
class NeedsArguments(TokenHeuristic):
    order: float

    def score(self, view: LayerView) -> Tensor:
        return norm(view)


class Plain(TokenHeuristic):
    def score(self, view: LayerView) -> Tensor:
        return norm(view)


@dataclass(frozen=True)
class WithTable(TokenHeuristic):
    table: tuple[int, ...] = (1, 2)

    def score(self, view: LayerView) -> Tensor:
        return norm(view)


@dataclass(frozen=True)
class Forgetful(TokenHeuristic):
    """What it was given is not what it holds."""

    order: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", self.order + 1)

    def score(self, view: LayerView) -> Tensor:
        return norm(view)


FROZEN = "it is a frozen value that needs no arguments"
WRITTEN = "its settings can be written to a file"
SHAPE = "scores are one finite float32 per place"
APART = "scores tell tokens apart"
SAME = "the same view gets the same scores and is left alone"
ALONE = "a sequence scores the same alone and in a batch"
PADDING = "padding changes nothing"
EMPTY = "empty places change nothing"
PLACES = "kv heads can change places"
GROUP = "a group of equal query heads counts like one"
HALF = "half precision loses nothing on the way"
DEVICE = "scores stay on the device of the view"
READS = "it reads nothing that it says it does not read"
MEMORY = "memory is linear in tokens"
STATE = "its state is finite float32 for every place"
STATE_AT = "its state is float32 on the device of the view"
AGAIN = "the same queries give the same state"
BLOCKS = "queries may come in blocks of any length"
IDLE = "no query changes nothing"
LIFE = "a life with evictions leaves the same state however it is shown"
BEAMS = "sequences can be reordered as beams are"
WEIGHT = "importance is one float32 per cache"
LAYER = "importance depends on the layer"
WEIGHT_SAME = "the same view gets the same importance and is left alone"
TWICE = "a prompt twice weighs like once"
PADS = "padding does not weigh"
CACHES = "caches can change places"
HALF_WEIGHT = "half precision weighs in float32"

BAD: list[tuple[str, Heuristic, str]] = [
    (FROZEN, NotFrozen(), "must be a frozen dataclass"),
    (FROZEN, NeedsArguments(1.0), "must work without arguments"),
    (FROZEN, Plain(), "must be a dataclass"),
    (WRITTEN, WithTable(), "`table` must be a bool, int, float, str or Enum"),
    (WRITTEN, Forgetful(), "another one is built, Forgetful"),
    (SHAPE, token("OnePerToken", lambda v: norm(v).mean(1)), r"returns \[3, 96\] of torch.float32"),
    (SHAPE, token("Whole", lambda v: v.rank()), r"returns \[3, 2, 96\] of torch.int64"),
    (SHAPE, token("Log", lambda v: (norm(v) - 2).log()), "a score is not finite"),
    (SHAPE, token("Raises", lambda v: norm(v) / v.queries[:, :, 0, :0]), "it raised RuntimeError"),
    (APART, token("Constant", lambda v: torch.ones_like(norm(v))), "has only 1 different scores"),
    (SAME, token("Different", lambda v: norm(v) + next(CALLS)), "scores differently each time"),
    (SAME, token("Drawn", drawn), "it draws from torch's generator"),
    (SAME, token("Scribbler", scribbled), "it changes `values` of the view"),
    (ALONE, token("Batched", batched), "sequence 1 scores differently alone"),
    (PADDING, token("ByColumn", lambda v: v.positions.float()), "its 5 places of padding"),
    (EMPTY, token("Running", lambda v: v.values.norm(dim=-1).cumsum(-1)), "at empty places"),
    (EMPTY, token("ByPlace", lambda v: norm(v) + torch.ones_like(norm(v)).cumsum(-1)), "empty"),
    (EMPTY, token("ZeroTimesNaN", zero_times_nan), "must be finite, but got nan"),
    (PLACES, token("FirstHead", first_head), "do not follow their KV heads"),
    (PLACES, token("ByHead", lambda v: norm(v) * norm(v)[:, :1]), "do not follow their KV heads"),
    (GROUP, token("Summed", summed), "3 equal query heads score differently"),
    (HALF, token("HalfOut", lambda v: v.values.norm(dim=-1)), "returns torch.float16"),
    (HALF, token("HalfWay", lambda v: v.values.norm(dim=-1).float()), "numbers in float32, by"),
    (DEVICE, token("OnTheCPU", with_cpu_tensor), "it raised RuntimeError: .*meta device"),
    (DEVICE, token("Asks", lambda v: norm(v) / norm(v)[0, 0, -1].item()), "meta device"),
    (READS, token("NoQueries", lambda v: v.total_attention(), reads_queries=False), "`reads_q"),
    (READS, token("NoTokens", norm, reads_tokens=False), "`reads_tokens` is False, but its"),
    (MEMORY, token("AllPairs", all_pairs), "grows 16.0 times where the tokens grow 4 times"),
    (STATE, running("Flat", lambda v: norm(v)), r"returns \[3, 2, 96\] of torch.float32, not"),
    (STATE, running("LogState", lambda v: (norm(v) - 2).log()[..., None]), "is not finite"),
    (STATE_AT, running("HalfState", lambda v: v.values[..., :1]), "returns torch.bfloat16 on meta"),
    (STATE_AT, running("CPUState", with_cpu_state), "it raised RuntimeError"),
    (AGAIN, running("Mutates", mutating), "`observe` changes `values` of the view"),
    (AGAIN, running("Varies", lambda v: norm(v)[..., None] + next(CALLS)), "each time"),
    (BLOCKS, running("LastBlock", last_block), "its state changes when blocks of queries end at"),
    (BLOCKS, running("BlockCounter", block_counter), "its state changes when blocks"),
    (IDLE, running("Fading", fading), "its state changes without a query"),
    (LIFE, running("ByPlaceAgain", by_place), "after evictions its state depends on"),
    (BEAMS, running("ByRow", by_row), "does not follow sequences that are reordered"),
    (WEIGHT, cache("PerHead", lambda v: v.outputs().norm(dim=-1).mean((0, 2))), r"returns \[6\]"),
    (WEIGHT, cache("Below", lambda v: -Written().importance(v)), "never negative, but is"),
    (LAYER, cache("Always", lambda v: torch.ones(2)), "weighs 1 in both"),
    (WEIGHT_SAME, cache("Other", lambda v: Written().importance(v) + next(CALLS)), "each time"),
    (
        WEIGHT_SAME,
        cache("Scribbles", lambda v: Written().importance(v) + v.residual.mul_(2).norm()),
        "it changes `residual` of the view",
    ),
    (
        TWICE,
        cache("AddsUp", lambda v: v.layer.group_mean(v.outputs().norm(dim=-1).amax(-1)).sum(0)),
        "twice",
    ),
    (PADS, cache("Mean", lambda v: v.layer.values.float().norm(dim=-1).mean((0, 2))), "padding"),
    (CACHES, cache("Order", lambda v: Written().importance(v).cumsum(0)), "does not follow"),
    (
        HALF_WEIGHT,
        cache("HalfWeight", lambda v: v.layer.values.norm(dim=-1).amax((0, 2))),
        "returns torch.float16",
    ),
]


def check_called(name: str, heuristic: Heuristic) -> HeuristicCheck:
    (found,) = (each for each in heuristic_checks(type(heuristic)) if str(each) == name)
    return found


@pytest.mark.parametrize(
    ("rule", "bad", "fault"), BAD, ids=[type(bad).__name__ for _, bad, _ in BAD]
)
def test_a_bad_heuristic_is_caught_by_the_check_that_is_meant(
    rule: str, bad: Heuristic, fault: str
) -> None:
    with pytest.raises(AssertionError, match=fault) as caught:
        check_called(rule, bad)(bad)
    assert str(caught.value).startswith(type(bad).__name__)
    with pytest.raises(AssertionError, match=type(bad).__name__):
        check_heuristic(bad)


def test_every_check_catches_somebody() -> None:
    caught = {rule for rule, _, _ in BAD}
    assert caught == {str(check) for kind in KINDS for check in heuristic_checks(kind)}


GOOD = (ValueNorm(), Counter(), Written())


@pytest.mark.parametrize(
    ("assert_holds", "good"),
    [(check, good) for good in GOOD for check in heuristic_checks(type(good))],
    ids=str,
)
def test_an_honest_heuristic_passes_each_check(
    assert_holds: HeuristicCheck, good: Heuristic
) -> None:
    assert_holds(good)


@pytest.mark.parametrize("answer", [None, 1.0], ids=str)
@pytest.mark.parametrize("make", [token, running, cache])
def test_an_answer_that_is_no_tensor_fails_in_one_sentence(make: Any, answer: Any) -> None:
    bad = make("Nothing", lambda _: answer)
    for check in heuristic_checks(type(bad))[2:]:
        with pytest.raises(AssertionError, match=r"^Nothing failed: .*Tensor, but|not a torch.T"):
            check(bad)


def test_other_settings_can_be_tested_too() -> None:
    assert check_heuristic(ValueNorm(order=1.0)) is None


def test_it_need_not_be_registered_and_is_not_afterwards() -> None:
    before = heuristics.names()
    check_heuristic(ValueNorm())
    assert heuristics.names() == before


@pytest.mark.parametrize("thing", [int, 3, "value_norm", ValueNorm()])
def test_what_is_no_class_of_a_heuristic_has_no_checks(thing: Any) -> None:
    with pytest.raises(TypeError, match="`kind` must be a subclass of TokenHeuristic or Cache"):
        heuristic_checks(thing)


def test_running_heuristics_are_tested_for_more() -> None:
    token_rules, running_rules = (
        {str(check) for check in heuristic_checks(kind)} for kind in (ValueNorm, Counter)
    )
    assert token_rules < running_rules
    assert BLOCKS in running_rules - token_rules
    assert len(heuristic_checks(Counter)) == len(running_rules)


def test_one_that_looks_ahead_may_depend_on_its_blocks() -> None:
    look = type("Looks", (Counter,), {"looks_ahead": True, "observe": lambda _, v: last_block(v)})
    assert check_called(BLOCKS, look())(look()) is None


def test_examples_are_not_spoilt_for_the_next_heuristic() -> None:
    scribbler = next(bad for _, bad, _ in BAD if type(bad).__name__ == "Scribbler")
    for _ in range(2):
        with pytest.raises(AssertionError, match="Scribbler"):
            check_heuristic(scribbler)
    assert check_heuristic(ValueNorm()) is None


def test_it_needs_no_test_library(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "sys.modules['pytest'] = sys.modules['hypothesis'] = None\n"
        "from kvbudget.testing import check_heuristic\n"
        "from kvbudget.heuristics import KeyNorm\n"
        "check_heuristic(KeyNorm())\n"
        "print('transformers' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
