"""Decoding as one compiled graph: no break, no second compilation, and what eager forwards give."""

import copy

import pytest
import torch
from compiled_lives import HEURISTIC, PROMPT, STEPS, Life, compiled_in_place, graphs, kept, lived
from torch import Tensor
from torch._dynamo import explain

from kvbudget import reference_model
from kvbudget.heuristics import HeavyHitter, KeyNorm
from kvbudget.runtime import Global, budgeted
from kvbudget.runtime.hf.graph_inputs import prepared_for_graphs

pytestmark = pytest.mark.usefixtures("fresh_compiler")


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("is_tiny", [True, False], ids=["tiny", "reference"])
def test_a_decoded_token_is_one_graph(model_of, plan_of, is_tiny, grad):
    model = model_of("LlamaForCausalLM") if is_tiny else reference_model()[0]
    with torch.set_grad_enabled(grad), budgeted(model, plan_of(model), HEURISTIC) as cache:
        for call in (model, model.forward):
            model(PROMPT, past_key_values=cache)
            told = explain(call)(PROMPT[:, :1], past_key_values=cache)
            assert (told.graph_count, told.graph_break_count) == (1, 0), told.break_reasons
            cache.reset()


def test_every_family_decodes_in_one_graph_as_it_does_without(family_model, plan_of):
    plan = plan_of(family_model)
    expected = lived(family_model, plan)
    call = torch.compile(family_model.forward, backend="eager", fullgraph=True)
    lived(family_model, plan, call).assert_equals(expected)
    # one that counts its tokens in Python is compiled once more, for any number of them
    assert graphs() == (2 if family_model.config.model_type == "opt" else 1)


def test_a_compiled_model_gives_the_same_in_one_graph(llama, plan_of):
    plan = plan_of(llama)
    expected = lived(llama, plan)
    lived(llama, plan, torch.compile(llama, backend="eager", fullgraph=True)).assert_equals(
        expected
    )
    assert graphs() == 1


@pytest.mark.parametrize(
    ("backend", "tolerance"), [("aot_eager", 0.0), pytest.param("inductor", 1e-5)]
)
def test_other_backends_give_the_same(llama, plan_of, backend, tolerance):
    plan = plan_of(llama)
    expected = lived(llama, plan)
    call = torch.compile(llama.forward, backend=backend, fullgraph=True)
    lived(llama, plan, call).assert_equals(expected, tolerance)
    assert graphs() == 1


@pytest.mark.parametrize("heuristic", [KeyNorm(), HeavyHitter()], ids=["no queries", "running"])
@pytest.mark.parametrize("in_place", [True, False])
def test_scores_are_the_same(llama, plan_of, heuristic, in_place):
    plan = plan_of(llama)
    expected = lived(llama, plan, heuristic=heuristic)
    if in_place:
        with compiled_in_place(llama, fullgraph=True):
            found = lived(llama, plan, heuristic=heuristic)
    else:
        found = lived(llama, plan, torch.compile(llama.forward, backend="eager"), heuristic)
    found.assert_equals(expected)


def test_nothing_is_compiled_again_while_everything_fits_nor_when_it_no_longer_does(llama, plan_of):
    plan, prompt = plan_of(llama, low=14), PROMPT[:, :4]
    expected = lived(llama, plan, prompt=prompt)
    call = torch.compile(llama.forward, backend="eager", fullgraph=True)
    with torch._dynamo.config.patch(error_on_recompile=True):
        lived(llama, plan, call, prompt=prompt).assert_equals(expected)


def test_a_graph_serves_later_caches(llama, plan_of):
    plan = plan_of(llama)
    expected = lived(llama, plan)
    call = torch.compile(llama.forward, backend="eager", fullgraph=True)
    counts = []
    for _ in range(4):
        lived(llama, plan, call).assert_equals(expected)
        counts.append(graphs())
    assert counts[1] == counts[-1] <= 2


def padded_prompt() -> dict[str, Tensor]:
    ids = torch.randint(3, 90, (2, 30), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    ids[0, :7] = mask[0, :7] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 3}], ids=str
)
@pytest.mark.parametrize("padded", [False, True])
def test_generate_gives_the_same_with_a_compiled_forward(llama, plan_of, options, padded):
    if padded and "prompt_lookup_num_tokens" in options:
        pytest.skip("transformers looks up in one row only")
    given = padded_prompt() if padded else {"input_ids": PROMPT}
    options = {**given, **options, "max_new_tokens": STEPS, "do_sample": False}
    plan = plan_of(llama, rows=4)
    with budgeted(llama, plan, HEURISTIC):
        expected = llama.generate(**options)
    with compiled_in_place(llama, fullgraph=True):
        for _ in range(2):
            with budgeted(llama, plan, HEURISTIC):
                assert torch.equal(llama.generate(**options), expected)


@pytest.mark.parametrize("padded", [False, True])
def test_a_growing_mask_compiles_nothing_again(llama, plan_of, padded):
    given = padded_prompt() if padded else {"input_ids": PROMPT}
    with compiled_in_place(llama, fullgraph=True), budgeted(llama, plan_of(llama, 2), HEURISTIC):
        llama.generate(**given, max_new_tokens=20, do_sample=False)
    assert graphs() == 2  # the prompt, and all decoded tokens


@pytest.mark.parametrize("padded", [False, True])
def test_a_mask_is_left_out_where_it_tells_nothing(llama, plan_of, padded):
    given = padded_prompt() if padded else {"input_ids": PROMPT}
    whole = torch.ones(len(given["input_ids"]), 31, dtype=torch.long)
    known = torch.cat([given.get("attention_mask", whole[:, :30]), whole[:, :1]], 1)
    other = known.clone()
    other[:, 9] = 0
    with torch.no_grad(), budgeted(llama, plan_of(llama, 2), HEURISTIC) as cache:
        llama(**given, past_key_values=cache)

        def left(mask: Tensor, **more: Tensor) -> bool:
            given = {"attention_mask": mask, **more}
            left_in = prepared_for_graphs(cache, 1, given)["attention_mask"] is not None
            cache.graph_calls.finish(is_whole=False)
            return left_in

        positions = torch.zeros(1, 1)
        assert not left(known, position_ids=positions)
        assert left(known) == padded
        assert left(other, position_ids=positions)
        assert left(known[:, 1:], position_ids=positions)


def test_a_mask_without_positions_is_kept_and_looked_at(llama, plan_of):
    given = padded_prompt()
    plan, found = plan_of(llama, 2), []
    for wrap in (lambda call: call, lambda call: torch.compile(call, backend="eager")):
        mask, call = given["attention_mask"], wrap(llama.forward)
        with torch.no_grad(), budgeted(llama, plan, HEURISTIC) as cache:
            llama(**given, past_key_values=cache)
            for _ in range(12):
                mask = torch.cat([mask, torch.ones(2, 1, dtype=mask.dtype)], 1)
                token = given["input_ids"][:, -1:]
                out = call(token, attention_mask=mask, past_key_values=cache)
            found.append(out.logits)
            wrong = torch.ones(2, mask.shape[1] + 1)
            wrong[1, :3] = 0
            with pytest.raises(ValueError, match="must show all"):
                call(token, attention_mask=wrong, past_key_values=cache)
    assert torch.equal(*found)


def test_a_compiled_prompt_is_read_as_ever(llama, plan_of):
    given, plan = padded_prompt(), plan_of(llama, 2)
    with torch.no_grad(), budgeted(llama, plan, HEURISTIC) as cache:
        expected = llama(**given, past_key_values=cache).logits
        before = kept(cache)
        cache.reset()
        call = torch.compile(llama.forward, backend="eager", fullgraph=True)
        found = call(**given, past_key_values=cache).logits
        assert all(torch.equal(*pair) for pair in zip(before, kept(cache), strict=True))
        assert cache.get_seq_length() == 30
    torch.testing.assert_close(
        found[given["attention_mask"] > 0], expected[given["attention_mask"] > 0]
    )


def test_a_whole_conversation_may_be_compiled(llama, plan_of):
    """Later blocks, drafts that are taken back, forks and selected rows between decoded tokens."""
    plan, found = plan_of(llama, 2), []
    for compiled in (False, True):
        call = torch.compile(llama.forward, backend="eager", fullgraph=True)
        call = call if compiled else llama
        with torch.no_grad(), budgeted(llama, plan, HEURISTIC) as cache:
            call(PROMPT, past_key_values=cache)
            for length in (1, 1, 9, 1, 3, 1, 1, 40, *[1] * 12):
                call(PROMPT[:, :1].expand(1, length), past_key_values=cache)
                if length == 3:
                    cache.crop(-2)
            cache.batch_repeat_interleave(2)
            call(PROMPT[:, :2].T, past_key_values=cache)
            fork = copy.deepcopy(cache)
            call(PROMPT[:, 2:4].T, past_key_values=cache)
            call(PROMPT[:, 4:6].T, past_key_values=fork)
            fork.reorder_cache(torch.tensor([1, 0]))
            last = [call(PROMPT[:, :2].T, past_key_values=each).logits for each in (cache, fork)]
            found.append(Life(torch.stack(last), [*kept(cache), *kept(fork)]))
    found[1].assert_equals(found[0])


@pytest.mark.parametrize("division", [None, Global()], ids=["plan", "global"])
def test_a_division_of_the_prompt_is_the_same(llama, plan_of, division):
    plan, prompt = plan_of(llama), PROMPT
    expected = lived(llama, plan, prompt=prompt, adapt=division)
    with compiled_in_place(llama, backend="aot_eager", fullgraph=True):
        lived(llama, plan, prompt=prompt, adapt=division).assert_equals(expected)


def test_compiled_layers_share_a_step_with_others(llama, plan_of):
    plan = plan_of(llama)
    expected = lived(llama, plan)
    for chosen in ([0], [1], [0, 2], [0, 1, 2]):
        for at in chosen:
            llama.model.layers[at].compile(backend="eager")
        lived(llama, plan).assert_equals(expected)
        for at in chosen:
            llama.model.layers[at]._compiled_call_impl = None


def test_eager_and_compiled_tokens_may_take_turns(llama, plan_of):
    plan = plan_of(llama)
    expected = lived(llama, plan)
    compiled, turn = torch.compile(llama.forward, backend="eager", fullgraph=True), iter(range(99))

    def either(*given: Tensor, **named: object) -> object:
        return (compiled if next(turn) % 3 else llama)(*given, **named)

    lived(llama, plan, either).assert_equals(expected)


def test_the_inner_model_may_be_compiled_by_itself(llama, plan_of):
    plan, found = plan_of(llama), []
    for call in (llama.model, torch.compile(llama.model, backend="eager", fullgraph=True)):
        with torch.no_grad(), budgeted(llama, plan, HEURISTIC) as cache:
            call(PROMPT, past_key_values=cache)
            for at in range(12):
                last = call(PROMPT[:, at : at + 1], past_key_values=cache).last_hidden_state
            found.append(last)
    assert torch.equal(*found)
