"""Measure what every cache of a model loses at every level.

One forward pass per prompt with the full cache. The prompt is split into a context, which is
cut, and future tokens, which then ask. The token heuristic sees the context only, as it would
at eviction time.
"""

import hashlib
import json
import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kvbudget import __version__
from kvbudget.allocator import DEFAULT_LEVELS, Profile
from kvbudget.allocator.files import FilePath
from kvbudget.allocator.settings import call_text
from kvbudget.heuristics import TokenHeuristic, check_kind, measures, name_of, settings_of
from kvbudget.heuristics.measures import Divergence, Measure

from .checkpoint import Checkpoint, Told, heard, told
from .distributed import Ranks
from .evaluating import evaluating
from .gradients import LABEL_SAMPLES
from .measurable import check_measurable
from .prompt_losses import PromptLosses, SplitPrompt
from .prompts import Prompt, future_length, prompt_ids
from .session import geometry_of
from .stored_numbers import stored_numbers

Floats = NDArray[np.float64]
NUMBERS_HASHED = 64
"""Fewest numbers of a large parameter that tell one training from another."""
NOT_COMPUTED_WITH = {
    *("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version"),
    *("_attn_implementation", "use_cache", "id2label", "label2id"),
}
"""Fields of a model's config on which no loss depends, or which are compared otherwise."""


def measure_profile(
    model: PreTrainedModel,
    prompts: Sequence[Prompt],
    heuristic: TokenHeuristic,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    levels: Sequence[float] = DEFAULT_LEVELS,
    measure: Measure | str | None = None,
    future_tokens: int | None = None,
    checkpoint: FilePath | None = None,
    progress: bool = True,
) -> Profile:
    """Measure the loss of every cache at every level, all levels in one pass over each prompt.

    Memory is linear in the length of a prompt: that of one forward pass and one layer's queries,
    keys and values; for `Divergence` and `Ablation`, which ask what the layers above make of a
    change, of all layers' keys and values, which is a full cache.

    Where `torch.distributed.init_process_group()` was called, as in a script started by
    `torchrun --nproc-per-node 2 script.py`, each process measures its share of the prompts on its
    own copy of the model, and all of them return the whole profile.

    Args:
        model: A causal LM of a supported family.
        prompts: Texts or token ids like those the model will meet, each a context and what
            follows it; a few prompts of a thousand tokens or more.
        heuristic: Chooses the tokens that stay at a level.
        tokenizer: Needed for texts.
        levels: Shares of the context that a cache may keep, rising, the last one 1.
        measure: What counts as loss: a measure or its registered name; `Divergence()` by
            default, whose losses are nats per token and take a backward pass.
        future_tokens: Last tokens of each prompt that ask for what was kept; a quarter of the
            prompt, at most 256, by default.
        checkpoint: A file for the losses of the prompts measured so far, such as
            `profile.ckpt.safetensors`. A later call with the same arguments goes on from there.
        progress: Show a progress bar with the time left on stderr, of several processes the first.

    Returns:
        The profile: the mean over the prompts, and every prompt's own losses.

    Raises:
        UnsupportedModel: The model's caches cannot be cut exactly.
        BadFile: The checkpoint is damaged, or is one of another measurement; says of which.
        ValueError: Prompts, levels or future tokens cannot be used; says which.
    """
    check_kind(heuristic, TokenHeuristic)
    geometry = geometry_of(model)
    chosen, name, settings = _measure(measure), name_of(heuristic), settings_of(heuristic)
    check_measurable(model, heuristic, chosen)
    fractions = _check_levels(levels)
    found = prompt_ids(model, prompts, tokenizer)
    split = [SplitPrompt(ids, future_length(ids, future_tokens)) for ids in found]
    losses = PromptLosses(model, geometry, heuristic, chosen, fractions)
    sample_loss = np.stack(_sample_losses(losses, split, checkpoint, progress))
    return Profile(
        loss=sample_loss.mean(0),
        sample_loss=sample_loss,
        kept_fraction=fractions,
        geometry=geometry,
        model=str(model.config.name_or_path or ""),
        heuristic=name,
        heuristic_settings=settings,
        measure=chosen.name,
        made_by=f"measure_profile over {len(split)} prompts, measure {chosen!r}",
    )


def _sample_losses(
    losses: PromptLosses, prompts: list[SplitPrompt], checkpoint: FilePath | None, progress: bool
) -> list[Floats]:
    """Losses of each prompt, [layers, kv_heads, levels], those of a checkpoint included."""
    ranks = Ranks.current()
    identity = _identity(losses, prompts)
    saved = Checkpoint(checkpoint, identity, ranks)

    def what_is_known() -> tuple[dict[str, str], Told]:
        return identity, told(saved.read())

    for theirs, known in ranks.gather(what_is_known):
        if theirs != identity:
            raise ValueError(
                "`measure_profile` must get the same arguments in every process, which then share "
                "the prompts, but they differ."
            )
        saved.losses.update(heard(known))
    if saved.losses and progress and ranks.rank == 0:
        known_text = f"{len(saved.losses)} of {len(prompts)} prompts are in the checkpoint."
        tqdm.write(known_text, file=sys.stderr)
    # the longest prompt first: if memory does not suffice, that shows at once
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].ids))
    missing = [index for index in order if index not in saved.losses]

    def measure_share() -> Told:
        mine = ranks.share(missing)
        _measure_prompts(losses, prompts, mine, saved, progress and ranks.rank == 0)
        return told(saved.losses)

    for measured in ranks.gather(measure_share):
        saved.losses.update(heard(measured))
    return [saved.losses[index] for index in range(len(prompts))]


def _measure_prompts(
    losses: PromptLosses,
    prompts: list[SplitPrompt],
    mine: list[int],
    saved: Checkpoint,
    progress: bool,
) -> None:
    """Measure some of the prompts into the checkpoint, with a bar for the work in all of them."""
    work = sum(losses.work(prompts[index]) for index in mine)
    shape = "{desc}{percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
    with (
        saved,
        evaluating(losses.model),
        tqdm(total=work, desc="measuring", bar_format=shape, disable=not progress) as bar,
    ):
        for number, index in enumerate(mine, 1):
            bar.set_description(f"measuring prompt {number} of {len(mine)}")
            done = bar.n + losses.work(prompts[index])
            saved.add(index, losses.of(prompts[index], bar.update))
            bar.update(done - bar.n)  # the work was an estimate


def _identity(losses: PromptLosses, prompts: list[SplitPrompt]) -> dict[str, str]:
    """What is measured, as texts that are equal only if the losses are."""
    heuristic = losses.heuristic
    return {
        "model": f"{losses.model.config.name_or_path or 'unnamed'}, {losses.geometry}",
        "model config": _hash(json.dumps(_settings(losses.model.config.to_dict()), default=str)),
        "set of weights": _weights_hash(losses.model),
        "heuristic": call_text(name_of(heuristic), settings_of(heuristic)),
        "measure": repr(losses.measure),
        "menu of levels": json.dumps(losses.fractions.tolist()),
        "set of prompts": _hash(json.dumps([(prompt.future, prompt.ids) for prompt in prompts])),
        "version of kvbudget": f"{__version__}, with {LABEL_SAMPLES} label samples",
    }


def _settings(config: object) -> object:
    """What a model computes with, in an order that does not depend on where it comes from."""
    if not isinstance(config, dict):
        return config
    fields = {str(name): _settings(value) for name, value in config.items()}
    return {name: fields[name] for name in sorted(fields.keys() - NOT_COMPUTED_WITH)}


def _weights_hash(model: PreTrainedModel) -> str:
    """Hash of a few numbers from all over every parameter, and of its shape."""
    parts = []
    for name, parameter in model.named_parameters():
        for stored in stored_numbers(parameter):
            if stored.device.type == "meta":
                continue
            # an odd step also walks through the columns of a matrix
            step = stored.numel() // NUMBERS_HASHED | 1
            numbers = stored.flatten()[::step].tolist()
            parts.append(f"{name} {list(stored.shape)}: {numbers}")
    return _hash("\n".join(parts))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _measure(measure: Measure | str | None) -> Measure:
    if isinstance(measure, str):
        return measures.build(measure)
    return Divergence() if measure is None else measure


def _check_levels(levels: Sequence[float]) -> Floats:
    fractions = np.asarray(levels, dtype=np.float64)
    rising = fractions.ndim == 1 and len(fractions) > 0 and bool((np.diff(fractions) > 0).all())
    if not rising or fractions[0] <= 0 or fractions[-1] != 1:
        raise ValueError(
            f"`levels` must be rising shares of the context, above 0 and ending in 1, but got "
            f"{list(levels)!r:.80}."
        )
    return fractions
