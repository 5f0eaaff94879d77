"""Models whose layers lie on several devices, or whose weights come from elsewhere."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import kvbudget as kvb
from kvbudget.runtime import anatomy, budgeted, geometry_of
from kvbudget.runtime.device_map import device_bytes, device_limits, layer_devices

accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")

PROMPT, NEW = 40, 24
CPU, ONE, TWO = torch.device("cpu"), torch.device("cuda", 0), torch.device("cuda", 1)
FAMILIES = ["GPT2LMHeadModel", "Gemma3ForCausalLM", "LlamaForCausalLM"]


def prompt():
    return torch.randint(3, 97, (1, PROMPT), generator=torch.Generator().manual_seed(4))


def in_memory_and_on_disk(model, folder):
    """The first layer on disk, the last one loaded while it works, the rest where it is."""
    layers = next(
        name for name, each in model.named_modules() if isinstance(each, torch.nn.ModuleList)
    )
    places = {name: "cpu" for name, each in model.named_modules() if not list(each.children())}
    places = {name: place for name, place in places.items() if not name.startswith(layers)}
    places |= {f"{layers}.0": "disk", f"{layers}.1": "cpu", f"{layers}.2": "disk"}
    return accelerate.dispatch_model(
        model, places, main_device="cpu", offload_dir=str(folder), force_hooks=True
    )


DISPATCHED = {
    "hooks": lambda model, folder: accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True),
    "offloaded": lambda model, folder: accelerate.cpu_offload(model),
    "on disk": lambda model, folder: accelerate.disk_offload(model, str(folder)),
    "mixed": in_memory_and_on_disk,
}


def generated(model, plan):
    """Tokens, logits, bytes and columns held after a budgeted generation."""
    with budgeted(model, plan) as cache:
        found = model.generate(
            prompt(),
            max_new_tokens=NEW,
            do_sample=False,
            past_key_values=cache,
            return_dict_in_generate=True,
            output_logits=True,
        )
        kept = [cache.kept_positions(layer) for layer in range(plan.geometry.layers)]
        return {
            "tokens": found.sequences,
            "logits": torch.stack(found.logits),
            "kept": kept,
            "bytes": torch.tensor(cache.nbytes()),
        }


@pytest.mark.parametrize("architecture", FAMILIES)
@pytest.mark.parametrize("how", DISPATCHED)
def test_generation_is_that_of_the_model_in_memory(
    how, architecture, model_of, plan_for, random_capacity, tmp_path
):
    expected_of, model = model_of(architecture), model_of(architecture)
    geometry = geometry_of(expected_of)
    plan = plan_for(geometry, random_capacity(geometry, 6, 30), PROMPT + NEW)
    expected = generated(expected_of, plan)
    model = DISPATCHED[how](model, tmp_path)
    assert how == "hooks" or any(each.is_meta for each in model.parameters())
    found = generated(model, plan)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    everything = expected_of(found["tokens"]).logits[0, PROMPT - 1 : -1]
    moved = (found["logits"][:, 0] - everything).abs().max()
    assert moved > 1e-2, "eviction must change something, or the comparison shows nothing"


@pytest.mark.parametrize("how", DISPATCHED)
def test_keys_and_values_are_kept_where_they_are_made(how, model_of, tmp_path):
    model = DISPATCHED[how](model_of("LlamaForCausalLM"), tmp_path)
    assert layer_devices(model) == (CPU, CPU, CPU)
    plan = kvb.allocate(
        kvb.Profile.from_importance(np.ones((3, 2)), geometry_of(model)),
        budget="50%",
        context_tokens=100,
    )
    assert device_bytes(model, plan) == {CPU: plan.used_bytes}
    (limit,) = device_limits(model, {"cpu": "1MiB"})
    assert limit == kvb.constraints.ByteLimit("1MiB", layers=(0, 1, 2))


def test_a_model_that_was_moved_is_looked_at_again(model_of):
    model = model_of("LlamaForCausalLM")
    before = anatomy.anatomy_of(model)
    assert anatomy.anatomy_of(model) is before
    model = accelerate.cpu_offload(model)
    assert anatomy.anatomy_of(model) is not before
    assert geometry_of(model).layers == 3


@pytest.fixture
def spread(model_of, monkeypatch):
    """A model that says of itself that its layers lie on two devices: 0 and 2 on the first."""
    model = model_of("LlamaForCausalLM")
    known = anatomy.anatomy_of(model)
    layers = [
        replace(layer, device=device)
        for layer, device in zip(known.layers, (ONE, TWO, ONE), strict=True)
    ]
    told = replace(known, layers=tuple(layers))
    for place in ("device_map", "session"):
        monkeypatch.setattr(f"kvbudget.runtime.{place}.anatomy_of", lambda _: told)
    return model


def a_plan(model, budgets, budget):
    """A plan with a limit for each device, from losses that would have it otherwise."""
    importance = np.array([[9.0, 4.0], [1.0, 3.0], [30.0, 2.0]])
    profile = kvb.Profile.from_importance(
        importance, geometry_of(model), heuristic="observation_window"
    )
    limits = device_limits(model, budgets)
    return kvb.allocate(profile, budget=budget, context_tokens=PROMPT + NEW, constraints=limits)


def test_each_device_has_the_layers_that_it_computes(spread):
    assert layer_devices(spread) == (ONE, TWO, ONE)
    first, second = device_limits(spread, {"cuda:1": "10%", "cuda:0": 5000})
    assert first == kvb.constraints.ByteLimit("10%", layers=(1,))
    assert second == kvb.constraints.ByteLimit(5000, layers=(0, 2))
    plan = a_plan(spread, {}, "50%")
    by_layer = plan.capacity_tokens.sum(1) * plan.geometry.bytes_per_token
    assert device_bytes(spread, plan) == {ONE: by_layer[0] + by_layer[2], TWO: by_layer[1]}


def test_a_device_without_caches_is_refused(spread):
    with pytest.raises(ValueError, match="which are cuda:0, cuda:1, but got 'cuda:2'"):
        device_limits(spread, {"cuda:0": "10%", "cuda:2": "10%"})


def memory(cache, layers):
    """Bytes of the storages behind the caches of some layers."""
    stores = [cache.stack.layers[layer].store for layer in layers]
    blocks = [
        block.untyped_storage()
        for store in stores
        if store is not None
        for block in (store.region.keys, store.region.values)
    ]
    return sum({block.data_ptr(): block.nbytes() for block in blocks}.values())


@torch.inference_mode()
@pytest.mark.parametrize("first", [4, 12, PROMPT])
@pytest.mark.parametrize(
    ("budgets", "budget"),
    [
        ({"cuda:0": 9_000, "cuda:1": 7_000}, 16_000),
        ({"cuda:0": 9_000, "cuda:1": 2_000}, "100%"),
        ({"cuda:0": 9_000}, 20_000),
    ],
)
def test_the_live_cache_keeps_the_limit_of_each_device(budgets, budget, first, spread):
    plan = a_plan(spread, budgets, budget)
    limits = {"cuda:0": plan.budget_bytes, "cuda:1": plan.budget_bytes} | budgets
    planned = {str(device): held for device, held in device_bytes(spread, plan).items()}
    assert all(planned[name] <= most for name, most in limits.items())
    ids = torch.cat([prompt(), prompt()[:, :NEW]], 1)
    steps = [range(first), *([at] for at in range(first, PROMPT + NEW))]
    seen = []
    with budgeted(spread, plan) as cache:
        for step in steps:
            spread(input_ids=ids[:, step], past_key_values=cache)
            held = {"cuda:0": memory(cache, (0, 2)), "cuda:1": memory(cache, (1,))}
            assert all(held[name] <= most for name, most in limits.items())
            assert cache.nbytes() == sum(held.values()) <= plan.budget_bytes
            seen.append(held)
    # nothing that fits is thrown away, and what was planned is used
    assert all(held[name] >= 0.9 * planned[name] for held in seen[-1:] for name in planned)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("architecture", FAMILIES)
def test_two_devices_generate_what_one_does(architecture, model_of, plan_for, random_capacity):
    """The middle layer is on the GPU, the others are not."""
    expected_of, model = model_of(architecture), model_of(architecture)
    geometry = geometry_of(expected_of)
    plan = plan_for(geometry, random_capacity(geometry, 6, 30), PROMPT + NEW)
    expected = generated(expected_of, plan)
    blocks = next(each for each in model.modules() if isinstance(each, torch.nn.ModuleList))
    blocks[1].to(ONE)
    for block, device in zip(blocks, (CPU, ONE, CPU), strict=True):
        hook = accelerate.hooks.AlignDevicesHook(
            device, io_same_device=True, skip_keys=model._skip_keys_device_placement
        )
        accelerate.hooks.add_hook_to_module(block, hook)
    assert layer_devices(model) == (CPU, ONE, CPU)
    found = generated(model, plan)
    assert torch.equal(found["tokens"], expected["tokens"])
    torch.testing.assert_close(found["logits"], expected["logits"], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("budgets", ["cpu", "4GiB", 2**30, ["cpu"]])
def test_limits_are_given_by_device(budgets, model_of):
    with pytest.raises(TypeError, match="`budgets` must be a dict from device to budget, but got"):
        device_limits(model_of("LlamaForCausalLM"), budgets)


def test_bytes_of_what_is_no_plan_are_refused(model_of):
    with pytest.raises(TypeError, match="`plan` must be a Plan, but got a str"):
        device_bytes(model_of("LlamaForCausalLM"), "plan.json")
