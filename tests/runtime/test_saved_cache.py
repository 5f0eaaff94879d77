"""A cache that was saved goes on as if nothing had happened; what cannot go on is refused."""

import copy
import io
import json
import pickle

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kvbudget.allocator import BadFile, KVBudgetError, WrongModel
from kvbudget.heuristics import (
    CriticalKV,
    HeavyHitter,
    KeyNorm,
    KVZip,
    ObservationWindow,
    SinkRecent,
)
from kvbudget.runtime import budgeted, geometry_of
from kvbudget.runtime.adaptation import Global, WithinLayer

pytestmark = pytest.mark.filterwarnings("ignore:The budgeted cache was never used")
PROMPT, MORE = 40, 30
ARCHITECTURES = ["LlamaForCausalLM", "Gemma3ForCausalLM", "GptOssForCausalLM", "Gemma2ForCausalLM"]
HEURISTICS = [ObservationWindow(), HeavyHitter(), KeyNorm(), CriticalKV()]


@pytest.fixture
def llama(model_of):
    return model_of("LlamaForCausalLM")


@pytest.fixture
def tight(plan_for, random_capacity):
    """Makes plans that evict in the prompt and again while decoding."""

    def build(model, rows=1, seed=0):
        geometry = geometry_of(model)
        return plan_for(geometry, random_capacity(geometry, 9, 24, seed), PROMPT + MORE, rows)

    return build


def batch(seed=0, rows=2):
    """Prompts, the last padded on the left, and the tokens that follow."""
    tokens = torch.randint(
        3, 97, (rows, PROMPT + MORE), generator=torch.Generator().manual_seed(seed)
    )
    mask = torch.ones_like(tokens)
    mask[-1, :6] = 0
    return tokens, mask


def read(model, cache, tokens, mask, first, end):
    """Logits of columns first..end, one token at a time but for the prompt and one block."""
    logits, at = [], first
    while at < end:
        new = PROMPT if at == 0 else 4 if at == PROMPT + 9 else 1
        new = min(new, end - at)
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, at : at + new]
        logits.append(
            model(
                input_ids=tokens[:, at : at + new],
                attention_mask=mask[:, : at + new],
                position_ids=positions,
                past_key_values=cache,
            ).logits
        )
        at += new
    return torch.cat(logits, 1)


def through_torch(cache, path):
    """State as a dictionary, through torch.save and a load that runs no code."""
    torch.save(cache.state_dict(), path)
    tensors = torch.load(path, weights_only=True)
    return lambda other: other.load_state_dict(tensors)


def through_file(cache, path):
    """A file of its own."""
    cache.save(path)
    return lambda other: other.load(path)


@torch.inference_mode()
@pytest.mark.parametrize("way", [through_torch, through_file])
@pytest.mark.parametrize("heuristic", HEURISTICS, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("at", [PROMPT, PROMPT + 5, PROMPT + 13])
def test_a_loaded_cache_goes_on_as_the_saved_one(llama, tight, tmp_path, way, heuristic, at):
    check_going_on(llama, tight(llama, 2), heuristic, at, way, tmp_path / "cache")


@torch.inference_mode()
@pytest.mark.parametrize("architecture", ARCHITECTURES[1:])
@pytest.mark.parametrize("at", [PROMPT, PROMPT + 7])
def test_sinks_windows_and_soft_caps_go_with_it(model_of, tight, tmp_path, architecture, at):
    model = model_of(architecture)
    check_going_on(model, tight(model, 2), HeavyHitter(), at, through_file, tmp_path / "cache")


@torch.inference_mode()
@pytest.mark.parametrize("adapt", [WithinLayer(), Global()], ids=lambda each: type(each).__name__)
@pytest.mark.parametrize("at", [PROMPT, PROMPT + 7])
def test_a_division_of_its_own_goes_with_it(llama, tight, tmp_path, adapt, at):
    path, plan = tmp_path / "cache", tight(llama, 2)
    check_going_on(llama, plan, ObservationWindow(), at, through_file, path, adapt)
    refused = pytest.raises(BadFile, match="saved with another adaptation")
    with budgeted(llama, plan, ObservationWindow()) as cache, refused:
        cache.load(path)


def check_going_on(model, plan, heuristic, at, way, path, adapt=None):
    """Save in the middle; the loaded cache and the one that went on must agree in everything."""
    tokens, mask = batch()
    with budgeted(model, plan, heuristic, adapt) as cache:
        read(model, cache, tokens, mask, 0, at)
        load = way(cache, path)
        wanted = read(model, cache, tokens, mask, at, PROMPT + MORE)
        held = [cache.kept_positions(layer) for layer in range(3)]
        size = cache.nbytes(), cache.nbytes(overhead=True)
    with budgeted(model, plan, heuristic, adapt) as cache:
        if not heuristic.reads_output_weight:
            read(model, cache, *batch(seed=5), 0, PROMPT)  # forgotten by what is loaded
        load(cache)
        assert cache.nbytes() <= plan.budget_bytes
        assert cache.get_seq_length() == at
        found = read(model, cache, tokens, mask, at, PROMPT + MORE)
        again = [cache.kept_positions(layer) for layer in range(3)]
        assert (cache.nbytes(), cache.nbytes(overhead=True)) == size
    assert torch.equal(wanted, found)
    for layer, other in zip(held, again, strict=True):
        for row, same in zip(layer, other, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(row, same, strict=True))


def test_while_everything_fits_a_loaded_cache_generates_what_plain_transformers_does(
    llama, plan_for, tmp_path
):
    geometry, tokens = geometry_of(llama), batch(rows=1)[0][:, :PROMPT]
    plan = plan_for(geometry, np.full((3, 2), 20), 120, 1, geometry.full_bytes(120))
    options = {"do_sample": False, "max_new_tokens": 12}
    first = llama.generate(tokens, **options)
    with budgeted(llama, plan) as cache:
        llama.generate(tokens, **options, past_key_values=cache)
        cache.save(tmp_path / "cache")
    with budgeted(llama, plan) as cache:
        cache.load(tmp_path / "cache")
        ours = llama.generate(first, **options, past_key_values=cache)
    assert torch.equal(ours, llama.generate(first, **options))


@torch.inference_mode()
@pytest.mark.parametrize("accepted", [0, 2, 5])
def test_a_draft_may_still_be_taken_back_after_loading(llama, tight, tmp_path, accepted):
    tokens, found = batch(rows=1)[0], []
    for reload in (False, True):
        with budgeted(llama, tight(llama), HeavyHitter()) as cache:
            llama(tokens[:, :PROMPT], past_key_values=cache)
            llama(tokens[:, PROMPT : PROMPT + 5], past_key_values=cache)
            if reload:
                cache.save(tmp_path / "cache")
                cache.reset()
                cache.load(tmp_path / "cache")
            cache.crop(accepted - 5)
            found.append(llama(tokens[:, -9:], past_key_values=cache).logits)
            found.append(torch.cat([layer.store.kept_state() for layer in cache.stack.layers]))
    assert torch.equal(found[0], found[2])
    assert torch.equal(found[1], found[3])


@torch.inference_mode()
def test_a_prompt_that_was_read_twice_goes_with_it(llama, tight, tmp_path):
    tokens, found = batch(rows=1)[0], []
    for reload in (False, True):
        with budgeted(llama, tight(llama), KVZip()) as cache:
            llama(tokens[:, :PROMPT], past_key_values=cache)
            if reload:
                tensors = cache.state_dict()
                cache.reset()
                cache.load_state_dict(tensors)
            steps = [llama(tokens[:, at : at + 1], past_key_values=cache) for at in range(20)]
            found.append(torch.cat([step.logits for step in steps]))
    assert torch.equal(*found)


@torch.inference_mode()
def test_a_state_dict_is_a_copy(llama, tight):
    tokens = batch(rows=1)[0]
    with budgeted(llama, tight(llama), HeavyHitter()) as cache:
        llama(tokens[:, :PROMPT], past_key_values=cache)
        tensors = cache.state_dict()
        before = copy.deepcopy(tensors)
        for at in range(20):
            llama(tokens[:, PROMPT + at : PROMPT + at + 1], past_key_values=cache)
        assert all(torch.equal(tensors[name], before[name]) for name in before)
        cache.load_state_dict(tensors)
        for at in range(20):
            llama(tokens[:, PROMPT + at : PROMPT + at + 1], past_key_values=cache)
        assert all(torch.equal(tensors[name], before[name]) for name in before)


def test_an_empty_cache_can_be_saved_and_loaded(llama, tight, tmp_path):
    with torch.inference_mode(), budgeted(llama, tight(llama)) as cache:
        cache.save(tmp_path / "empty")
        llama(batch(rows=1)[0][:, :PROMPT], past_key_values=cache)
        cache.load(tmp_path / "empty")
        assert (cache.get_seq_length(), cache.nbytes(), cache.kept_positions(0)) == (0, 0, [])
        llama(batch(rows=1)[0][:, :PROMPT], past_key_values=cache)


@pytest.fixture
def saved(llama, tight, tmp_path):
    """A file, and the plan that it was saved under."""
    plan = tight(llama)
    with torch.inference_mode(), budgeted(llama, plan, KeyNorm()) as cache:
        llama(batch(rows=1)[0][:, :PROMPT], past_key_values=cache)
        cache.save(tmp_path / "cache")
    return tmp_path / "cache", plan


def test_every_flipped_byte_and_every_cut_is_found(llama, saved):
    path, plan = saved
    whole = path.read_bytes()
    with budgeted(llama, plan, KeyNorm()) as cache:
        cache.load(path)
        held = str(cache.kept_positions(1))
        for at in [*range(0, len(whole), len(whole) // 40), len(whole) - 1]:
            damaged = bytearray(whole)
            damaged[at] ^= 16
            path.write_bytes(damaged)
            with pytest.raises(BadFile, match=r"is not a usable cache: .*[^.]\.$"):
                cache.load(path)
            path.write_bytes(whole[:at])
            with pytest.raises(BadFile, match="is not a usable cache"):
                cache.load(path)
        assert (str(cache.kept_positions(1)), cache.get_seq_length()) == (held, PROMPT)
        path.write_bytes(whole)
        cache.load(path)


def test_foreign_files_are_refused(llama, saved, tmp_path):
    path, plan = saved
    save_file({"a": torch.ones(3)}, tmp_path / "other")
    (tmp_path / "text").write_text(json.dumps({"format": "kvbudget-plan"}))
    plan.save(tmp_path / "plan")
    tensors = load_file(path)
    save_file(tensors, tmp_path / "bare")
    (tmp_path / "pickle").write_bytes(pickle.dumps({"a": 1}))
    with budgeted(llama, plan, KeyNorm()) as cache:
        for name in ("other", "text", "plan", "bare", "pickle"):
            with pytest.raises(BadFile, match=f"{name} is not a usable cache: "):
                cache.load(tmp_path / name)
        with pytest.raises(BadFile, match=r"No file at .*nothing: check the path of the cache"):
            cache.load(tmp_path / "nothing")
        with pytest.raises(FileNotFoundError, match="must lie in a folder that exists"):
            cache.save(tmp_path / "no" / "folder")
        assert cache.get_seq_length() == 0
        cache.load_state_dict(tensors)
        assert cache.get_seq_length() == PROMPT


def test_a_cache_with_another_model_plan_or_heuristic_is_refused(llama, saved, tight, model_of):
    path, plan = saved
    gemma = model_of("Gemma2ForCausalLM")
    refusals = [
        (
            gemma,
            tight(gemma),
            KeyNorm(),
            WrongModel,
            r"for Llama.*plan here is for Gemma2",
        ),
        (
            llama,
            tight(llama, seed=1),
            KeyNorm(),
            BadFile,
            r"another (budget|capacity)",
        ),
        (llama, plan, SinkRecent(), BadFile, r"another heuristic .*KeyNorm.*here .*SinkRecent"),
    ]
    for model, other, heuristic, error, message in refusals:
        with budgeted(model, other, heuristic) as cache, pytest.raises(error, match=message):
            cache.load(path)


WRONG = {
    "a tensor too few": lambda t: t.pop("layers.1.positions"),
    "another type": lambda t: t.update({"layers.1.keys": t["layers.1.keys"].half()}),
    "another shape": lambda t: t.update({"layers.2.values": t["layers.2.values"][1:]}),
    "a row too many": lambda t: t["layers.0.lengths"].add_(1),
    "other counts": lambda t: t["layers.0.counts"].mul_(0),
    "layers that differ": lambda t: t["layers.2.counts"].__setitem__(0, PROMPT + 1),
    "no identity": lambda t: t.pop("kvbudget"),
    "a damaged identity": lambda t: t["kvbudget"].__setitem__(30, 7),
    "states of no layer": lambda t: t.update({"states.0.0.conv": torch.ones(1)}),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG.keys())
def test_tensors_that_do_not_fit_are_refused(llama, saved, change):
    path, plan = saved
    tensors = load_file(path)
    change(tensors)
    with budgeted(llama, plan, KeyNorm()) as cache, pytest.raises(BadFile, match=r"^The tensors"):
        cache.load_state_dict(tensors)


def test_what_are_no_tensors_is_refused(llama, saved):
    with budgeted(llama, saved[1], KeyNorm()) as cache:
        for wrong in ("path", {"a": 1}, [torch.ones(1)]):
            with pytest.raises(TypeError, match=r"what cache.state_dict\(\) returned"):
                cache.load_state_dict(wrong)


def test_a_cache_that_broke_off_is_not_saved(llama, saved, tmp_path):
    with budgeted(llama, saved[1], KeyNorm()) as cache, torch.inference_mode():
        llama(batch(rows=1)[0][:, :PROMPT], past_key_values=cache)
        cache.stack.layers[1].is_pending = True
        with pytest.raises(KVBudgetError, match="broke off"):
            cache.save(tmp_path / "broken")
        assert not (tmp_path / "broken").exists()


def test_a_pickle_is_refused_and_names_the_way_to_save(llama, saved):
    with budgeted(llama, saved[1], KeyNorm()) as cache:
        for write in (pickle.dumps, lambda each: torch.save(each, io.BytesIO())):
            with pytest.raises(TypeError, match=r"Use cache.save\(path\)"):
                write(cache)


@torch.inference_mode()
def test_states_of_hybrid_layers_go_with_it(tmp_path, plan_for, random_capacity):
    config = transformers.BambaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        attn_layer_indices=[1],
        mamba_n_heads=4,
        mamba_d_head=16,
        mamba_d_state=8,
        mamba_n_groups=1,
        mamba_chunk_size=8,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    model = transformers.BambaForCausalLM(config).eval()
    geometry = geometry_of(model)
    plan = plan_for(geometry, random_capacity(geometry, 9, 24), PROMPT + MORE)
    tokens, found = batch(rows=1)[0], []
    for reload in (False, True):
        with budgeted(model, plan, KeyNorm()) as cache:
            model(tokens[:, :PROMPT], past_key_values=cache)
            if reload:
                cache.save(tmp_path / "cache")
                cache.reset()
                cache.load(tmp_path / "cache")
            steps = [model(tokens[:, at : at + 1], past_key_values=cache) for at in range(15)]
            found.append(torch.cat([step.logits for step in steps]))
    assert torch.equal(*found)
