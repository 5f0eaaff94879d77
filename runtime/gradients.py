"""How the model's predictions react to each layer's attention output."""

import torch
from torch import Tensor

from .replay import Replay

LABEL_SAMPLES = 2
_SEED = 0


def output_gradients(replay: Replay) -> list[Tensor]:
    """Differentiate the loss on labels that the model itself draws for the future tokens.

    The future tokens run once over the context that is held, and then back once for each label
    sample: the context itself does not depend on them. The labels are the same at every call with
    the same model and tokens.

    Args:
        replay: The future tokens and what the model holds of their context. The parameters get no
            gradients.

    Returns:
        For each layer the gradient at the future tokens by its attention output, before the output
        projection: [label_samples, heads, future, value_dim], float32.
    """
    logits, outputs = replay.run_with_gradient()
    with torch.inference_mode(False), torch.enable_grad():
        log_likelihood = logits.float().log_softmax(-1)
        samples = [_gradients(log_likelihood, outputs, sample) for sample in range(LABEL_SAMPLES)]
    return [
        torch.stack([sample[layer][0].float().transpose(0, 1) for sample in samples])
        for layer in range(len(outputs))
    ]


def _gradients(log_likelihood: Tensor, outputs: list[Tensor], sample: int) -> tuple[Tensor, ...]:
    generator = torch.Generator(log_likelihood.device).manual_seed(_SEED + sample)
    labels = torch.multinomial(log_likelihood.detach().exp(), 1, generator=generator)
    loss = -log_likelihood.gather(-1, labels).sum()
    return torch.autograd.grad(loss, outputs, retain_graph=sample < LABEL_SAMPLES - 1)
