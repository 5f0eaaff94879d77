"""Where the estimate is refined, the profile holds what ablation finds."""

import numpy as np
import pytest
import torch

from kvbudget.heuristics import KeyNorm
from kvbudget.heuristics.measures import Ablation, Divergence
from kvbudget.runtime import measure_profile
from kvbudget.runtime.prompt_losses import PromptLosses, SplitPrompt
from kvbudget.runtime.session import geometry_of

LEVELS = (0.1, 0.25, 0.5, 0.75, 1.0)
FUTURE = 16


@pytest.fixture(params=["LlamaForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM"])
def model(request, model_of):
    return model_of(request.param)


@pytest.fixture
def prompts():
    return torch.randint(3, 97, (2, 64), generator=torch.Generator().manual_seed(8)).tolist()


def losses(model, prompts, measure):
    options = {"levels": LEVELS, "future_tokens": FUTURE, "progress": False}
    return measure_profile(model, prompts, KeyNorm(), measure=measure, **options).sample_loss


def test_with_many_reruns_every_curve_starts_at_the_true_loss(model, prompts):
    exact = losses(model, prompts, Ablation())
    found = losses(model, prompts, Divergence(rerun_passes=100.0))
    np.testing.assert_allclose(found[..., 0], exact[..., 0], rtol=1e-5, atol=1e-9)
    assert not found[..., -1].any()


def test_few_reruns_mend_the_largest_curves_and_leave_the_others(model, prompts):
    exact = losses(model, prompts, Ablation())
    estimate = losses(model, prompts, Divergence(rerun_passes=0.0))
    found = losses(model, prompts, Divergence(rerun_passes=0.5))  # 2 runs a prompt: 1 cache
    for sample in range(len(prompts)):
        largest = np.unravel_index(estimate[sample, ..., 0].argmax(), estimate.shape[1:3])
        at = (sample, *largest)
        np.testing.assert_allclose(found[at][0], exact[at][0], rtol=1e-5)
        np.testing.assert_allclose(found[at][2], exact[at][2], rtol=1e-5)
        others = np.ones(estimate.shape[1:3], dtype=bool)
        others[largest] = False
        np.testing.assert_array_equal(found[sample][others], estimate[sample][others])


def test_reruns_are_counted_in_forward_passes_of_the_whole_prompt(model):
    geometry = geometry_of(model)
    prompt = SplitPrompt(list(range(3, 67)), FUTURE)
    for passes, wanted in ((0.0, 0), (1.0, 4), (2.6, 10)):
        measured = PromptLosses(
            model, geometry, KeyNorm(), Divergence(rerun_passes=passes), np.array(LEVELS)
        )
        done = []
        measured.of(prompt, done.append)
        assert measured._reruns(prompt) == wanted
        assert sum(done) <= measured.work(prompt)
    ablation = PromptLosses(model, geometry, KeyNorm(), Ablation(), np.array(LEVELS))
    assert ablation._reruns(prompt) == 0


@pytest.mark.parametrize("passes", [-1.0, float("nan"), float("inf")])
def test_work_that_cannot_be_is_refused(passes):
    with pytest.raises(ValueError, match="`rerun_passes` must be finite and at least 0"):
        Divergence(rerun_passes=passes)
