"""Running the future again with one cache cut is what a masked dense forward gives."""

import numpy as np
import pytest
import torch

from kvbudget import heuristics as H
from kvbudget import reference_model
from kvbudget.prose import built_in_sentences
from kvbudget.runtime import geometry_of, measure_profile
from kvbudget.runtime import replay as replay_module
from kvbudget.runtime.replay import FullContext, Replay, mean_divergence
from kvbudget.runtime.watching import watch_prompt
from kvbudget.trials import TrialMaker

LEVELS = (0.2, 0.5, 1.0)
PROMPT, FUTURE = 64, 16
CONTEXT = PROMPT - FUTURE


@pytest.fixture
def prompt():
    generator = torch.Generator().manual_seed(4)
    return torch.randint(3, 97, (PROMPT,), generator=generator).tolist()


def measured(model, prompts, measure, levels=LEVELS, heuristic=None, future=FUTURE):
    heuristic = heuristic or H.ObservationWindow(window=8, kernel=3)
    return measure_profile(
        model,
        prompts,
        heuristic,
        levels=levels,
        measure=measure,
        future_tokens=future,
        progress=False,
    ).loss


def masked_predictions(oracle, model, prompt, held):
    """Log-probabilities of the future over a dense cache with a mask per head, float64."""
    tokens = torch.tensor([prompt])
    oracle.held = []
    with oracle.installed(model) as cache, torch.inference_mode():
        model(tokens[:, :CONTEXT], past_key_values=cache)
        oracle.held = held
        logits = model(tokens[:, CONTEXT:], past_key_values=cache).logits[0]
    return logits.double().log_softmax(-1)


def kept_columns(model, prompt, heuristic, layer, kv_head, tokens):
    """Columns that a layer's cache keeps when only sinks and recent tokens are protected."""
    found = {}
    watch_prompt(model, prompt[:CONTEXT], lambda sight: found.update({sight.view.layer: sight}))
    view = found[layer].view
    scores = heuristic.score(H.observed(heuristic, view))[0, kv_head].double()
    window = view.window or CONTEXT + 1
    reached = range(max(0, CONTEXT - window + 1), CONTEXT)
    first, last = list(reached)[:4], list(reached)[-16:]
    protected = first + [column for column in reversed(last) if column not in first]
    others = sorted(set(reached) - set(protected), key=lambda column: -scores[column])
    return torch.tensor(sorted((protected + others)[:tokens]), dtype=torch.long)


def test_ablation_is_the_divergence_of_a_masked_dense_forward(family_model, prompt, oracle):
    """Every family; the first and the last layer, both lossy levels, one head each."""
    model, heuristic = family_model, H.KeyNorm()
    geometry = geometry_of(model)
    loss = measured(model, [prompt], "ablation", heuristic=heuristic)
    kept = geometry.capacity_tokens(LEVELS, CONTEXT)
    everything = [[[torch.arange(CONTEXT)] * geometry.kv_heads] for _ in range(geometry.layers)]
    full = masked_predictions(oracle, model, prompt, everything)
    for layer, kv_head in ((0, 1), (geometry.layers - 1, 0)):
        for level in (0, 1):
            columns = kept_columns(
                model, prompt, heuristic, layer, kv_head, int(kept[layer, kv_head, level])
            )
            held = [[list(row) for row in rows] for rows in everything]
            held[layer][0][kv_head] = columns
            cut = masked_predictions(oracle, model, prompt, held)
            expected = float((full.exp() * (full - cut)).sum(-1).mean())
            assert loss[layer, kv_head, level] == pytest.approx(expected, rel=1e-3, abs=1e-5)
    assert (loss[..., 0] > 1e-4).all()
    assert not loss[..., -1].any()


def test_small_divergences_are_what_ablation_finds():
    """Where little is lost the second-order estimate holds, on a model that was trained."""
    model, tokenizer = reference_model()
    maker = TrialMaker(built_in_sentences(), tokenizer, 384, 64)
    prompts = [trial.ids for trial in maker.mixed(3, seed=5)]
    levels, small = (0.3, 0.6, 0.9, 1.0), 0.01
    exact = measured(model, prompts, "ablation", levels, future=64)
    estimate = measured(model, prompts, H.measures.Divergence(rerun_passes=0.0), levels, future=64)
    near = (exact > 1e-6) & (exact < small)
    ratio = estimate[near].sum() / exact[near].sum()
    assert near.sum() > 20
    assert 0.5 < ratio < 2
    ranks = [np.argsort(np.argsort(loss[near])) for loss in (exact, estimate)]
    assert np.corrcoef(ranks)[0, 1] > 0.8


def test_the_number_of_changes_run_at_once_does_not_matter(model_of, prompt, monkeypatch):
    model = model_of("Gemma3ForCausalLM")
    several = measured(model, [prompt], "ablation")
    monkeypatch.setattr(replay_module, "MOST_ROW_TOKENS", 1)
    one_by_one = measured(model, [prompt], "ablation")
    np.testing.assert_allclose(several, one_by_one, rtol=1e-4, atol=1e-9)


def test_no_change_is_no_divergence(model_of, prompt):
    model = model_of("GptOssForCausalLM")
    keys, values = [], []

    def look(sight):
        keys.append(sight.view.keys[:, :, :CONTEXT])
        values.append(sight.view.values[:, :, :CONTEXT])

    watch_prompt(model, prompt, look)
    replay = Replay(model, prompt[CONTEXT:], FullContext(keys, values))
    for layer in range(3):
        assert replay.divergence(layer, 1, torch.zeros(2, 2, FUTURE, 16)).max() < 1e-12


def test_divergence_of_predictions_is_exact_even_when_it_is_tiny():
    """Against the closed form of the second order, where float32 would round it all away."""
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(70, 50, generator=draw, dtype=torch.float64)
    change = 1e-5 * torch.randn(70, 50, generator=draw, dtype=torch.float64)
    share = logits.softmax(-1)
    variance = (share * change.square()).sum(-1) - (share * change).sum(-1).square()
    found = mean_divergence(logits, logits + change)
    assert float(found) == pytest.approx(float(variance.mean()) / 2, rel=1e-3)
    assert float(mean_divergence(logits, logits)) == 0


def test_a_single_future_token_is_enough(model_of, prompt):
    loss = measured(model_of("MistralForCausalLM"), [prompt], "ablation", future=1)
    assert np.isfinite(loss).all()
    assert loss[..., 0].max() > 0
