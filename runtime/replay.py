"""A prompt's context kept in full, over which its future tokens are run again and again."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from .anatomy import layout_of
from .attention_call import AttentionCall
from .devices import input_device
from .hf import (
    Attend,
    attention_switched,
    delegating_cache,
    ordinary_attention,
    refuse_stranded,
)
from .watching import decoder_layers

MOST_ROW_TOKENS = 4096
MOST_LOGITS = 2**27


@dataclass(frozen=True, slots=True)
class FullContext:
    """Keys and values of a context in every layer, nothing evicted.

    Args:
        keys: For each layer [1, kv_heads, context, head_dim].
        values: For each layer [1, kv_heads, context, value_dim].
    """

    keys: list[Tensor]
    values: list[Tensor]

    def extended(self, layer: int, call: AttentionCall) -> AttentionCall:
        """The call over the context and its own tokens, one sequence."""
        return replace(
            call,
            keys=torch.cat([self.keys[layer].to(call.keys.device), call.keys], 2),
            values=torch.cat([self.values[layer].to(call.values.device), call.values], 2),
        )


class Replay:
    """Runs the future tokens of one prompt over its full context.

    Args:
        model: The model that read the context.
        future: Token ids behind the context.
        context: What every layer keeps of the context.
    """

    def __init__(self, model: PreTrainedModel, future: list[int], context: FullContext) -> None:
        self._model, self._future, self._context = model, future, context
        self._layers = decoder_layers(model)
        self._unchanged: _Unchanged | None = None

    def run_with_gradient(self) -> tuple[Tensor, list[Tensor]]:
        """Run the future tokens so that their predictions can be differentiated.

        The graph reaches back to the first layer's attention output at the future tokens, and no
        attention weights and no copies of the context are kept in it.

        Returns:
            Logits, [future, vocabulary], and for each layer its attention output, [1, future,
            heads, value_dim].
        """
        outputs: list[Tensor] = []

        def attend(layer: int, call: AttentionCall) -> Tensor:
            def over_context(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
                own = replace(call, queries=queries, keys=keys, values=values)
                return ordinary_attention(self._context.extended(layer, own))

            given = (call.queries, call.keys, call.values)
            output: Tensor = checkpoint(over_context, *given, use_reentrant=False)
            # parameters are frozen, so the graph starts at the first layer's attention
            outputs.append(output if output.requires_grad else output.requires_grad_())
            return outputs[-1]

        with torch.inference_mode(False), torch.enable_grad(), _frozen(self._model):
            return self._run(attend)[0], outputs

    def divergence(self, layer: int, kv_head: int, change: Tensor) -> Tensor:
        """What the model's predictions lose when one cache's attention output changes.

        The layers below do not notice; those above run anew, over the full context.

        Args:
            layer: Where the cache is.
            kv_head: Which of its caches it is.
            change: Changes of the attention output at the future tokens, each tried by itself,
                [changes, group, future, value_dim].

        Returns:
            Kullback-Leibler divergence from the unchanged model, mean over the future tokens, in
            nats, [changes], float64.
        """
        with torch.inference_mode(False), torch.no_grad():
            unchanged = self._unchanged = self._unchanged or self._run_unchanged()
            parts = change.split(self._most_rows(unchanged.logits))
            found = [self._divergence(unchanged, layer, kv_head, part) for part in parts]
        return torch.cat(found)

    def _most_rows(self, logits: Tensor) -> int:
        return max(1, min(MOST_ROW_TOKENS // len(logits), MOST_LOGITS // logits.numel()))

    def _run_unchanged(self) -> "_Unchanged":
        attended: list[Tensor] = []
        answers: list[Any] = []

        def attend(layer: int, call: AttentionCall) -> Tensor:
            attended.append(ordinary_attention(self._context.extended(layer, call)))
            return attended[-1]

        def remember(_module: nn.Module, _inputs: tuple[Any, ...], answer: Any) -> None:
            answers.append(answer)

        with ExitStack() as stack:
            for block in self._layers:
                stack.callback(block.register_forward_hook(remember).remove)
            return _Unchanged(self._run(attend)[0], attended, answers)

    def _divergence(
        self, unchanged: "_Unchanged", cut_layer: int, kv_head: int, change: Tensor
    ) -> Tensor:
        def attend(layer: int, call: AttentionCall) -> Tensor:
            if layer > cut_layer:
                return self._attend_rows(layer, call)
            return _changed(unchanged.attended[layer], kv_head, change)

        below = zip(self._layers[:cut_layer], unchanged.answers, strict=False)
        with _answering(below), _repeated_input(self._layers[cut_layer], len(change)):
            logits = self._run(attend)
        return torch.stack([mean_divergence(unchanged.logits, row) for row in logits])

    def _attend_rows(self, layer: int, call: AttentionCall) -> Tensor:
        """Attention of sequences that share the context, one after the other."""
        first = replace(call, keys=call.keys[:1], values=call.values[:1])
        both, new = self._context.extended(layer, first), call.keys.shape[2]
        outputs = []
        for row in range(len(call.queries)):
            both.keys[:, :, -new:] = call.keys[row]
            both.values[:, :, -new:] = call.values[row]
            queries = call.queries[row : row + 1]
            outputs.append(ordinary_attention(replace(both, queries=queries)))
        return torch.cat(outputs)

    def _run(self, attend: Attend) -> Tensor:
        """Logits of the future tokens, [rows, future, vocabulary]."""
        columns = self._context.keys[0].shape[2]
        inputs = torch.tensor([self._future], device=input_device(self._model))
        cache = delegating_cache(layout_of(self._model), attend, columns)
        # what is compiled by the user would have to be compiled anew for this
        eagerly = torch.compiler.set_stance("force_eager")
        with eagerly, attention_switched(self._model):
            logits: Tensor = self._model(
                input_ids=inputs, past_key_values=cache, use_cache=True
            ).logits
            refuse_stranded()
        return logits


def mean_divergence(expected: Tensor, found: Tensor, chunk: int = 32) -> Tensor:
    """Kullback-Leibler divergence of predictions, mean over the tokens.

    Args:
        expected: Logits of the model that is right, [tokens, vocabulary].
        found: Logits of the other one, [tokens, vocabulary].
        chunk: Tokens treated at a time.

    Returns:
        Nats, a float64 scalar, at least 0.
    """
    total = torch.zeros((), dtype=torch.float64, device=found.device)
    for right, other in zip(expected.split(chunk), found.split(chunk), strict=True):
        # differences are squared away: float32 would leave nothing of a small divergence
        wanted, got = (logits.double().log_softmax(-1) for logits in (right, other))
        total += (wanted.exp() * (wanted - got)).sum()
    return (total / len(found)).clamp_min(0.0)


class _Unchanged(NamedTuple):
    """A run in which nothing was cut.

    Attributes:
        logits: [future, vocabulary].
        attended: Each layer's attention output, [1, future, heads, value_dim].
        answers: What each decoder layer returned.
    """

    logits: Tensor
    attended: list[Tensor]
    answers: list[Any]


def _changed(output: Tensor, kv_head: int, change: Tensor) -> Tensor:
    """The attention output with each change of one KV head's group, [changes, ...]."""
    rows, group = change.shape[:2]
    changed = output.repeat(rows, 1, 1, 1)
    changed[:, :, kv_head * group : (kv_head + 1) * group] += change.transpose(1, 2)
    return changed


@contextmanager
def _answering(known: Iterable[tuple[nn.Module, Any]]) -> Iterator[None]:
    """Let decoder layers return what is known of them instead of working.

    A hook could change what a layer returns, but not spare it the work.
    """
    with ExitStack() as stack:
        for block, answer in known:
            own = vars(block)
            # accelerate, too, puts a forward of its own on the module
            before = {name: own[name] for name in ("forward",) if name in own}
            own["forward"] = partial(_return, answer)
            stack.callback(own.update, before)
            stack.callback(own.pop, "forward")
        yield


def _return(answer: Any, *_: object, **__: object) -> Any:
    return answer


@contextmanager
def _repeated_input(block: nn.Module, rows: int) -> Iterator[None]:
    """Let one sequence that enters a decoder layer go on as several equal ones."""

    def repeat(
        _: nn.Module, inputs: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if inputs:
            return (inputs[0].expand(rows, -1, -1), *inputs[1:]), keywords
        return inputs, {**keywords, "hidden_states": keywords["hidden_states"].expand(rows, -1, -1)}

    hook = block.register_forward_pre_hook(repeat, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _frozen(model: PreTrainedModel) -> Iterator[None]:
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        # by name: a model that loads its weights as it goes has new ones by now
        for name in trained:
            model.get_parameter(name).requires_grad_(True)
