"""A measured loss is what the running cache then does to the layer."""

import numpy as np
import pytest
import torch

from kvbudget import heuristics as H
from kvbudget.runtime import budgeted, calibration, geometry_of, measure_profile
from kvbudget.runtime.anatomy import attention_modules
from kvbudget.runtime.gradients import output_gradients
from kvbudget.runtime.output_projection import output_weight
from kvbudget.runtime.replay import FullContext, Replay
from kvbudget.runtime.watching import final_residual_norm, watch_prompt

LEVELS = (0.2, 0.5, 1.0)
PROMPT, FUTURE = 64, 16


@pytest.fixture
def prompts():
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(3, 97, (PROMPT,), generator=generator).tolist() for _ in range(2)]


def test_every_family_can_be_measured_and_keeping_all_loses_nothing(family_model, prompts):
    profile = measure_profile(family_model, prompts, H.HeavyHitter(), levels=LEVELS, progress=False)
    geometry = geometry_of(family_model)
    assert profile.sample_loss.shape == (2, geometry.layers, geometry.kv_heads, 3)
    assert np.array_equal(profile.loss, profile.sample_loss.mean(0))
    assert not profile.loss[..., -1].any()
    assert (profile.loss[..., 0] > 0).all()
    assert profile.heuristic == "heavy_hitter"
    assert profile.geometry == geometry


def first_layer_outputs(model, tokens, cache=None):
    """What the first attention module writes for the future tokens, [future, hidden]."""
    caught = []
    _, module = next(iter(attention_modules(model)))
    hook = module.register_forward_hook(lambda *parts: caught.append(parts[2][0]))
    with torch.inference_mode():
        if cache is None:
            model(torch.tensor([tokens]))
        else:
            model(torch.tensor([tokens[:-FUTURE]]), past_key_values=cache)
            model(torch.tensor([tokens[-FUTURE:]]), past_key_values=cache)
    hook.remove()
    return caught[-1][0, -FUTURE:]


@pytest.mark.parametrize("architecture", ["LlamaForCausalLM", "GPT2LMHeadModel"])
@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("head", [0, 1])
def test_output_error_is_what_the_running_cache_changes(
    model_of, plan_for, prompts, architecture, level, head
):
    """Only one cache of the first layer is cut: the layer's change is that cache's loss."""
    model, tokens = model_of(architecture), prompts[0]
    geometry = geometry_of(model)
    heuristic = H.ObservationWindow(window=8, kernel=3)
    profile = measure_profile(
        model,
        [tokens],
        heuristic,
        levels=LEVELS,
        measure=H.measures.OutputError(),
        future_tokens=FUTURE,
        progress=False,
    )
    context = PROMPT - FUTURE
    capacity = np.full((geometry.layers, geometry.kv_heads), context)
    # the block of future tokens is cut only after it has attended
    capacity[0, head] = geometry.capacity_tokens(LEVELS, context)[0, head, level]
    plan = plan_for(geometry, capacity, context)
    norms = final_residual_norm(model, tokens)[-FUTURE:]
    with budgeted(model, plan, heuristic) as cache:
        cut = first_layer_outputs(model, tokens, cache)
    change = cut - first_layer_outputs(model, tokens)
    measured = float(((change.norm(dim=-1) / norms) ** 2).mean())
    assert profile.loss[0, head, level] == pytest.approx(measured, rel=1e-3)


def test_the_final_residual_is_what_the_last_norm_gets(model_of, prompts):
    model = model_of("LlamaForCausalLM")
    caught = []
    hook = model.model.norm.register_forward_pre_hook(lambda _, given: caught.append(given[0]))
    with torch.inference_mode():
        model(torch.tensor([prompts[0]]))
    hook.remove()
    expected = caught[0][0].norm(dim=-1)
    torch.testing.assert_close(final_residual_norm(model, prompts[0]), expected)


def replay_of(model, tokens, future=FUTURE):
    """The future tokens, and the context as a forward pass over all tokens leaves it."""
    keys, values = [], []

    def look(sight):
        keys.append(sight.view.keys[:, :, :-future])
        values.append(sight.view.values[:, :, :-future])

    watch_prompt(model, tokens, look)
    return Replay(model, tokens[-future:], FullContext(keys, values))


def test_gradients_are_the_derivative_of_the_log_likelihood(model_of, prompts):
    """Against a finite difference in one attention output of the first and the last layer."""
    model, tokens = model_of("LlamaForCausalLM").double(), prompts[0]
    gradients = output_gradients(replay_of(model, tokens))
    assert [tuple(g.shape) for g in gradients] == [(2, 4, FUTURE, 16)] * 3
    modules = [module for _, module in attention_modules(model)]
    row, head, dim, step = PROMPT - 5, 2, 3, 1e-5

    def loss_when_nudged(layer, size):
        def nudge(_, given):
            mixed = given[0].clone()
            mixed[0, row, head * 16 + dim] += size
            return (mixed,)

        hook = modules[layer].o_proj.register_forward_pre_hook(nudge)
        with torch.inference_mode():
            logits = model(torch.tensor([tokens])).logits[0, -FUTURE:]
        hook.remove()
        return -logits.float().log_softmax(-1).gather(-1, labels).sum()

    with torch.inference_mode():
        logits = model(torch.tensor([tokens])).logits[0, -FUTURE:].float()
    drawn = torch.Generator().manual_seed(0)
    labels = torch.multinomial(logits.log_softmax(-1).exp(), 1, generator=drawn)
    for layer in (0, 2):
        rise = loss_when_nudged(layer, step * 100) - loss_when_nudged(layer, -step * 100)
        ours = gradients[layer][0, head, FUTURE - 5, dim]
        assert float(ours) == pytest.approx(float(rise) / (200 * step), rel=0.05, abs=1e-3)


def test_parameters_stay_trainable_and_without_gradients(model_of, prompts):
    model = model_of("Qwen2ForCausalLM")
    output_gradients(replay_of(model, prompts[0]))
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_small_predicted_losses_are_what_is_measured(model_of, plan_for):
    """The sum over caches predicts the divergence of the running model, within a factor of two."""
    model = model_of("LlamaForCausalLM")
    geometry = geometry_of(model)
    generator = torch.Generator().manual_seed(8)
    tokens = [torch.randint(3, 97, (160,), generator=generator).tolist() for _ in range(4)]
    heuristic = H.ObservationWindow(window=8, kernel=3)
    levels = (0.9, 0.97, 1.0)
    profile = measure_profile(
        model, tokens, heuristic, levels=levels, future_tokens=40, progress=False
    )
    context, measured = 120, []
    plan = plan_for(geometry, geometry.capacity_tokens(levels, context)[:, :, 1], context)
    for ids in tokens:
        ids = torch.tensor([ids])
        with torch.inference_mode(), budgeted(model, plan, heuristic) as cache:
            full = model(ids).logits[0, context:].log_softmax(-1)
            model(ids[:, :context], past_key_values=cache)
            cut = model(ids[:, context:], past_key_values=cache).logits[0].log_softmax(-1)
        measured.append(float((full.exp() * (full - cut)).sum(-1).mean()))
    predicted = profile.loss[:, :, 1].sum()
    assert 0.5 < predicted / np.mean(measured) < 2


def test_the_cut_weights_add_up_to_the_modules_own_projection(family_model):
    heads = family_model.config.num_attention_heads
    for _, module in attention_modules(family_model):
        weight = output_weight(module, heads)
        mixed = torch.randn(5, heads, weight.shape[1])
        names = ("o_proj", "c_proj", "out_proj", "dense")
        projection = next(p for name, p in module.named_children() if name in names)
        bias = projection.bias if projection.bias is not None else 0.0
        expected = projection(mixed.flatten(1)) - bias
        ours = torch.einsum("thd,hdo->to", mixed, weight)
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_measures_may_be_named_or_passed(model_of, prompts):
    model = model_of("Qwen3ForCausalLM")
    by_name, by_object = (
        measure_profile(model, prompts, H.KeyNorm(), levels=LEVELS, measure=measure, progress=False)
        for measure in ("attention_mass", H.measures.AttentionMass())
    )
    assert np.array_equal(by_name.loss, by_object.loss)
    assert by_name.measure == "attention_mass"
    assert by_name.loss.max() <= 1


@pytest.mark.parametrize("measure", ["attention_mass", "output_error", "ablation", "divergence"])
def test_all_the_work_that_was_announced_is_reported(model_of, prompts, measure, monkeypatch):
    """Otherwise the time left would be wrong."""
    announced, reported = [], []
    of = calibration.PromptLosses.of

    def listening(self, prompt, advance):
        announced.append(self.work(prompt))
        return of(self, prompt, reported.append)

    monkeypatch.setattr(calibration.PromptLosses, "of", listening)
    options = {"rerun_passes": 0.0} if measure == "divergence" else {}
    measure_profile(
        model_of("Qwen2ForCausalLM"),
        prompts,
        H.KeyNorm(),
        levels=LEVELS,
        measure=H.measures.get(measure)(**options),
        progress=False,
    )
    assert len(reported) >= 6
    assert sum(reported) == sum(announced)


def test_samples_stand_in_the_order_of_the_prompts(model_of):
    """The longest prompt is measured first, wherever it stands."""
    model, draw = model_of("LlamaForCausalLM"), torch.Generator().manual_seed(6)
    prompts = [torch.randint(3, 97, (n,), generator=draw).tolist() for n in (40, 70, 33, 52)]

    def measured(some):
        return measure_profile(
            model, some, H.KeyNorm(), levels=LEVELS, measure="attention_mass", progress=False
        ).sample_loss

    alone = np.concatenate([measured([prompt]) for prompt in prompts])
    assert np.array_equal(measured(prompts), alone)


def test_the_model_is_left_as_it_was(model_of, prompts):
    model = model_of("LlamaForCausalLM").train()
    before = model.config._attn_implementation
    measure_profile(model, prompts, H.SinkRecent(), levels=LEVELS, progress=False)
    assert model.training
    assert model.config._attn_implementation == before
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"prompts": [[5] * 10]}, "at least 32 tokens"),
        ({"prompts": [[5] * 40 + [97]]}, r"reads tokens 0\.\.96"),
        ({"levels": (0.5, 0.2, 1.0)}, "rising shares"),
        ({"levels": (0.2, 0.5)}, "ending in 1"),
        ({"future_tokens": 64}, "leave some context"),
        ({"measure": "output_eror"}, "output_error"),
        ({"prompts": [[5] * 513]}, "at most 512 tokens, but prompt 0 has 513"),
    ],
)
def test_bad_arguments_get_one_clear_sentence(model_of, prompts, change, message):
    options = {"prompts": prompts, "levels": LEVELS, "progress": False, **change}
    with pytest.raises(ValueError, match=message):
        measure_profile(model_of("LlamaForCausalLM"), heuristic=H.SinkRecent(), **options)


def test_measuring_works_in_inference_mode_and_keeps_what_was_in_evaluation(model_of, prompts):
    model = model_of("LlamaForCausalLM").train()
    model.model.layers[0].eval()
    with torch.inference_mode():
        measure_profile(model, prompts, H.KeyNorm(), levels=LEVELS, progress=False)
    assert not model.model.layers[0].mlp.training
    assert model.model.layers[1].mlp.training


def test_texts_need_a_tokenizer(model_of):
    with pytest.raises(TypeError, match="tokenizer="):
        measure_profile(model_of("LlamaForCausalLM"), ["a text"], H.SinkRecent(), progress=False)


@pytest.mark.parametrize("heuristic", [H.SinkRecent, "sink_recent", H.Baklava()])
def test_only_an_instance_of_a_token_heuristic_is_measured(model_of, prompts, heuristic):
    with pytest.raises(TypeError, match="must be an instance of a TokenHeuristic"):
        measure_profile(model_of("LlamaForCausalLM"), prompts, heuristic, progress=False)


def test_tokens_without_a_list_around_them_are_refused(model_of):
    with pytest.raises(TypeError, match="a list of their own"):
        measure_profile(model_of("LlamaForCausalLM"), [5] * 40, H.SinkRecent(), progress=False)
