"""Importance measured on models: what a cache heuristic is shown, and what becomes of it."""

import inspect
import subprocess
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

import kvbudget as kvb
from kvbudget import heuristics as H
from kvbudget.runtime import geometry_of, measure_importance
from kvbudget.runtime.anatomy import attention_modules
from kvbudget.runtime.importance import _gradients

NAMES = H.names(H.CacheHeuristic)


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(3, 97, (64,), generator=generator).tolist() for _ in range(3)]


@dataclass(frozen=True, slots=True)
class Watching(H.ProbeHeuristic):
    """Remembers what it was shown."""

    needs_gradient = True
    views: list[H.CacheView] = field(default_factory=list)
    probes: list[H.Probe] = field(default_factory=list)

    def probe(self, prompt, vocabulary, draw):
        self.probes.append(H.RetrievalHeads().probe(prompt, vocabulary, draw))
        return self.probes[-1]

    def importance(self, view):
        self.views.append(view)
        return torch.ones(view.layer.keys.shape[1])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("architecture", ["GPT2LMHeadModel", "Gemma2ForCausalLM"])
def test_every_cache_heuristic_weighs_models_and_makes_a_plan(
    model_of, prompts, name, architecture
):
    model = model_of(architecture)
    importance = measure_importance(model, prompts, H.build(name), progress=False)
    geometry = geometry_of(model)
    assert importance.shape == (geometry.layers, geometry.kv_heads)
    assert importance.dtype == np.float64
    assert (importance >= 0).all()
    assert importance.max() > 0
    profile = kvb.Profile.from_importance(importance, geometry, heuristic="sink_recent")
    plan = kvb.allocate(profile, budget="50%", context_tokens=64)
    best = np.unravel_index(importance.argmax(), importance.shape)
    most = geometry.most_tokens(64)[best[0]]
    assert plan.capacity_tokens[best] == min(plan.capacity_tokens.max(), most)
    assert plan.capacity_tokens.min() < 32


def test_importance_is_the_mean_over_the_prompts(model_of, prompts):
    model = model_of("LlamaForCausalLM")
    together = measure_importance(model, prompts, H.ResidualChange(), progress=False)
    alone = [measure_importance(model, [p], H.ResidualChange(), progress=False) for p in prompts]
    assert np.allclose(together, np.mean(alone, axis=0), rtol=1e-6)


def test_the_model_reads_the_probe_and_the_heuristic_sees_what_is_copied(model_of, prompts):
    model, watching = model_of("LlamaForCausalLM"), Watching()
    measure_importance(model, prompts, watching, progress=False)
    assert len(watching.probes) == 3
    assert len(watching.views) == 9
    embed = model.get_input_embeddings()
    for probe, view in zip(watching.probes, watching.views[::3], strict=True):
        assert view.layer.layer == 0
        assert torch.equal(view.residual[0], embed(torch.tensor(probe.tokens)))
        assert view.copied_from.tolist() == list(probe.copied_from)
        assert view.gradient.shape == (2, 4, len(probe.tokens), 16)


def test_the_same_seed_gives_the_same_probes_and_another_one_others(model_of, prompts):
    model = model_of("LlamaForCausalLM")
    probes = []
    for seed in (0, 0, 1):
        watching = Watching()
        measure_importance(model, prompts[:1] * 2, watching, seed=seed, progress=False)
        probes.append(watching.probes)
    assert probes[0] == probes[1] != probes[2]
    assert probes[0][0] != probes[0][1]


def test_a_heuristic_that_asks_for_nothing_gets_the_prompt_itself(model_of, prompts, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "kvbudget.runtime.importance.checked_importance",
        lambda _, view: seen.append(view) or torch.ones(2),
    )
    model = model_of("LlamaForCausalLM")
    measure_importance(model, prompts[:1], H.Cake(), progress=False)
    assert torch.equal(seen[0].residual[0], model.get_input_embeddings()(torch.tensor(prompts[0])))
    assert all(view.gradient is None and view.copied_from is None for view in seen)


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GptOssForCausalLM"])
def test_gradients_are_those_of_a_gate_on_each_token_of_a_head(model_of, prompts, architecture):
    """Changing what one head writes at one token changes the likelihood of drawn labels."""
    model, tokens = model_of(architecture), prompts[0]
    gradients = _gradients(model, tokens)
    log_likelihood = model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
    labels = torch.multinomial(
        log_likelihood.detach().exp(), 1, generator=torch.Generator().manual_seed(0)
    )
    layer, head, token, step = 1, 2, 30, 1e-2
    module = [module for _, module in attention_modules(model)][layer]
    along = gradients[layer][0, head, token]
    losses = []
    for sign in (-1, 1):

        def nudged(_, inputs, sign=sign):
            changed = inputs[0].clone()
            width = along.shape[0]
            changed[0, token, head * width : (head + 1) * width] += (
                sign * step * along / along.norm()
            )
            return (changed,)

        hook = module.o_proj.register_forward_pre_hook(nudged)
        with torch.no_grad():
            found = model(torch.tensor([tokens])).logits[0].float().log_softmax(-1)
        hook.remove()
        losses.append(-found.gather(-1, labels).sum().item())
    slope = (losses[1] - losses[0]) / (2 * step)
    assert slope == pytest.approx(along.norm().item(), rel=0.02)


def test_numbers_of_the_wrong_kind_are_refused(model_of, prompts):
    model = model_of("LlamaForCausalLM")
    with pytest.raises(TypeError, match="`heuristic` must be an instance of a CacheHeuristic"):
        measure_importance(model, prompts, H.KeyNorm(), progress=False)
    with pytest.raises(ValueError, match="Every prompt must have at least 32 tokens"):
        measure_importance(model, [prompts[0][:20]], H.HeadKV(), progress=False)


def test_the_model_is_left_as_it_was(model_of, prompts):
    model = model_of("LlamaForCausalLM").train()
    before = model.config._attn_implementation
    measure_importance(model, prompts, H.Fisher(), progress=False)
    assert model.training
    assert model.config._attn_implementation == before
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (kvb.solvers.SqueezeAttention, "residual_change"),
        (kvb.solvers.CompressKV, "compress_kv"),
        (kvb.solvers.CAKE, "cake"),
        (kvb.solvers.RazorAttention, "retrieval_heads"),
        (kvb.solvers.DuoAttention, "passkey_heads"),
        (kvb.solvers.HeadKV, "head_kv"),
        (kvb.solvers.CoKV, "fisher"),
    ],
)
def test_a_published_rule_divides_by_what_was_measured(model_of, prompts, rule, name):
    model = model_of("LlamaForCausalLM")
    importance = measure_importance(model, prompts, H.build(name), progress=False)
    profile = kvb.Profile.from_importance(np.ones((3, 2)), geometry_of(model))
    plan = kvb.allocate(
        profile, budget="60%", context_tokens=2000, solver=rule(importance=importance)
    )
    tokens, best = plan.capacity_tokens, importance == importance.max()
    assert tokens[best].min() == tokens.max() > tokens.min()


@pytest.mark.parametrize("name", ["fisher", "retrieval_heads", "passkey_heads", "head_kv"])
def test_the_retrieval_head_of_the_shipped_model_stands_out(name):
    """Cutting this cache alone is what loses facts; see the reference model's card."""
    from kvbudget.prose import built_in_sentences
    from kvbudget.trials import TrialMaker

    model, tokenizer = kvb.reference_model()
    maker = TrialMaker(built_in_sentences(), tokenizer, 384, 128)
    importance = measure_importance(model, [maker.needles(1).ids], H.build(name), progress=False)
    assert np.unravel_index(importance.argmax(), importance.shape) == (4, 0)
    assert importance.max() > 0.5 * importance.sum()


def test_the_example_runs_as_it_is_written():
    shown = inspect.getdoc(measure_importance).split(":\n\n")[1].split("Memory is")[0]
    program = (
        "from tests.runtime.conftest import build_model\n"
        "model, prompts = build_model('LlamaForCausalLM'), [list(range(3, 67))]\n"
        f"{textwrap.dedent(shown)}"
        "assert (solver.importance == importance).all()\n"
        "assert profile.loss.shape[:2] == importance.shape\n"
    )
    folder = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program], cwd=folder, check=True)
