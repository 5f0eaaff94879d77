"""What every token heuristic must hold, one function each; the name is the rule."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kvbudget.heuristics import (
    LayerView,
    RereadingHeuristic,
    Rotation,
    TokenHeuristic,
    checked_scores,
)

from .answers import require
from .asking import asked, blame, raw_answer, require_equal, require_near, scores_of, shown
from .largest_tensor import LargestTensor
from .views import (
    BATCH,
    FULL,
    GROUP,
    KV_HEADS,
    NEWEST,
    PADDING,
    PER_PLACE,
    TOKENS,
    ViewExample,
    changed,
    decodings,
    full_examples,
    other_heads,
    packed,
    prompt_view,
    prompts,
    rows_of,
    tensors_of,
    without_padding,
    without_queries,
)

LEAST_VALUES = 6
SHORT, LONG = 512, 2048


def scores_are_one_finite_float32_per_place(heuristic: TokenHeuristic) -> None:
    """Whatever the layer is like, and also if no query is left."""
    for example in (*prompts(), *decodings(), *without_queries()):
        name = example.name
        # where no query was shown there is no state yet
        view = shown(heuristic, example) if example.view.new else example.view
        scores = raw_answer(heuristic, name, "score", view)
        answer = f"{list(scores.shape)} of {scores.dtype}"
        wanted = scores.shape == (BATCH, KV_HEADS, TOKENS) and scores.dtype == torch.float32
        fault = f"`score` returns {answer}, not [{BATCH}, {KV_HEADS}, {TOKENS}] of torch.float32"
        require(wanted, blame(heuristic, name, fault))
        finite = scores[view.valid].isfinite().all()
        require(bool(finite), blame(heuristic, name, "a score is not finite"))


def scores_tell_tokens_apart(heuristic: TokenHeuristic) -> None:
    """Tokens of equal score are kept from the oldest on, so a constant chooses nothing."""
    for example in (prompts()[0], decodings()[0]):
        scores = scores_of(heuristic, example)
        for scores_row, valid_row in zip(scores, example.view.valid, strict=True):
            for head, valid in zip(scores_row, valid_row, strict=True):
                found = len(head[valid].unique())
                fault = f"a head has only {found} different scores for {int(valid.sum())} tokens"
                require(found >= LEAST_VALUES, blame(heuristic, example.name, fault))


def the_same_view_gets_the_same_scores_and_is_left_alone(heuristic: TokenHeuristic) -> None:
    """Scores follow from the view alone; nothing is drawn from torch's own generator."""
    for example in full_examples():
        view = shown(heuristic, example)
        before = {name: each.clone() for name, each in tensors_of(view).items()}
        generator = torch.get_rng_state()
        first = raw_answer(heuristic, example.name, "score", view)
        for name, each in before.items():
            fault = f"it changes `{name}` of the view"
            require_equal(heuristic, example.name, getattr(view, name), each, fault)
        second = raw_answer(heuristic, example.name, "score", view)
        require_equal(heuristic, example.name, first, second, "it scores differently each time")
        fault = "it draws from torch's generator; use one of its own"
        require_equal(heuristic, example.name, torch.get_rng_state(), generator, fault)


def a_sequence_scores_the_same_alone_and_in_a_batch(heuristic: TokenHeuristic) -> None:
    """Sequences know nothing of each other."""
    for example in (*prompts(), *decodings()):
        together = scores_of(heuristic, example)
        for row in range(BATCH):
            alone = scores_of(heuristic, example.of(rows_of(example.view, slice(row, row + 1))))
            fault = f"sequence {row} scores differently alone"
            require_near(heuristic, example.name, alone[0], together[row], fault)


def padding_changes_nothing(heuristic: TokenHeuristic) -> None:
    """A padded sequence scores as it does without its padding."""
    for example in prompts():
        together = scores_of(heuristic, example, at_once=True)
        for row, pads in enumerate(PADDING):
            bare = without_padding(rows_of(example.view, slice(row, row + 1)), pads)
            alone = scores_of(heuristic, example.of(bare), at_once=True)
            fault = f"without its {pads} places of padding sequence {row} scores differently"
            require_near(heuristic, example.name, alone[0], together[row, :, pads:], fault)


def empty_places_change_nothing(heuristic: TokenHeuristic) -> None:
    """Neither what stands there, which may be NaN, nor where they are."""
    for example in (prompts()[0], decodings()[0]):
        view = example.view
        order = view.packed_order()

        moved = changed(view, partial(packed, view.valid, order), PER_PLACE)
        found = scores_of(heuristic, example.of(moved))
        wanted = scores_of(heuristic, example).gather(-1, order)
        fault = "scores depend on what stands at empty places, or on where those are"
        require_near(heuristic, example.name, found, wanted, fault)


def kv_heads_can_change_places(heuristic: TokenHeuristic) -> None:
    """Caches know nothing of each other; query head h reads KV head h // group."""
    if heuristic.draws:
        return
    for example in full_examples():
        swapped, _ = other_heads(example.view)
        found, wanted = scores_of(heuristic, example.of(swapped)), scores_of(heuristic, example)
        fault = "scores do not follow their KV heads when those change places"
        require_near(heuristic, example.name, found, wanted.flip(1), fault)


def a_group_of_equal_query_heads_counts_like_one(heuristic: TokenHeuristic) -> None:
    """Scores of query heads are averaged or compared, not summed."""
    if heuristic.draws:
        return
    for example in (prompts()[0], decodings()[0]):
        view = example.view
        one = changed(view, lambda _, each: each[::GROUP], ("output_weight",))
        one = replace(one, queries=view.queries[:, ::GROUP])
        many = changed(one, lambda _, each: each.repeat_interleave(GROUP, 0), ("output_weight",))
        many = replace(many, queries=one.queries.repeat_interleave(GROUP, 1))
        found, wanted = (scores_of(heuristic, example.of(each)) for each in (many, one))
        fault = f"{GROUP} equal query heads score differently from one"
        require_near(heuristic, example.name, found, wanted, fault)


def half_precision_loses_nothing_on_the_way(heuristic: TokenHeuristic) -> None:
    """Scores of half-precision tensors are those of the same numbers in float32."""
    names = ("keys", "values", "queries", "output_weight")
    for dtype in (torch.float16, torch.bfloat16):
        for example in (prompts()[0], decodings()[0]):
            half = changed(example.view, partial(_to, dtype), names)
            same = changed(half, partial(_to, torch.float32), names)
            view, name = shown(heuristic, example.of(half)), f"{example.name} in {dtype}"
            raw = raw_answer(heuristic, name, "score", view)
            fault = f"`score` returns {raw.dtype} instead of torch.float32"
            require(raw.dtype == torch.float32, blame(heuristic, name, fault))
            found, wanted = (scores_of(heuristic, example.of(each)) for each in (half, same))
            fault = "scores differ from those of the same numbers in float32"
            require_near(heuristic, name, found, wanted, fault)


def _to(place: torch.dtype | str, _: str, tensor: Tensor) -> Tensor:
    return tensor.to(place)


def scores_stay_on_the_device_of_the_view(heuristic: TokenHeuristic) -> None:
    """No tensor is made elsewhere, and none has to be read on the way."""
    for example in full_examples():
        view, name = shown(heuristic, example), f"{example.name} on the meta device"
        # a tensor made on the CPU cannot be mixed with one on the meta device
        elsewhere = changed(view, partial(_to, "meta"), tuple(tensors_of(view)))
        elsewhere = replace(elsewhere, rotation=Rotation(torch.ones(2, device="meta")))
        scores = raw_answer(heuristic, name, "score", elsewhere)
        fault = f"scores are on {scores.device}"
        require(scores.device.type == "meta", blame(heuristic, name, fault))


def it_reads_nothing_that_it_says_it_does_not_read(heuristic: TokenHeuristic) -> None:
    """While decoding the runtime leaves out what the class says that it does not read."""
    example = decodings()[0]
    whole = shown(heuristic, example)
    before = asked(heuristic, example.name, partial(checked_scores, heuristic), whole)
    for said, change in _withheld(example.view).items():
        if getattr(heuristic, said):
            continue
        without = replace(whole, **change)
        if not isinstance(heuristic, RereadingHeuristic):
            without = shown(heuristic, example.of(replace(without, state=None)))
        # a second reading is shown in full when the prompt comes, and only its state is there later
        after = asked(heuristic, example.name, partial(checked_scores, heuristic), without)
        fault = f"`{said}` is False, but its scores depend on that"
        require_equal(heuristic, example.name, before, after, fault)


def _withheld(view: LayerView) -> dict[str, dict[str, Any]]:
    """For each claim of a class, what the view is like without what it speaks of."""
    nobody = {"queries": view.queries[:, :, :0], "query_positions": view.query_positions[:0]}
    return {
        "reads_queries": nobody,
        "reads_tokens": {"keys": view.keys * 0, "values": view.values * 0},
        "reads_output_weight": {"output_weight": None},
    }


def memory_is_linear_in_tokens(heuristic: TokenHeuristic) -> None:
    """No tensor grows with the square of the tokens held; says nothing about time."""
    largest = {}
    for tokens in (SHORT, LONG):
        view = replace(prompt_view(NEWEST, tokens), **FULL)
        name = f"{tokens} tokens"
        with LargestTensor() as seen:
            scores_of(heuristic, ViewExample(name, view))
        largest[tokens] = seen.numel
    growth = largest[LONG] / max(1, largest[SHORT])
    fault = (
        f"its largest tensor grows {growth:.1f} times where the tokens grow {LONG // SHORT} times"
    )
    require(growth < 1.5 * LONG / SHORT, blame(heuristic, f"{LONG} tokens", fault))


TOKEN_CHECKS = (
    scores_are_one_finite_float32_per_place,
    scores_tell_tokens_apart,
    the_same_view_gets_the_same_scores_and_is_left_alone,
    a_sequence_scores_the_same_alone_and_in_a_batch,
    padding_changes_nothing,
    empty_places_change_nothing,
    kv_heads_can_change_places,
    a_group_of_equal_query_heads_counts_like_one,
    half_precision_loses_nothing_on_the_way,
    scores_stay_on_the_device_of_the_view,
    it_reads_nothing_that_it_says_it_does_not_read,
    memory_is_linear_in_tokens,
)
