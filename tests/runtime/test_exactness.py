"""With eviction, logits equal dense attention with a mask over the evicted tokens."""

import torch

from kvbudget.heuristics import HeavyHitter, ObservationWindow
from kvbudget.runtime import budgeted, geometry_of

TOLERANCE = {torch.float32: 1e-5}
PROMPT, PAD, WIDE_BLOCK = 48, 7, 40
BLOCKS = [1, 1, 3, 1, 1, 1, 1, 2, WIDE_BLOCK, *[1] * 12]


def padded_batch(vocabulary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two rows, the second with padding on its left, and the tokens that follow."""
    total = PROMPT + sum(BLOCKS)
    tokens = torch.randint(3, vocabulary, (2, total), generator=torch.Generator().manual_seed(1))
    seen = torch.ones(2, total, dtype=torch.long)
    seen[1, :PAD] = 0
    return tokens.masked_fill(seen == 0, 0), seen


def forward(model, tokens, seen, first, end, cache):
    """Logits of columns first..end on top of the cache."""
    positions = (seen.cumsum(-1) - 1).clamp_min(0)[:, first:end]
    return model(
        input_ids=tokens[:, first:end],
        attention_mask=seen[:, :end],
        position_ids=positions,
        past_key_values=cache,
    ).logits


def held_columns(cache, layers):
    """What every head holds now, `[layer][row][kv_head]`."""
    return [cache.kept_positions(layer) for layer in range(layers)]


@torch.inference_mode()
def test_every_family_equals_dense_attention_with_evicted_columns_masked(
    family_model, plan_for, random_capacity, oracle
):
    geometry = geometry_of(family_model)
    plan = plan_for(geometry, random_capacity(geometry, 12, 40), 200, batch_size=2)
    tokens, seen = padded_batch(97)
    full = family_model(input_ids=tokens, attention_mask=seen).logits
    worst = moved = 0.0
    with budgeted(family_model, plan, ObservationWindow(window=8, kernel=3)) as cache:
        logits, held, first = [], [], 0
        for block in [PROMPT, *BLOCKS]:
            before = held_columns(cache, geometry.layers)
            logits.append(forward(family_model, tokens, seen, first, first + block, cache))
            after = held_columns(cache, geometry.layers)
            # a block is cut after it has attended; one token may make room for itself first
            held.append([] if first == 0 else before if block > 1 else after)
            first += block
            assert cache.nbytes() <= plan.budget_bytes
    with oracle.installed(family_model) as everything:
        first = 0
        for block, ours, columns in zip([PROMPT, *BLOCKS], logits, held, strict=True):
            oracle.held = columns
            theirs = forward(family_model, tokens, seen, first, first + block, everything)
            real = seen[:, first : first + block].bool()
            worst = max(worst, float((ours - theirs)[real].abs().max()))
            if first:
                moved = max(moved, float((ours - full[:, first : first + block])[real].abs().max()))
            first += block
    assert worst <= TOLERANCE[torch.float32]
    assert moved > 1e-2, "eviction must change something, or the comparison shows nothing"


@torch.inference_mode()
def test_padding_is_never_stored(model_of, plan_for, random_capacity):
    model = model_of("LlamaForCausalLM")
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 6, 60), 200, batch_size=2)
    tokens, seen = padded_batch(97)
    with budgeted(model, plan, HeavyHitter()) as cache:
        forward(model, tokens, seen, 0, PROMPT, cache)
        for layer in range(geometry.layers):
            rows = cache.kept_positions(layer)
            assert all(int(columns.min()) >= PAD for columns in rows[1])
            assert all(int(columns.min()) == 0 for columns in rows[0])
