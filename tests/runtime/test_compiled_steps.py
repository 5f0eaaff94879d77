"""Steps of decoding that break off, are held open, are recorded, or cannot be compiled."""

import copy
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from compiled_lives import HEURISTIC, PROMPT, STEPS, Life, compiled_in_place, kept, lived
from torch import Tensor, nn
from torch._dynamo import explain
from torch._dynamo.exc import Unsupported
from transformers import AttentionInterface, PreTrainedModel
from transformers.models.llama import modeling_llama

from kvbudget.allocator import KVBudgetError, UnsupportedModel
from kvbudget.runtime import BudgetedCache, budgeted, measure_profile
from kvbudget.runtime.hf.graph_ops import number_for

pytestmark = pytest.mark.usefixtures("fresh_compiler")


@pytest.mark.parametrize("hooked", [True, False])
def test_a_compiled_step_that_broke_off_counts_as_never_come(llama, plan_of, hooked):
    plan, fails = plan_of(llama), False

    def fail(*_: object) -> None:
        if fails:
            raise RuntimeError("mine")

    expected = lived(llama, plan)
    llama.model.layers[1].register_forward_pre_hook(torch.compiler.disable(fail))
    call = torch.compile(llama if hooked else llama.forward, backend="eager")
    with torch.no_grad(), budgeted(llama, plan, HEURISTIC) as cache:
        logits, seen = llama(PROMPT, past_key_values=cache).logits[:, -1], []
        for at in range(STEPS):
            token, fails = logits.argmax(-1)[:, None], at % 7 == 3
            if fails:
                with pytest.raises(RuntimeError, match="mine"):
                    call(token, past_key_values=cache)
                fails = False
            logits = call(token, past_key_values=cache).logits[:, -1]
            seen.append(logits)
        Life(torch.stack(seen), kept(cache)).assert_equals(expected)
    llama.model.layers[1]._forward_pre_hooks.clear()


def give_up(model: PreTrainedModel, token: Tensor, cache: BudgetedCache) -> None:
    step = cache.decoding_step()
    step.__enter__()
    model(token, past_key_values=cache)
    assert not step.__exit__(KeyError, KeyError("mine"), None)


def test_a_held_step_can_be_taken_again_and_be_given_up(llama, plan_of):
    plan = plan_of(llama)
    expected = lived(llama, plan)
    with torch.no_grad(), budgeted(llama, plan, HEURISTIC) as cache:
        logits, seen = llama(PROMPT, past_key_values=cache).logits[:, -1], []
        for at in range(STEPS):
            token = logits.argmax(-1)[:, None]
            if at % 5 == 2:
                give_up(llama, token + 1, cache)
            with cache.decoding_step():
                for _ in range(1 + at % 3):
                    logits = llama(token, past_key_values=cache).logits[:, -1]
            seen.append(logits)
            assert cache.get_seq_length() == 31 + at
        Life(torch.stack(seen), kept(cache)).assert_equals(expected)


def test_a_held_step_reads_one_token_after_a_prompt(llama, plan_of):
    with torch.no_grad(), budgeted(llama, plan_of(llama), HEURISTIC) as cache:
        with pytest.raises(ValueError, match="read a prompt"), cache.decoding_step():
            pass
        llama(PROMPT, past_key_values=cache)
        with pytest.raises(ValueError, match="one token in each of 1 row"), cache.decoding_step():
            llama(PROMPT[:, :3], past_key_values=cache)
        assert cache.get_seq_length() == 30
        llama(PROMPT[:, :1], past_key_values=cache)


def test_memory_of_a_step_stays_where_it_is_from_eviction_to_eviction(llama, plan_of):
    with torch.no_grad(), budgeted(llama, plan_of(llama), HEURISTIC) as cache:
        llama(PROMPT, past_key_values=cache)
        steps, places, firsts = cache.graph_calls._steps, [], []
        for at in range(60):
            with cache.decoding_step():
                llama(PROMPT[:, at % 30 : at % 30 + 1], past_key_values=cache)
            places.append(steps.memory())
            firsts.append([layer.store.tail_first for layer in cache.stack.layers])
    assert firsts[-1] > firsts[20]  # something was evicted
    assert all(each == places[20] for each in places[20:])


def test_what_was_recorded_is_void_once_memory_moved(llama, plan_of):
    with torch.no_grad(), budgeted(llama, plan_of(llama, 2), HEURISTIC) as cache:
        llama(PROMPT, past_key_values=cache)
        calls, numbers = cache.graph_calls, []
        for rows in (1, 1, 2, 2):
            if rows > cache.stack.rows:
                cache.batch_repeat_interleave(2)
            with cache.decoding_step() as number:
                llama(PROMPT[:, :1].expand(rows, 1), past_key_values=cache)
                calls._recorded = calls._steps.memory()  # as the last layer notes while recording
            numbers.append(number)
    assert numbers[0] == numbers[1] != numbers[2] == numbers[3]


def test_a_backward_pass_is_refused_but_not_the_forward(llama, plan_of):
    with budgeted(llama, plan_of(llama), HEURISTIC) as cache:
        llama(PROMPT, past_key_values=cache)
        call = torch.compile(llama.forward, backend="aot_eager", fullgraph=True)
        loss = call(PROMPT[:, :1], past_key_values=cache).logits.sum()
        with pytest.raises(RuntimeError, match="evicted tokens have no gradient"):
            loss.backward()


def test_a_graph_without_its_cache_says_so(llama, plan_of):
    with torch.no_grad(), budgeted(llama, plan_of(llama), HEURISTIC) as cache:
        llama(PROMPT, past_key_values=cache)
        ours = torch.zeros(1, 2, 1, 16)
        arguments = (ours, ours, ours, None, None, None)
        with pytest.raises(KVBudgetError, match="cache that is gone"):
            torch.ops.kvbudget.update_and_attend(*arguments, 10_000, 0, 1.0, None, None)


def test_a_compiled_forward_without_hooks_is_checked_too(llama, plan_of):
    call = torch.compile(llama.forward, backend="eager", fullgraph=True)
    with torch.no_grad(), budgeted(llama, plan_of(llama), HEURISTIC) as cache:
        llama(PROMPT, past_key_values=cache)
        with pytest.raises(ValueError, match="holds 1 row"):
            call(PROMPT[:, :2].T, past_key_values=cache)
        llama.model.layers[0].mlp = nn.Sequential(nn.Dropout(0.5), llama.model.layers[0].mlp)
        llama.train()
        with pytest.raises(ValueError, match="dropout on"):
            call(PROMPT[:, :1], past_key_values=cache)
        llama.eval()
        llama.model.layers[0].mlp = llama.model.layers[0].mlp[1]


def test_a_forward_that_is_compiled_before_reads_in_one_piece(llama, plan_of):
    """What kvbudget finds out by reading two tokens does not go through the user's compiler."""
    with compiled_in_place(llama, fullgraph=True):
        plan = plan_of(llama)
        found = lived(llama, plan)
    found.assert_equals(lived(llama, plan))


def test_layers_that_cannot_be_compiled_break_the_graph_and_are_named(model_of, plan_of):
    llama = model_of("LlamaForCausalLM")
    plan = plan_of(llama)
    expected = lived(llama, plan, steps=12)
    with torch.no_grad(), budgeted(llama, plan, HEURISTIC) as cache:
        cache.graph_calls = None  # as for a model of such layers
        with pytest.raises(UnsupportedModel, match="cannot be recorded"):
            cache.decoding_step()
        logits, seen = llama(PROMPT, past_key_values=cache).logits[:, -1], []
        with compiled_in_place(llama):
            for _ in range(12):
                logits = llama(logits.argmax(-1)[:, None], past_key_values=cache).logits[:, -1]
                seen.append(logits)
        Life(torch.stack(seen), kept(cache)).assert_equals(expected)
        told = explain(llama)(PROMPT[:, :1], past_key_values=cache)
    assert told.graph_break_count > 1
    assert "kvbudget compiles layers" in str(told.break_reasons[0].reason)


class Midway:
    """Does something in the middle of every forward; a compiler has to be told before it begins."""

    def __init__(self) -> None:
        self.act: Callable[[], None] | None = None

    @torch.compiler.disable
    def __call__(self, *_: object) -> None:
        if self.act is not None:
            self.act()


@pytest.fixture
def midway(llama) -> Iterator[Midway]:
    midway = Midway()
    hook = llama.model.layers[1].register_forward_pre_hook(midway)
    yield midway
    hook.remove()


def fail() -> None:
    raise RuntimeError("mine")


def test_whatever_follows_a_step_that_broke_off_finds_no_trace_of_it(llama, plan_of, midway):
    plan, token = plan_of(llama, 2), PROMPT[:, :1]
    smaller = replace(plan, budget_bytes=plan.budget_bytes - 1, batch_size=1)
    follow_ups: dict[str, Callable[[BudgetedCache], object]] = {
        "fork": lambda cache: kept(copy.deepcopy(cache)),
        "tensors": lambda cache: list(cache.state_dict().values()),
        "take back": lambda cache: cache.crop(-1),
        "rows": lambda cache: cache.batch_repeat_interleave(2),
        "beams": lambda cache: cache.reorder_cache(torch.tensor([0])),
        "budget": lambda cache: cache.shrink(smaller),
        "text": lambda cache: "(31 tokens read" in repr(cache),
    }
    call = torch.compile(llama.forward, backend="eager")
    for name, follow_up in follow_ups.items():
        told = []
        for breaks_off in (False, True):
            with torch.no_grad(), budgeted(llama, plan, HEURISTIC) as cache:
                llama(PROMPT, past_key_values=cache)
                call(token, past_key_values=cache)
                if breaks_off:
                    midway.act = fail
                    with pytest.raises(RuntimeError, match="mine"):
                        call(token, past_key_values=cache)
                    midway.act = None
                answer = follow_up(cache)
                columns = [cache.get_seq_length(at) for at in range(3)]
                last = call(token.expand(cache.stack.rows, 1), past_key_values=cache).logits
                told.append((answer, columns, last))
        torch.testing.assert_close(told[1], told[0], atol=0, rtol=0, msg=name)


def test_an_open_step_refuses_whatever_is_no_part_of_it(llama, plan_of):
    with torch.no_grad(), budgeted(llama, plan_of(llama), HEURISTIC) as cache:
        llama(PROMPT, past_key_values=cache)
        with cache.decoding_step():
            for _ in range(2):
                llama(PROMPT[:, :1], past_key_values=cache)
                for other in (cache.reset, cache.state_dict, lambda: cache.crop(-1)):
                    with pytest.raises(KVBudgetError, match="step is open"):
                        other()
                with pytest.raises(KVBudgetError, match="step is open"), cache.decoding_step():
                    pass
                fork = copy.deepcopy(cache)
                assert fork.get_seq_length() == 30 == cache.get_seq_length()
                assert isinstance(elsewhere(llama, cache), KVBudgetError)
                assert elsewhere(llama, fork) is None
        assert cache.get_seq_length() == fork.get_seq_length() == 31


def elsewhere(call: Callable[..., object], cache: BudgetedCache) -> Exception | None:
    """What becomes of a token that another thread reads."""
    found: list[Exception | None] = []

    def read() -> None:
        try:
            with torch.no_grad():
                call(PROMPT[:, :1], past_key_values=cache)
            found.append(None)
        except Exception as error:  # whatever it is
            found.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize("hooked", [True, False])
def test_another_thread_leaves_a_step_alone(llama, plan_of, midway, hooked):
    call = torch.compile(llama.forward, backend="eager")
    found = []
    with torch.no_grad(), budgeted(llama, plan_of(llama), HEURISTIC) as cache:
        for is_disturbed in (False, True):
            cache.reset()
            for at in range(3):
                llama(PROMPT[:, at * 9 : at * 9 + 9], past_key_values=cache)
                call(PROMPT[:, :1], past_key_values=cache)

            def disturb() -> None:
                midway.act = None  # the other thread goes through here, too
                assert isinstance(elsewhere(call, cache), KVBudgetError)

            midway.act = disturb if is_disturbed else None
            last = (llama if hooked else call)(PROMPT[:, :1], past_key_values=cache)
            found.append((last.logits, cache.get_seq_length(), kept(cache)))
    torch.testing.assert_close(*found, atol=0, rtol=0)


def test_a_forward_that_reads_nothing_counts_for_nothing(llama, plan_of):
    with torch.no_grad(), budgeted(llama, plan_of(llama), HEURISTIC) as cache:
        llama(PROMPT, past_key_values=cache)
        with compiled_in_place(llama, fullgraph=True):
            llama(PROMPT[:, :1], past_key_values=cache)
        llama.forward = lambda input_ids=None, past_key_values=None: input_ids
        llama(PROMPT[:, :1], past_key_values=cache)
        del llama.forward
        assert cache.get_seq_length() == 31


class Breaking:
    """Attention implementations that cannot be looked up in a graph."""

    def get_interface(self, *names: object) -> Callable[..., object]:
        torch._dynamo.graph_break()
        return AttentionInterface().get_interface(*names)


@pytest.mark.parametrize("hooked", [True, False])
def test_tokens_survive_a_break_before_their_attention(llama, plan_of, hooked, monkeypatch):
    plan = plan_of(llama)
    expected = lived(llama, plan, steps=12)
    monkeypatch.setattr(modeling_llama, "ALL_ATTENTION_FUNCTIONS", Breaking())
    call = torch.compile(llama if hooked else llama.forward, backend="eager")
    lived(llama, plan, call, steps=12).assert_equals(expected)


def test_a_compiled_model_outside_of_its_context_is_refused(llama, model_of, plan_of):
    other, plan = model_of("LlamaForCausalLM"), plan_of(llama)
    with torch.no_grad():
        with budgeted(llama, plan, HEURISTIC) as cache:
            call = torch.compile(other.forward, backend="eager")
            with pytest.raises(UnsupportedModel, match="never reached the attention"):
                call(PROMPT, past_key_values=cache)
            llama(PROMPT, past_key_values=cache)
            call = torch.compile(llama.forward, backend="eager")
            call(PROMPT[:, :1], past_key_values=cache)
        with pytest.raises(KVBudgetError, match="call the model that was given to budgeted"):
            call(PROMPT[:, :1], past_key_values=cache)
        with pytest.raises(Unsupported, match="After the end of its"):
            torch.compile(llama.forward, fullgraph=True)(PROMPT[:, :1], past_key_values=cache)


def test_caches_that_come_at_once_get_numbers_of_their_own():
    class Caller:
        attend = column = None

    numbers: list[tuple[int, Caller]] = []

    def take() -> None:
        for _ in range(200):
            caller = Caller()
            numbers.append((number_for(caller), caller))

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(before)
    assert len({number for number, _ in numbers}) == 1200


@pytest.mark.parametrize("measure", ["output_error", "divergence", "ablation"])
def test_a_compiled_model_is_measured_as_ever(llama, measure):
    def losses() -> np.ndarray:
        given = {"levels": (0.5, 1.0), "measure": measure, "future_tokens": 6, "progress": False}
        return measure_profile(llama, PROMPT.repeat(1, 2).tolist(), HEURISTIC, **given).loss

    expected = losses()
    with compiled_in_place(llama, fullgraph=True):
        np.testing.assert_array_equal(losses(), expected)
