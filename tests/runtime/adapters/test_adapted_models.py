"""Models whose attention modules are replaced are served as exactly as all others."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from kvbudget.allocator import UnsupportedModel
from kvbudget.heuristics import HeavyHitter, ObservationWindow, SinkRecent, TokenHeuristic
from kvbudget.heuristics.measures import Ablation
from kvbudget.runtime import budgeted, geometry_of, measure_profile
from kvbudget.runtime.anatomy import anatomy_of, attention_modules
from kvbudget.runtime.hf import attention_switched
from kvbudget.runtime.output_projection import output_projection
from kvbudget.runtime.watching import decoder_layers

PROMPT, PAD, WIDE_BLOCK = 48, 7, 40
BLOCKS = [1, 1, 3, 1, 1, 1, 1, 2, WIDE_BLOCK, *[1] * 12]
TOTAL = PROMPT + sum(BLOCKS)
CONTEXT, FUTURE = 32, 12


@pytest.fixture
def tokens():
    """Two rows, the second with padding on its left."""
    drawn = torch.randint(3, 97, (2, TOTAL), generator=torch.Generator().manual_seed(1))
    return drawn.masked_fill(real_columns() == 0, 0)


def real_columns():
    """1 where a column is no padding."""
    real = torch.ones(2, TOTAL, dtype=torch.long)
    real[1, :PAD] = 0
    return real


def forward(model, tokens, first, end, cache=None):
    """Logits of columns first..end on top of the cache."""
    real = real_columns()
    positions = (real.cumsum(-1) - 1).clamp_min(0)[:, first:end]
    return model(
        input_ids=tokens[:, first:end],
        attention_mask=real[:, :end],
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
    ).logits


def hidden_columns(held, heads, first, end):
    """What the queries of a block must not see of the columns before it, [2, heads, new, TOTAL]."""
    hidden = torch.zeros(2, heads, end - first, TOTAL, dtype=torch.bool)
    for row, caches in enumerate(held):
        for head in range(heads):
            kept = caches[head * len(caches) // heads]
            hidden[row, head, :, :first] = True
            hidden[row, head, :, kept[kept < first]] = False
    return hidden


@torch.inference_mode()
def test_logits_equal_the_models_own_attention_with_evicted_columns_hidden(
    adapted_model, plan_for, random_capacity, tokens, masked
):
    geometry, heads = geometry_of(adapted_model), anatomy_of(adapted_model).layers[0].heads
    plan = plan_for(geometry, random_capacity(geometry, 12, 40), 200, batch_size=2)
    hidden = [torch.zeros(2, heads, TOTAL, TOTAL, dtype=torch.bool) for _ in plan.capacity_tokens]
    ours, first = [], 0
    with budgeted(adapted_model, plan, ObservationWindow(window=8, kernel=3)) as cache:
        for block in [PROMPT, *BLOCKS]:
            end = first + block
            before = [cache.kept_positions(layer) for layer in range(geometry.layers)]
            ours.append(forward(adapted_model, tokens, first, end, cache))
            after = [cache.kept_positions(layer) for layer in range(geometry.layers)]
            # a block is cut after it has attended; one token may make room for itself first
            held = before if block > 1 else after
            for layer in range(geometry.layers if first else 0):
                rows = hidden_columns(held[layer], heads, first, end)
                hidden[layer][:, :, first:end] = rows
            first = end
            assert cache.nbytes() <= plan.budget_bytes
    modules = [module for _, module in attention_modules(adapted_model)]
    attentions = [(module, output_projection(module)) for module in modules]
    full = forward(adapted_model, tokens, 0, TOTAL)
    with masked(attentions, hidden):
        theirs = forward(adapted_model, tokens, 0, TOTAL)
    real = real_columns().bool()
    assert (torch.cat(ours, 1) - theirs)[real].abs().max() <= 1e-5
    assert (full - theirs)[real].abs().max() > 1e-2, "eviction must change something"


@dataclass(frozen=True)
class Noting(TokenHeuristic):
    """Keeps the newest tokens, and what it was shown."""

    shown: list = field(default_factory=list)

    def score(self, view):
        self.shown.append(view)
        return view.rank().float()


@torch.inference_mode()
@pytest.mark.parametrize("name", ["bloom", "mpt"])
def test_heuristics_are_shown_the_linear_biases(adapted, plan_for, tokens, name):
    model, heuristic = adapted(name), Noting()
    geometry = geometry_of(model)
    plan = plan_for(geometry, np.full((geometry.layers, geometry.kv_heads), 20), 200)
    with budgeted(model, plan, heuristic) as cache:
        model(tokens[:1, :PROMPT], past_key_values=cache)
        for column in range(PROMPT, PROMPT + 12):
            model(tokens[:1, column : column + 1], past_key_values=cache)
    assert len(heuristic.shown) > geometry.layers
    # of the paper, for 4 heads
    slopes = torch.tensor([1 / 4, 1 / 16, 1 / 64, 1 / 256])
    assert all(torch.equal(view.slopes, slopes) for view in heuristic.shown)


@pytest.fixture
def everything(adapted_model, plan_for):
    """A plan with room for all tokens of four rows."""
    geometry = geometry_of(adapted_model)
    capacity = [[min(TOTAL, w or TOTAL)] * geometry.kv_heads for w in geometry.windows]
    capacity = torch.tensor(capacity).numpy()
    return plan_for(geometry, capacity, TOTAL, 4, geometry.full_bytes(TOTAL, 4))


HOW = [{}, {"num_beams": 2}, {"do_sample": True, "top_k": 20}, {"prefill_chunk_size": 20}]


def test_keeping_everything_gives_the_tokens_of_plain_generate(adapted_model, everything, tokens):
    inputs = {
        "input_ids": tokens[:, :PROMPT],
        "attention_mask": real_columns()[:, :PROMPT],
        "max_new_tokens": 16,
    }
    for how in HOW:
        options = {"do_sample": False, **inputs, **how}
        torch.manual_seed(11)
        plain = adapted_model.generate(**options)
        torch.manual_seed(11)
        with budgeted(adapted_model, everything) as cache:
            ours = adapted_model.generate(**options, past_key_values=cache)
            assert cache.nbytes() <= everything.budget_bytes
        assert torch.equal(plain, ours), how


def test_keeping_everything_serves_a_second_turn(adapted_model, everything, tokens):
    first_prompt = tokens[:1, :PROMPT]
    options = {"do_sample": False, "max_new_tokens": 8, "suppress_tokens": [0]}
    with budgeted(adapted_model, everything) as cache:
        first = adapted_model.generate(first_prompt, **options, past_key_values=cache)
        prompt = torch.cat([first, first_prompt.flip(1)], 1)
        second = adapted_model.generate(prompt, **options, past_key_values=cache)
    assert torch.equal(second, adapted_model.generate(prompt, **options))


def test_generate_without_use_of_its_cache_is_refused(adapted, plan_for, tokens):
    """As MPT's configuration has it: generate would feed every token again at every step."""
    model = adapted("mpt")
    model.generation_config.use_cache = False
    geometry = geometry_of(model)
    plan = plan_for(geometry, np.full((geometry.layers, geometry.kv_heads), TOTAL), TOTAL)
    options = {"do_sample": False, "max_new_tokens": 4}
    with budgeted(model, plan) as cache:
        with pytest.raises(ValueError, match="Pass use_cache=True"):
            model.generate(tokens[:1, :PROMPT], **options, past_key_values=cache)
        cache.reset()
        options["use_cache"] = True
        ours = model.generate(tokens[:1, :PROMPT], **options, past_key_values=cache)
    assert torch.equal(model.generate(tokens[:1, :PROMPT], **options), ours)


def test_an_ordinary_cache_is_served_as_ever(adapted_model, tokens):
    options = {"do_sample": False, "max_new_tokens": 8}
    plain = adapted_model.generate(tokens[:1, :PROMPT], **options)
    own = DynamicCache(config=adapted_model.config)
    with attention_switched(adapted_model):
        inside = adapted_model.generate(tokens[:1, :PROMPT], **options, past_key_values=own)
    assert torch.equal(plain, inside)


def test_the_layers_that_are_watched_are_those_of_the_models_own_list(adapted_model):
    lists = [each for each in adapted_model.modules() if isinstance(each, torch.nn.ModuleList)]
    assert decoder_layers(adapted_model) in [list(each) for each in lists]


@pytest.fixture
def prompts():
    drawn = torch.randint(3, 97, (2, CONTEXT + FUTURE), generator=torch.Generator().manual_seed(2))
    return drawn.tolist()


@pytest.mark.parametrize("measure", ["output_error", "divergence"])
def test_profiles_can_be_measured(measurable_model, prompts, measure):
    options = {"measure": measure, "levels": (0.25, 0.5, 1.0), "progress": False}
    profile = measure_profile(measurable_model, prompts, HeavyHitter(), **options)
    assert profile.geometry == geometry_of(measurable_model)
    assert (profile.loss[..., 0] > 0).all()
    assert not profile.loss[..., 2].any()


@pytest.mark.parametrize("name", ["falcon with linear biases", "falcon with doubled biases"])
def test_rounded_biases_are_refused_by_the_measures(adapted, prompts, name):
    with pytest.raises(UnsupportedModel, match="bias"):
        measure_profile(adapted(name), prompts, HeavyHitter(), progress=False)


def test_a_measured_loss_is_what_the_models_own_attention_loses(measurable_model, prompts, masked):
    """One cache keeps 4 sinks and the 12 newest tokens of its context for the future queries."""
    layer, kv_head, ids = 0, 0, torch.tensor(prompts[:1])
    profile = measure_profile(
        measurable_model,
        prompts[:1],
        SinkRecent(sinks=4),
        measure=Ablation(),
        levels=(0.5, 1.0),
        future_tokens=FUTURE,
        progress=False,
    )
    shape = anatomy_of(measurable_model).layers[layer]
    group = slice(0, shape.heads // shape.kv_heads)
    total = CONTEXT + FUTURE
    hidden = [torch.zeros(1, shape.heads, total, total, dtype=torch.bool) for _ in profile.loss]
    hidden[layer][:, group, CONTEXT:, 4 : CONTEXT - 12] = True
    modules = [module for _, module in attention_modules(measurable_model)]
    with torch.inference_mode():
        full = measurable_model(ids, use_cache=False).logits
        with masked([(module, output_projection(module)) for module in modules], hidden):
            cut = measurable_model(ids, use_cache=False).logits
    wanted, got = (each[0, CONTEXT:].double().log_softmax(-1) for each in (full, cut))
    divergence = (wanted.exp() * (wanted - got)).sum(-1).mean()
    assert divergence > 0
    assert profile.loss[layer, kv_head, 0] == pytest.approx(float(divergence), rel=1e-3)
