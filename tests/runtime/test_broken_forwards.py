"""A forward that broke off, a second context and a second thread leave everything usable."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from kvbudget.allocator import KVBudgetError
from kvbudget.heuristics import SinkRecent
from kvbudget.runtime import budgeted, geometry_of, measure_profile

PROMPT = torch.randint(3, 97, (1, 30), generator=torch.Generator().manual_seed(8))


@contextmanager
def broken(model: PreTrainedModel, error: BaseException) -> Iterator[None]:
    """Let the second layer of a model raise."""

    def fail(*_: object) -> None:
        raise error

    hook = model.model.layers[1].register_forward_pre_hook(fail)
    try:
        yield
    finally:
        hook.remove()


ERRORS = [RuntimeError("mine"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=["error", "interrupt"])
def test_a_prompt_that_broke_off_can_be_read_again(llama, small_plan, error):
    expected = llama(PROMPT).logits
    with torch.no_grad(), budgeted(llama, small_plan) as cache:
        with broken(llama, error), pytest.raises(type(error)):
            llama(PROMPT, past_key_values=cache)
        ours = llama(PROMPT, past_key_values=cache).logits
        assert cache.get_seq_length() == 30
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("error", ERRORS, ids=["error", "interrupt"])
def test_a_later_forward_that_broke_off_is_noticed(llama, small_plan, model_of, error):
    other = model_of("Qwen2ForCausalLM")
    other_plan = replace(small_plan, geometry=geometry_of(other))
    with (
        torch.no_grad(),
        budgeted(llama, small_plan) as cache,
        budgeted(other, other_plan) as its_own,
    ):
        llama(PROMPT[:, :20], past_key_values=cache)
        with broken(llama, error), pytest.raises(type(error)):
            llama(PROMPT[:, 20:], past_key_values=cache)
        # everything else goes on as if nothing had been
        assert torch.equal(other(PROMPT, use_cache=False).logits, other(PROMPT).logits)
        other(PROMPT, past_key_values=its_own)
        assert torch.equal(llama(PROMPT, use_cache=False).logits, llama(PROMPT).logits)
        with pytest.raises(KVBudgetError, match=r"broke off in layer 1.*cache\.reset\(\)"):
            llama(PROMPT[:, 20:], past_key_values=cache)
        with pytest.raises(KVBudgetError, match=r"broke off in layer 1.*cache\.reset\(\)"):
            llama(PROMPT[:, 20:], past_key_values=cache)
        cache.reset()
        llama(PROMPT, past_key_values=cache)
        assert cache.get_seq_length() == 30


@pytest.mark.parametrize("goes_on", [True, False])
@pytest.mark.parametrize("error", ERRORS, ids=["error", "interrupt"])
def test_an_error_between_a_cache_and_its_attention_strands_nothing(
    llama, small_plan, monkeypatch, error, goes_on
):
    with torch.no_grad(), budgeted(llama, small_plan) as cache:
        real = cache.layers[1].update

        def stop(*given: object, **named: object) -> None:
            real(*given, **named)
            raise error

        monkeypatch.setattr(cache.layers[1], "update", stop)
        with pytest.raises(type(error)):
            llama(PROMPT, past_key_values=cache)
        monkeypatch.undo()
        if goes_on:
            llama(PROMPT, past_key_values=cache)
            assert cache.get_seq_length() == 30


def test_a_heuristic_that_fails_leaves_the_model_alone(llama, small_plan):
    class Breaks(SinkRecent):
        calls = 0

        def score(self, view):
            type(self).calls += 1
            if type(self).calls == 5:
                raise RuntimeError("mine")
            return super().score(view)

    with torch.no_grad(), budgeted(llama, small_plan, Breaks()) as cache:
        llama(PROMPT, past_key_values=cache)
        with pytest.raises(RuntimeError, match="mine"):
            llama(PROMPT[:, :9], past_key_values=cache)
        with pytest.raises(KVBudgetError, match=r"broke off in layer 1.*cache\.reset\(\)"):
            llama(PROMPT[:, :9], past_key_values=cache)
        cache.reset()
        llama.generate(PROMPT, max_new_tokens=3, do_sample=False)
        assert cache.get_seq_length() == 32


def test_a_context_within_a_context_of_the_same_model_is_refused(llama, small_plan):
    with budgeted(llama, small_plan) as cache:
        with (
            pytest.raises(KVBudgetError, match=r"inside a `with budgeted\(...\)` already"),
            budgeted(llama, small_plan),
        ):
            pass
        llama(PROMPT, past_key_values=cache)
    with budgeted(llama, small_plan) as cache:
        llama(PROMPT, past_key_values=cache)


def test_measuring_inside_a_context_leaves_it_alone(llama, small_plan):
    with torch.no_grad(), budgeted(llama, small_plan) as cache:
        llama(PROMPT, past_key_values=cache)
        kept = cache.kept_positions(0)[0][0]
        measure_profile(llama, [[1] * 40], SinkRecent(), measure="attention_mass", progress=False)
        assert torch.equal(cache.kept_positions(0)[0][0], kept)
        llama(PROMPT[:, :1], past_key_values=cache)
        assert cache.get_seq_length() == 31


@pytest.mark.parametrize("call", ["__call__", "generate"])
def test_an_attention_changed_inside_the_context_is_refused(llama, small_plan, call):
    with budgeted(llama, small_plan) as cache:
        llama(PROMPT[:, :5], past_key_values=cache)
        cache.reset()
        llama.set_attn_implementation("sdpa")
        given = {"max_new_tokens": 2} if call == "generate" else {"past_key_values": cache}
        with pytest.raises(KVBudgetError, match="was changed inside"):
            getattr(llama, call)(PROMPT, **given)
        llama.set_attn_implementation("kvbudget")
        llama(PROMPT, past_key_values=cache)


def test_two_threads_in_one_cache_are_refused(llama, small_plan):
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        go_on.wait(20)

    with torch.no_grad(), budgeted(llama, small_plan) as cache:
        hook = llama.model.layers[1].register_forward_pre_hook(wait)
        forward = threading.Thread(target=lambda: llama(PROMPT, past_key_values=cache))
        forward.start()
        assert inside.wait(20)
        hook.remove()
        calls: list[Callable[[], object]] = [
            lambda: llama(PROMPT, past_key_values=cache),
            lambda: llama.generate(PROMPT, max_new_tokens=2, past_key_values=cache),
        ]
        for call in calls:
            with pytest.raises(KVBudgetError, match="Another thread is reading"):
                call()
        go_on.set()
        forward.join()
        llama(PROMPT[:, :1], past_key_values=cache)
        assert cache.get_seq_length() == 31


def test_a_thread_whose_forward_failed_holds_nobody_up(llama, small_plan):
    with (
        ThreadPoolExecutor(1) as pool,
        torch.no_grad(),
        budgeted(llama, small_plan) as cache,
    ):
        with broken(llama, RuntimeError("mine")), pytest.raises(RuntimeError, match="mine"):
            pool.submit(llama, PROMPT, past_key_values=cache).result()
        llama(PROMPT, past_key_values=cache)
        assert cache.get_seq_length() == 30


def test_a_plain_generate_does_not_take_the_cache_from_a_thread_that_reads(llama, small_plan):
    inside, go_on = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        inside.set()
        go_on.wait(20)

    done: list[torch.Tensor] = []
    expected = llama.generate(PROMPT, max_new_tokens=2, do_sample=False)

    def generate() -> None:
        done.append(llama.generate(PROMPT, max_new_tokens=2, do_sample=False))

    with torch.no_grad(), budgeted(llama, small_plan):
        hook = llama.model.layers[1].register_forward_pre_hook(wait)
        first = threading.Thread(target=generate)
        first.start()
        assert inside.wait(20)
        hook.remove()
        with pytest.raises(KVBudgetError, match="Another thread is reading"):
            llama.generate(PROMPT, max_new_tokens=2, do_sample=False)
        go_on.set()
        first.join()
    assert torch.equal(done[0], expected)
