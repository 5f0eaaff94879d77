"""What is found out about a class of the zoo: its verdict, and what that rests on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np
import torch
import transformers
from kinds import kinds_of, reads_text, sees_pictures, stores_keys
from own_attention import Held, Hiding, KeepingCache, attention_read
from plans import plan_of
from reading import PAD, PROMPT, ROWS, TOTAL, Reading
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from zoo import build
from zoo_fields import BROKEN

from kvbudget.allocator import Geometry, UnsupportedModel
from kvbudget.heuristics import ObservationWindow
from kvbudget.runtime import budgeted, geometry_of
from kvbudget.runtime.anatomy import anatomy_of

FEWEST, MOST = 10, 40  # tokens that a cache may hold

TOLERANCE = 1e-5
"""Largest difference of two logits in float32, in units of the largest logit of plain transformers
if that is above 1."""
VISIBLE = 1e-2
"""Least difference that an eviction has to make, in the same unit."""


class Verdict(Enum):
    """What kvbudget does with a class."""

    PER_HEAD = "exact per head"
    PER_LAYER = "exact per layer"
    UNTOUCHED = "untouched"
    REFUSED = "refused"


@dataclass(frozen=True)
class Finding:
    """Everything that the table says of a class.

    Attributes:
        name: The class.
        verdict: What kvbudget does with it.
        kinds: What its layers have, in a few words each.
        sees_pictures: Whether it has a part for pictures.
        difference: Largest difference from the oracles, in the unit of `TOLERANCE`; None if it is
            not served.
        reason: Why it is not served; empty if it is.
        notes: What was read otherwise than for most classes.
    """

    name: str
    verdict: Verdict
    kinds: tuple[str, ...] = ()
    sees_pictures: bool = False
    difference: float | None = None
    reason: str = ""
    notes: tuple[str, ...] = ()


def find(name: str) -> Finding:
    """Build a tiny model of a class and find its verdict.

    Raises:
        AssertionError: It is served, but not exactly; or wrongly said to keep keys or none; or it
            does not work as before afterwards.
    """
    if name in BROKEN:
        return _unbuilt(name)
    model = build(name)
    with torch.inference_mode():
        try:
            finding = _served(name, model)
        except UnsupportedModel as error:
            finding = _refused(name, model, error)
    assert model.config._attn_implementation == "eager", "its attention was not put back"
    return finding


def _served(name: str, model: PreTrainedModel) -> Finding:
    geometry, layers = geometry_of(model), anatomy_of(model).layers
    notes = ("without padding",) if _padding_shows(model) else ()
    reading = Reading(model, padding=0 if notes else PAD)
    before = reading.forward(0, PROMPT, None)
    difference = _difference(reading, geometry)
    pictured = replace(reading, has_picture=True)
    if pictured.pictures:
        notes = (*notes, "with and without a picture")
        difference = max(difference, _difference(pictured, geometry))
    assert torch.equal(reading.forward(0, PROMPT, None), before), "the model was changed"
    per_layer = any(each.cached.is_rewritten for each in layers)
    verdict = Verdict.PER_LAYER if per_layer else Verdict.PER_HEAD
    kinds, seeing = kinds_of(model), sees_pictures(model)
    return Finding(name, verdict, kinds, seeing, difference, notes=notes)


def _refused(name: str, model: PreTrainedModel, error: UnsupportedModel) -> Finding:
    said = str(error).removeprefix(f"{name} is not supported. ")
    keeps_none = "keeps no keys and values" in said
    if reads_text(model):
        assert keeps_none is not stores_keys(model), f"{name}: whether it keeps keys? {error}"
    verdict = Verdict.UNTOUCHED if keeps_none else Verdict.REFUSED
    return Finding(name, verdict, kinds_of(model), sees_pictures(model), reason=said)


def _unbuilt(name: str) -> Finding:
    try:
        build(name)
    except Exception as error:
        said = f"transformers {transformers.__version__} itself cannot build it: {error}."
        return Finding(name, Verdict.REFUSED, reason=said)
    raise AssertionError(f"{name} can be built: take it out of BROKEN")


def _padding_shows(model: PreTrainedModel) -> bool:
    """Whether, under transformers, real tokens depend on those in padding columns.

    The results of padded rows are then a matter of chance.
    """
    ones, others = (Reading(model, padding_id=each).forward(0, PROMPT, None) for each in (0, 5))
    return float((ones - others).abs().max()) > TOLERANCE


def _difference(reading: Reading, geometry: Geometry) -> float:
    """Largest difference from both oracles, in the unit of `TOLERANCE`."""
    plain = reading.through(DynamicCache(config=reading.model.config.get_text_config(decoder=True)))
    unit = max(1.0, float(torch.cat(plain).abs().max()))
    kept = _kept(reading, geometry)
    ours, held = _evicted(reading, geometry)
    theirs = _hidden(reading, held)
    moved = _furthest(ours[1:], plain[1:]) / unit
    difference = max(_furthest(kept, plain), _furthest(ours, theirs)) / unit
    found = f"{_furthest(kept, plain) / unit:.2g} keeping all, {_furthest(ours, theirs) / unit:.2g}"
    assert difference <= TOLERANCE, f"{reading.model.__class__.__name__} differs: {found} evicting"
    assert moved >= VISIBLE, f"evictions change only {moved:.2g}, so the comparison shows nothing"
    return difference


def _furthest(ones: list[Tensor], others: list[Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(ones, others, strict=True))


def _kept(reading: Reading, geometry: Geometry) -> list[Tensor]:
    """Logits under a plan that keeps everything."""
    most = np.array(geometry.most_tokens(TOTAL))[:, None]
    plan = plan_of(geometry, most, TOTAL, ROWS)
    with budgeted(reading.model, plan, ObservationWindow()) as cache:
        return reading.through(cache)


def _evicted(reading: Reading, geometry: Geometry) -> tuple[list[Tensor], list[Held]]:
    """Logits under a plan of uneven caches, and what every layer held at every block."""
    drawn = np.random.default_rng(0).integers(FEWEST, MOST, (geometry.layers, geometry.kv_heads))
    most = np.array(geometry.most_tokens(TOTAL))[:, None]
    plan = plan_of(geometry, np.minimum(drawn, most), TOTAL, ROWS)
    numbers = [each.number for each in anatomy_of(reading.model).layout.cached]
    seen: list[Held] = [{}]
    with budgeted(reading.model, plan, ObservationWindow(window=8, kernel=3)) as cache:

        def look(end: int) -> None:
            assert cache.nbytes() <= plan.budget_bytes, f"{cache.nbytes()} bytes after {end} tokens"
            seen.append({number: cache.kept_positions(i) for i, number in enumerate(numbers)})

        logits = reading.through(cache, look)
    # a block is cut after it has attended; one token may make room for itself first, unless the
    # model rewrites what is held
    waits = any(each.is_rewritten for each in anatomy_of(reading.model).layout.cached)
    lengths = [end - first for first, end in reading.blocks()]
    return logits, [
        seen[at] if length > 1 or waits else seen[at + 1] for at, length in enumerate(lengths)
    ]


def _hidden(reading: Reading, held: list[Held]) -> list[Tensor]:
    """Logits of transformers' own attention, with the columns hidden that were not held."""
    cache, logits = KeepingCache(reading.model), []
    with attention_read(reading.model, cache):
        for (first, end), columns in zip(reading.blocks(), held, strict=True):
            cache.begin()
            with Hiding(cache, columns, end - first):
                logits.append(reading.forward(first, end, cache))
    return logits
