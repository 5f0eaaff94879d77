"""The page on troubleshooting is ordered by messages: each is provoked here and found on it."""

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import kvbudget as kvb

PAGE = Path(__file__).resolve().parents[2] / "docs" / "troubleshooting.md"
LONG = "one two three four five six seven eight nine ten " * 12


@dataclass(frozen=True, slots=True)
class Trouble:
    """A way to a message.

    Args:
        begins: How the message begins, to tell which one went wrong.
        provoke: What a user does.
    """

    begins: str
    provoke: Callable[[SimpleNamespace], object]


def error_of(call: Callable[[], object]) -> str:
    """The message of the error or of the warning that a call ends with."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(Exception) as caught:  # noqa: PT011
            call()
    return str(caught.value)


def read(world, plan, inputs, **options):
    with kvb.budgeted(world.model, plan) as cache:
        return world.model.generate(**inputs, past_key_values=cache, max_new_tokens=2, **options)


def second_prompt(world):
    with kvb.budgeted(world.model, world.plan) as cache:
        options = {"past_key_values": cache, "max_new_tokens": 2}
        world.model.generate(**world.inputs, **options)
        world.model.generate(world.inputs["input_ids"][:, :5], **options)


def two_at_once(world):
    with kvb.budgeted(world.model, world.plan), kvb.budgeted(world.model, world.plan):
        pass


def other_batch(world):
    with kvb.budgeted(world.model, world.plan) as cache:
        world.model(**world.inputs, past_key_values=cache)
        world.model(world.inputs["input_ids"].repeat(2, 1), past_key_values=cache)


def never_used(world):
    with kvb.budgeted(world.model, world.plan):
        world.model(**world.inputs)


def after_the_end(world):
    with kvb.budgeted(world.model, world.plan) as cache:
        world.model(**world.inputs, past_key_values=cache)
    world.model(world.inputs["input_ids"][:, :1], past_key_values=cache)


def right_padding(world):
    ids = world.inputs["input_ids"]
    mask = torch.ones(2, ids.shape[1], dtype=torch.long)
    mask[1, -5:] = 0
    plan = kvb.allocate(world.profile, budget="25%", context_tokens=400, batch_size=2)
    with kvb.budgeted(world.model, plan) as cache:
        world.model(ids.repeat(2, 1), attention_mask=mask, past_key_values=cache)


def another_type(world):
    with kvb.budgeted(world.model.to(torch.bfloat16), world.plan):
        pass


def half_way(world):
    with kvb.budgeted(world.model, world.plan) as cache:
        world.model(**world.inputs, past_key_values=cache)
        cache.grow(kvb.allocate(world.profile, budget="10%", context_tokens=400))


def cli(*arguments: object) -> Callable[[SimpleNamespace], str]:
    """A command line that fails; `{name}` is a file of the world."""

    def provoke(world: SimpleNamespace) -> str:
        done = world.run(*[str(each).format(**vars(world)) for each in arguments])
        assert done.code == 2, done
        raise AssertionError(done.err.removeprefix("kvbudget: ").strip())

    return provoke


ALLOCATE = ("allocate", "{profile_file}", "--context", 200)
TROUBLES = [
    Trouble("There is no folder", cli("profile", "--model", "./nowhere")),
    Trouble("could not be loaded", cli("profile", "--model", "{broken}")),
    Trouble("holds a model, but no tokenizer", cli("profile", "--model", "{untold}")),
    Trouble("is not supported", cli("profile", "--model", "{mamba}")),
    Trouble("`model` must be", lambda w: kvb.geometry_of("gpt2")),
    Trouble(
        "The text must have",
        cli("profile", "--model", "{llama}", "--text", "{short}", "--context", 128),
    ),
    Trouble("The model reads at most", cli("profile", "--model", "{llama}", "--context", 1024)),
    Trouble("`--heuristic` must", cli("profile", "--heuristic", "snapkv")),
    Trouble(
        "Every prompt must",
        lambda w: kvb.measure_profile(w.model, ["hi"], w.heuristic, tokenizer=w.tokenizer),
    ),
    Trouble(
        "`prompts` must be token ids", lambda w: kvb.measure_profile(w.model, [LONG], w.heuristic)
    ),
    Trouble(
        "`prompts` must be a list",
        lambda w: kvb.measure_profile(w.model, LONG, w.heuristic, tokenizer=w.tokenizer),
    ),
    Trouble(
        "`heuristic` must be an instance",
        lambda w: kvb.measure_profile(w.model, [LONG], kvb.heuristics.ObservationWindow),
    ),
    Trouble("`budget` must be a number", cli(*ALLOCATE, "--budget", "25 percent")),
    Trouble("No plan fits", cli(*ALLOCATE, "--budget", 100)),
    Trouble("`solver` must honour", cli(*ALLOCATE, "--budget", "25%", "--most-capacities", 2)),
    Trouble("`solver` must be", lambda w: w.allocate(solver=kvb.solvers.Hull)),
    Trouble("`solver` must be a solver object such as", lambda w: w.allocate(solver="hull")),
    Trouble("`profile` must be", lambda w: kvb.allocate(w.plan, budget="25%", context_tokens=9)),
    Trouble(
        "`constraints` must be", lambda w: w.allocate(constraints=kvb.constraints.LeastTokens(4))
    ),
    Trouble("is not a usable profile", lambda w: kvb.Profile.load(w.plan_file)),
    Trouble("is not a usable plan", lambda w: kvb.Plan.load(w.profile_file)),
    Trouble("does not match its checksum", lambda w: kvb.Plan.load(w.edited)),
    Trouble("No file at", lambda w: kvb.Plan.load("nowhere.json")),
    Trouble("was made for", cli("generate", "{plan_file}", "--prompt", "hi")),
    Trouble(
        "Plan was made for",
        cli("generate", "{plan_file}", "--model", "{other}", "--prompt", "hi"),
    ),
    Trouble("Make the plan from profile.with_dtype", another_type),
    Trouble("The plan uses the heuristic", lambda w: read(w, w.foreign, w.inputs)),
    Trouble("The plan holds contexts", lambda w: read(w, w.tight, w.inputs)),
    Trouble("The plan is for 1 row(s)", lambda w: read(w, w.plan, w.inputs, num_beams=3)),
    Trouble("The input must hold", second_prompt),
    Trouble("The cache holds", other_batch),
    Trouble("is inside a `with budgeted", two_at_once),
    Trouble("The cache got tokens", after_the_end),
    Trouble("never used", never_used),
    Trouble("padding", right_padding),
    Trouble("Use cache.shrink", half_way),
    Trouble("No module named", lambda w: __import__("kvbudget.solvers")),
]


@pytest.fixture(scope="module")
def profile_of_the_model():
    """Losses of the shipped model by a rule, without measuring."""
    model, _ = kvb.reference_model()
    return kvb.Profile.from_importance(
        [[1.0, 2.0, 3.0, 4.0]] * 6, kvb.geometry_of(model), heuristic="key_norm"
    )


@pytest.fixture
def world(run, models, plan_file, profile_file, profile_of_the_model, tmp_path):
    """What the troubles need: models on disk, files, and the shipped model."""
    model, tokenizer = kvb.reference_model()
    files = {name: tmp_path / name for name in ("broken", "short", "edited")}
    files["broken"].mkdir()
    (files["broken"] / "config.json").write_text("{}")
    files["short"].write_text("one two three")
    files["edited"].write_text(plan_file.read_text().replace('"batch_size": 1', '"batch_size": 2'))
    plan = kvb.allocate(profile_of_the_model, budget="25%", context_tokens=400)

    def allocate(**options):
        return kvb.allocate(profile_of_the_model, budget="25%", context_tokens=400, **options)

    return SimpleNamespace(
        **files,
        **{name: models / name for name in ("llama", "other", "untold", "mamba")},
        **{"run": run, "plan_file": plan_file, "profile_file": profile_file},
        **{"model": model, "tokenizer": tokenizer, "allocate": allocate},
        **{"plan": plan, "profile": profile_of_the_model},
        foreign=replace(plan, heuristic="mine"),
        heuristic=kvb.heuristics.ObservationWindow(),
        tight=kvb.allocate(profile_of_the_model, budget="50%", context_tokens=20),
        inputs=tokenizer(LONG, return_tensors="pt"),
    )


def headings():
    """Messages on the page, as patterns: three dots stand for anything."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.findall(r"^### `+ ?(.+?) ?`+$", text, re.MULTILINE)
    assert len(found) == text.count("\n### ")
    return {each: re.compile(".*".join(map(re.escape, each.split("...")))) for each in found}


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.begins)
def test_the_message_is_on_the_page(trouble, world):
    message = error_of(lambda: trouble.provoke(world))
    assert trouble.begins in message
    said = re.sub("`(--[a-z]+)`", r"\1", message)
    matching = [each for each, pattern in headings().items() if pattern.match(said)]
    assert len(matching) == 1, (message, matching)


def test_every_message_on_the_page_has_its_trouble():
    assert len(headings()) == len(TROUBLES)
    bodies = re.split(r"^### .*$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    assert all(len(body.split()) > 4 for body in bodies)
