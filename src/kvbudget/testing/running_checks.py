"""What a running heuristic must hold beside what every token heuristic must."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from kvbudget.heuristics import LayerView, RunningHeuristic, checked_scores, observed

from .answers import require
from .asking import asked, blame, raw_answer, require_equal, require_near, shown_in_blocks
from .views import (
    BATCH,
    KV_HEADS,
    NEWEST,
    PER_PLACE,
    TOKENS,
    changed,
    decodings,
    first_queries,
    full_examples,
    packed,
    prompts,
    tensors_of,
    without_queries,
)

CUTS: tuple[list[int], ...] = ([1], [40], [1, 2, 3, 60], list(range(8, TOKENS, 8)))
EVICTIONS = {30: 0.7, 60: 0.6, 80: 0.5}
"""After how many columns caches are cut, and what share of the tokens stays each time."""
FEW_CUTS: tuple[list[int], ...] = ([1], [3, 5, 20])


def its_state_is_finite_float32_for_every_place(heuristic: RunningHeuristic) -> None:
    """One number per place and channel, whatever the layer is like."""
    wanted = (BATCH, KV_HEADS, TOKENS, heuristic.channels)
    for example in (*prompts(), *decodings(), *without_queries()):
        state = raw_answer(heuristic, example.name, "observe", example.view)
        answer = f"{list(state.shape)} of {state.dtype}"
        fault = f"`observe` returns {answer}, not {list(wanted)} of torch.float32"
        right = tuple(state.shape) == wanted and state.dtype == torch.float32
        require(right, blame(heuristic, example.name, fault))
        finite = bool(state[example.view.valid].isfinite().all())
        require(finite, blame(heuristic, example.name, "a number of its state is not finite"))


def its_state_is_float32_on_the_device_of_the_view(heuristic: RunningHeuristic) -> None:
    """Whatever the numbers of the view are, and wherever they are."""
    for example in full_examples():
        name = f"{example.name} in torch.bfloat16 on the meta device"
        view = changed(
            example.view, lambda _, each: each.to("meta"), tuple(tensors_of(example.view))
        )
        names = ("keys", "values", "queries", "output_weight")
        half = changed(view, lambda _, each: each.bfloat16(), names)
        # a tensor made on the CPU cannot be mixed with one on the meta device
        state = raw_answer(heuristic, name, "observe", half)
        fault = f"`observe` returns {state.dtype} on {state.device.type}, not torch.float32 on meta"
        right = state.dtype == torch.float32 and state.device.type == "meta"
        require(right, blame(heuristic, name, fault))


def the_same_queries_give_the_same_state(heuristic: RunningHeuristic) -> None:
    """The state follows from the view alone, and the view is left alone."""
    for example in (prompts()[0], decodings()[0]):
        view, name = example.view, example.name
        before = {field: each.clone() for field, each in tensors_of(view).items()}
        first = raw_answer(heuristic, name, "observe", view)
        for field, each in before.items():
            fault = f"`observe` changes `{field}` of the view"
            require_equal(heuristic, name, getattr(view, field), each, fault)
        second = raw_answer(heuristic, name, "observe", view)
        require_equal(heuristic, name, first, second, "it observes differently each time")


def queries_may_come_in_blocks_of_any_length(heuristic: RunningHeuristic) -> None:
    """The state depends on which queries were shown, not on how they were cut into blocks."""
    if heuristic.looks_ahead:
        return
    for example in (*prompts(), *decodings()):
        whole = asked(heuristic, example.name, partial(_state, heuristic, []), example.view)
        for cuts in CUTS if example.view.new > NEWEST else FEW_CUTS:
            question = partial(_state, heuristic, cuts)
            found = asked(heuristic, example.name, question, example.view)
            borders = ", ".join(map(str, cuts[:4]))
            fault = f"its state changes when blocks of queries end at {borders}"
            require_near(heuristic, example.name, found, whole, fault)


def no_query_changes_nothing(heuristic: RunningHeuristic) -> None:
    """A block without queries leaves the state as it was."""
    for example in (prompts()[0], decodings()[0]):
        view = example.view
        before = asked(heuristic, example.name, partial(_state, heuristic, []), view)
        nobody = replace(view.newest(0), state=before)
        after = raw_answer(heuristic, example.name, "observe", nobody)
        held = view.valid
        fault = "its state changes without a query"
        require_equal(heuristic, example.name, after[held], before[held], fault)


def a_life_with_evictions_leaves_the_same_state_however_it_is_shown(
    heuristic: RunningHeuristic,
) -> None:
    """Query by query with tokens in their places, or in blocks with tokens that move together."""
    if heuristic.looks_ahead:
        return
    for example in prompts():
        slow = asked(heuristic, example.name, partial(_query_by_query, heuristic), example.view)
        fast = asked(heuristic, example.name, partial(_in_blocks, heuristic), example.view)
        found, wanted = (_known(each)[each.valid] for each in (fast, slow))
        fault = "after evictions its state depends on how queries were shown, or on places"
        require_near(heuristic, example.name, found, wanted, fault)
        question = partial(checked_scores, heuristic)
        found, wanted = (
            asked(heuristic, example.name, question, each.newest(NEWEST))[each.valid]
            for each in (fast, slow)
        )
        fault = "after evictions its scores depend on how queries were shown, or on places"
        require_near(heuristic, example.name, found, wanted, fault)


def sequences_can_be_reordered_as_beams_are(heuristic: RunningHeuristic) -> None:
    """Dropped, repeated and reordered sequences take their state with them."""
    example, beams = prompts()[0], [2, 0, 2]
    middle = int(example.view.query_positions[40])
    first = first_queries(example.view, middle)
    state = asked(heuristic, example.name, partial(_state, heuristic, []), first)
    start = replace(example.view, state=state)
    after = changed(start, lambda _, each: each[beams], (*PER_PLACE, "queries", "state"))
    rest = (after.newest(TOKENS - middle), start.newest(TOKENS - middle))
    found, wanted = (raw_answer(heuristic, example.name, "observe", each) for each in rest)
    fault = "its state does not follow sequences that are reordered"
    require_near(heuristic, example.name, found, wanted[beams], fault)


def _state(heuristic: RunningHeuristic, cuts: list[int], view: LayerView) -> Tensor:
    return _known(shown_in_blocks(heuristic, view, cuts))


def _known(view: LayerView) -> Tensor:
    assert view.state is not None, "a running heuristic that was shown something has a state"
    return view.state


def _query_by_query(heuristic: RunningHeuristic, view: LayerView) -> LayerView:
    """A life in which every query is shown alone."""
    for end in range(1, TOKENS + 1):
        if end - 1 in EVICTIONS:
            view = replace(view, valid=view.valid & _held_after(end - 1))
            state = _known(view).masked_fill(~view.valid.unsqueeze(-1), 0.0)
            view = replace(view, state=state)
        view = replace(view, state=observed(heuristic, _block(view, end - 1, end)).state)
    return view


def _in_blocks(heuristic: RunningHeuristic, view: LayerView) -> LayerView:
    """The same life in blocks; what is left at an eviction moves together."""
    start = 0
    for end in (*EVICTIONS, TOKENS):
        middle = start + (end - start) // 3
        for first, last in ((start, middle), (middle, end)):
            view = replace(view, state=observed(heuristic, _block(view, first, last)).state)
        if end in EVICTIONS:
            columns = view.positions.clamp(0, TOKENS - 1)
            view = replace(view, valid=view.valid & _held_after(end).gather(-1, columns))
            order = view.packed_order()
            names = (*PER_PLACE, "state")
            view = changed(view, partial(packed, view.valid, order), names)
        start = end
    return view


def _block(view: LayerView, start: int, end: int) -> LayerView:
    """Queries of some columns, over the tokens there are by then."""
    return first_queries(view, end).newest(end - start)


def _held_after(column: int) -> Tensor:
    """Which of the tokens before a column survive the eviction there."""
    draw = torch.Generator().manual_seed(column)
    stays = torch.rand(BATCH, KV_HEADS, TOKENS, generator=draw) < EVICTIONS[column]
    return stays | (torch.arange(TOKENS) >= column - 3)


RUNNING_CHECKS = (
    its_state_is_finite_float32_for_every_place,
    its_state_is_float32_on_the_device_of_the_view,
    the_same_queries_give_the_same_state,
    queries_may_come_in_blocks_of_any_length,
    no_query_changes_nothing,
    a_life_with_evictions_leaves_the_same_state_however_it_is_shown,
    sequences_can_be_reordered_as_beams_are,
)
