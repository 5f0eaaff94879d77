"""Hand a budgeted cache to the forwards of its model, also where a caller would use another."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel

from kvbudget.allocator import KVBudgetError

from ..turn import only_context
from .cache import BudgetedCache
from .graph_inputs import prepared_for_graphs
from .handoff import clear_handoff, refuse_stranded
from .switching import attention_of, takes_columns_as_tensor

_NAME = "past_key_values"
_GENERATE = inspect.unwrap(GenerationMixin.generate).__code__
_Call = tuple[tuple[Any, ...], dict[str, Any]]


@contextmanager
def cache_served(model: PreTrainedModel, cache: BudgetedCache) -> Iterator[None]:
    """Let a model use a cache, and use it by itself where `generate` is given none.

    Every forward that gets the cache is checked first.

    Raises:
        KVBudgetError: The model serves a cache already.
    """
    with only_context(model) as context, ExitStack() as stack:
        cache.turn.context = context
        service = _Service(model, cache)
        if cache.graph_calls is not None:
            cache.graph_calls.serve(service.check_model, takes_columns_as_tensor(model))
        # a model's inner part may be called by itself; what is handed to it is ours already
        hooks = [
            model.register_forward_pre_hook(service.before, with_kwargs=True),
            model.register_forward_hook(service.after, with_kwargs=True, always_call=True),
        ]
        if model.base_model is not model:
            inner: nn.Module = model.base_model
            hooks.append(inner.register_forward_pre_hook(service.inside, with_kwargs=True))
        for hook in hooks:
            stack.callback(hook.remove)
        yield


class _Service:
    """The hooks around a model's forwards.

    Args:
        model: The model, its attention switched.
        cache: The cache that it is to use.
    """

    def __init__(self, model: PreTrainedModel, cache: BudgetedCache) -> None:
        self._model, self._cache = model, cache
        self._names = list(inspect.signature(model.forward).parameters)
        self._attention = attention_of(model)
        self._is_explicit = False  # tokens were read into the cache itself, by the user's wish
        self._lent: WeakKeyDictionary[DynamicCache, BudgetedCache] = WeakKeyDictionary()

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def before(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> _Call | None:
        """Put our cache in the place of generate's, and check that it can be served."""
        cache = self._cache_for(self._given(_NAME, arguments, keywords), keywords)
        if cache is None:
            return None
        if keywords.get("use_cache") is False and _is_generating():
            # generate would then pass all tokens at every step, on top of those that are held
            raise ValueError(
                f"`use_cache` must not be False where generate gets a cache, but the call or the "
                f"generation configuration of {type(self._model).__name__} says so. Pass "
                f"use_cache=True."
            )
        given = [self._given(name, arguments, keywords) for name in ("input_ids", "inputs_embeds")]
        tokens = next((each for each in given if each is not None), None)
        self._check(cache, tokens)
        if cache is self._cache:
            self._is_explicit = True
        _begin(cache)
        if tokens is not None and self._is_for_graphs(cache):
            keywords = prepared_for_graphs(cache, tokens.shape[1], keywords)
        return self._with(cache, arguments, keywords)

    def inside(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        """Begin a forward of the model's inner part, if it is called by itself."""
        if not torch.compiler.is_compiling():  # a graph begins by itself
            self._begin_inside(module, keywords.get(_NAME))

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def after(
        self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Any
    ) -> None:
        """Finish the forward, also after an error: then there is no output.

        Raises:
            UnsupportedModel: A layer's tokens never reached the attention function.
        """
        cache, is_whole = keywords.get(_NAME), output is not None
        if isinstance(cache, BudgetedCache) and cache.graph_calls is not None:
            cache.graph_calls.finish(is_whole)
        _end(cache, is_whole)

    def check_model(self) -> None:
        """Refuse a forward of a model that was changed, or whose context is over.

        Raises:
            KVBudgetError: Says what is not as it was.
            ValueError: The model is in training mode.
        """
        assert self._cache.turn.context is not None, "a cache is made for a context"
        self._cache.turn.context.check(self._model)
        if attention_of(self._model) != self._attention:
            raise KVBudgetError(
                f"The attention implementation of {type(self._model).__name__} was changed inside "
                f"`with budgeted(...)`, which needs its own: change it outside."
            )
        if self._model.training:
            _check_training(self._model)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _begin_inside(self, module: nn.Module, cache: Any) -> None:
        if not isinstance(cache, BudgetedCache) or cache.turn.is_mine():
            return
        self._check(cache, None)
        _begin(cache)

        def after(_module: nn.Module, _inputs: tuple[Any, ...], output: Any) -> None:
            hook.remove()
            _end(cache, is_whole=output is not None)

        # only now: a compiled forward of the whole model would look for it at every call
        hook = module.register_forward_hook(after, always_call=True)

    def _is_for_graphs(self, cache: BudgetedCache) -> bool:
        """Whether a forward of the model is, or may be, a compiled one."""
        calls = cache.graph_calls
        return calls is not None and (calls.serves_graphs or _is_compiled(self._model))

    def _cache_for(self, given: Any, keywords: dict[str, Any]) -> BudgetedCache | None:
        """The cache of ours that a forward is to use, if any."""
        if isinstance(given, BudgetedCache):
            return given
        if given is None:
            # what helps a generate along, such as guidance, keeps a cache of its own
            is_asked = keywords.get("use_cache") is True and not _is_generating()
            return self._lend() if is_asked else None
        if type(given) is not DynamicCache:
            return None
        if given not in self._lent and self._is_of_generate(given):
            self._lent[given] = self._lend(given)
        return self._lent.get(given)

    def _is_of_generate(self, given: DynamicCache) -> bool:
        """Whether `generate` made a cache for want of one from its caller.

        It marks the caches of its callers, but not its own.
        """
        return (
            not getattr(given, "_is_user_defined", False)
            and not given.offloading
            and not given.get_seq_length()
            # a model that drafts for itself runs with fewer layers meanwhile
            and len(given.layers) == len(self._cache.layers)
            and _is_generating()
        )

    def _lend(self, given: DynamicCache | None = None) -> BudgetedCache:
        """The memory of the cache, emptied, for a caller that wants a fresh one."""
        if self._is_explicit and self._cache.stack.seen_tokens:
            raise KVBudgetError(
                "The cache holds tokens that were read with past_key_values=cache, and a generate "
                "without it would forget them: pass past_key_values=cache to go on, or call "
                "cache.reset() first."
            )
        self._cache.turn.check_free()
        self._is_explicit = False
        return self._cache.lend(given)

    def _check(self, cache: BudgetedCache, tokens: Tensor | None) -> None:
        assert cache.turn.context is not None, "a cache is made for a context"
        cache.turn.context.check(self._model)
        cache.check_current()
        self.check_model()
        if tokens is not None:
            cache.stack.check_input(*tokens.shape[:2])

    def _given(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        if name in keywords or name not in self._names:
            return keywords.get(name)
        place = self._names.index(name)
        return arguments[place] if place < len(arguments) else None

    def _with(
        self, cache: BudgetedCache, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> _Call:
        place = self._names.index(_NAME)
        named = dict(zip(self._names[place:], arguments[place:], strict=False))
        return arguments[:place], {**named, **keywords, _NAME: cache}


def _begin(cache: BudgetedCache) -> None:
    """Start a forward, after one that broke off as if that had not been."""
    clear_handoff()
    if cache.turn.begin(cache.stack.seen_tokens == 0):
        cache.start_over()


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _end(cache: Any, is_whole: bool) -> None:
    """Finish a forward.

    Raises:
        UnsupportedModel: A layer's tokens never reached the attention function.
    """
    if isinstance(cache, BudgetedCache):
        if cache.graph_calls is None or not cache.graph_calls.is_held:
            cache.turn.end(is_whole)
        if is_whole:
            refuse_stranded()


def _is_compiled(model: PreTrainedModel) -> bool:
    """Whether a model was compiled in place, all of it or its forward."""
    forward = vars(model).get("forward")
    return (
        getattr(forward, "_torchdynamo_orig_callable", None) is not None
        or model._compiled_call_impl is not None
    )


def _is_generating() -> bool:
    """Whether the forward under way was called, however indirectly, by `generate`.

    A forward does not tell who calls it, and a user's own fresh cache looks the same.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not _GENERATE:
        frame = frame.f_back
    return frame is not None


def _check_training(model: PreTrainedModel) -> None:
    """Refuse what a model in training mode does differently."""
    drops = any(
        isinstance(each, nn.Dropout) and each.training and each.p for each in model.modules()
    )
    if drops or model.is_activation_checkpointing:
        what = "has dropout on" if drops else "checkpoints gradients, which skips every cache"
        raise ValueError(
            f"{type(model).__name__} {what} in training mode: call model.eval() first."
        )
