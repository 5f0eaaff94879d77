"""Short lives of the soak in `benchmarks/runtime`, and that it sees faults."""

import copy
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch

from kvbudget.heuristics import SinkRecent
from kvbudget.runtime import budgeted, geometry_of

ROOT, STEPS = Path(__file__).parents[2], 60


@pytest.fixture(scope="module")
def soak():
    """Imports modules of the soak: benchmarks are no part of the package."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # what a tiny model computes is not worth dividing
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT))
        yield lambda name: import_module(f"benchmarks.runtime.soak_{name}")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pair(soak):
    """The soak's model, and the same in double precision."""
    model = soak("dense").build_model()
    return model, soak("dense").Dense(model)


@pytest.fixture
def branch(soak, pair, plan_for):
    """An empty cache, and a memory of everything."""
    geometry = geometry_of(pair[0])
    capacity = np.array([[30, 12], [19, 17]])
    plan = plan_for(geometry, capacity, 100, budget_bytes=45 * int(geometry.token_bytes.sum()))
    with budgeted(pair[0], plan, SinkRecent()) as cache:
        yield soak("branch").Branch(*pair, cache, soak("branch").Worst())


def read(branch, new):
    tokens = torch.randint(3, 97, (1, new), generator=torch.Generator().manual_seed(new))
    branch.read(tokens, shows_mask=False, inference=True)


@torch.no_grad()
def test_the_oracle_is_the_model_while_nothing_is_hidden(soak, pair):
    model, oracle = pair
    tokens = torch.randint(3, 97, (2, 60), generator=torch.Generator().manual_seed(0))
    memory = oracle.memory(torch.tensor([0, 7]))
    real = memory.real(0, 60)
    places = (real.long().cumsum(-1) - 1).clamp_min(0)
    plain = model(tokens, attention_mask=real.long(), position_ids=places).logits
    ours = torch.cat(
        [oracle.logits(memory, part, None) for part in tokens.split([33, 1, 26], 1)], 1
    )
    torch.testing.assert_close(ours[real].float(), plain[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", range(6))
def test_a_random_life_equals_dense_attention_within_the_budget(soak, pair, number):
    life = soak("life").Life(seed=0, number=number)
    soak("operations").live(*pair, life, STEPS)
    assert life.steps == STEPS
    assert life.worst.evicting > STEPS // 2
    assert life.worst.difference <= 1e-5


def change_a_value(cache):
    store = cache.stack.layers[0].store
    store.values[store.segments.held_rows()[-1]] += 0.01


def forget_the_window(cache):
    cache.stack.layers[1].window = None


def evict_and_get_room_again(cache):
    plan = cache.plan
    cache.shrink(replace(plan, capacity_tokens=plan.capacity_tokens.clip(max=8), budget_bytes=4096))
    cache.grow(plan)


FAULTS = {
    "a value changed": (60, change_a_value, "logits differ"),
    "a query sees too far": (40, forget_the_window, "logits differ"),
    "a token went too early": (20, evict_and_get_room_again, "evicted that would fit"),
}


@pytest.mark.parametrize(("read_before", "spoil", "complaint"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_is_seen(soak, branch, read_before, spoil, complaint):
    read(branch, read_before)
    read(branch, 1)
    spoil(branch.cache)
    with pytest.raises(soak("held").SoakFault, match=complaint):
        read(branch, 1)


def test_a_copy_that_something_else_touched_is_seen(soak, branch):
    read(branch, 50)
    other = branch.copied()
    read(branch, 3)
    other.check_unchanged()
    other.cache.crop(-1)
    with pytest.raises(soak("held").SoakFault, match="other tokens are held"):
        other.check_unchanged()


def test_the_first_fault_ends_a_life_and_tells_how_to_see_it_again(soak, pair):
    model, oracle = pair
    wrong = copy.deepcopy(oracle)
    life = soak("life").Life(seed=3, number=2)

    def change(life):
        wrong.__dict__["_model"].lm_head.weight.mul_(1.001)

    with pytest.raises(soak("held").SoakFault, match="logits differ") as caught:
        soak("operations").live(model, wrong, life, STEPS, change)
    assert "HeavyHitter(), 1 row(s); again with --seed 3 --life 2 --until" in str(caught.value)
    assert "step 0: new prompt" in str(caught.value)
