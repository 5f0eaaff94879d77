"""How the model's predictions react to each layer's attention output."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from transformers import PreTrainedModel

from .attention_call import AttentionCall
from .hf import attention_switched, check_handed_over, layer_windows, observed_cache

LABEL_SAMPLES = 2
_SEED = 0


def output_gradients(model: PreTrainedModel, tokens: list[int], future: int) -> list[Tensor]:
    """Differentiate the loss on labels that the model itself draws for the last tokens.

    One forward pass, and one backward pass for each label sample. The labels are the same at every
    call with the same model and tokens.

    Args:
        model: The model, whose parameters get no gradients.
        tokens: Token ids of a prompt.
        future: Last tokens whose predictions count.

    Returns:
        For each layer the gradient at the future tokens by its attention output, before the output
        projection: [label_samples, heads, future, value_dim], float32.
    """
    outputs: list[Tensor] = []

    def observe(_index: int, _call: AttentionCall, output: Tensor) -> None:
        # parameters are frozen, so the graph starts at the first layer's attention
        outputs.append(output if output.requires_grad else output.requires_grad_())

    windows = layer_windows(model.config.get_text_config(decoder=True))
    with torch.inference_mode(False):
        inputs = torch.tensor([tokens], device=model.device)
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        _frozen(model),
        attention_switched(model),
    ):
        cache = observed_cache(windows, observe)
        logits = model(
            input_ids=inputs, past_key_values=cache, use_cache=True, logits_to_keep=future
        ).logits
        check_handed_over()
        log_likelihood = logits[0].float().log_softmax(-1)
        samples = [_gradients(log_likelihood, outputs, sample) for sample in range(LABEL_SAMPLES)]
    return [
        torch.stack([sample[layer][0, -future:].float().transpose(0, 1) for sample in samples])
        for layer in range(len(outputs))
    ]


def _gradients(log_likelihood: Tensor, outputs: list[Tensor], sample: int) -> tuple[Tensor, ...]:
    generator = torch.Generator(log_likelihood.device).manual_seed(_SEED + sample)
    labels = torch.multinomial(log_likelihood.detach().exp(), 1, generator=generator)
    loss = -log_likelihood.gather(-1, labels).sum()
    return torch.autograd.grad(loss, outputs, retain_graph=sample < LABEL_SAMPLES - 1)


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
