"""What an evaluation can be asked for."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from kvbudget.allocator import Plan
from kvbudget.allocator.checks import as_int, check_count

from .evaluation import FULL
from .sample import Sample
from .task import Task
from .wording import Wording

if TYPE_CHECKING:
    from transformers import PreTrainedModel

DEFAULT_CONTEXT = 1024
ONLY_PLAN = "plan"


def check_counts(samples: int, context_tokens: int | None, seed: int) -> None:
    """Refuse counts that are none.

    Raises:
        TypeError: One is no integer.
        ValueError: One is below 1.
    """
    check_count("samples", samples)
    as_int("seed", seed)
    if context_tokens is not None:
        check_count("context_tokens", context_tokens)


def check_lists(tasks: Sequence[Task] | None, dataset: Sequence[Sample]) -> None:
    """Refuse what is no list of tasks or of samples.

    Raises:
        TypeError: Something else is among them, for example a class or a name.
        ValueError: There is nothing to run, or a task comes twice.
    """
    for name, values, kind in (("tasks", tasks or (), Task), ("dataset", dataset, Sample)):
        if isinstance(values, str) or not isinstance(values, Sequence):
            raise TypeError(f"`{name}` must be a list, but got {values!r:.60}.")
        for each in values:
            if not isinstance(each, kind):
                raise TypeError(
                    f"`{name}` must hold objects of the class {kind.__name__}, but got "
                    f"{each!r:.60}."
                )
    if tasks is not None and not tasks and not dataset:
        raise ValueError("`tasks` must hold at least one task, but got none. Leave it out for all.")
    names = [task.name for task in tasks or ()]
    names += {sample.task for sample in dataset}
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"Every task must come once, for its rows bear its name, but got {name!r} "
                f"{names.count(name)} times. Run them one after the other."
            )


def named_plans(plan: Plan | Mapping[str, Plan] | None, full: bool) -> dict[str, Plan]:
    """Every plan under its name.

    Raises:
        TypeError: One is no plan.
        ValueError: There is neither a plan nor the full cache to run, or one has its name.
    """
    if plan is None:
        plans: dict[str, Plan] = {}
    else:
        plans = dict(plan) if isinstance(plan, Mapping) else {ONLY_PLAN: plan}
    for name, each in plans.items():
        if not isinstance(each, Plan):
            raise TypeError(
                f"`plan` must be a Plan, or plans by name, but got {each!r:.60}. Make one with "
                f"allocate, or read one with Plan.load."
            )
        if name == FULL:
            raise ValueError(f"`plan` must not call a plan {FULL!r}: that is the model's own.")
    if not plans and not full:
        raise ValueError("`plan` must be given where `full` is False: there is nothing to run.")
    return plans


def context_for(
    model: "PreTrainedModel", plans: Mapping[str, Plan], context_tokens: int | None
) -> int:
    """How many tokens a sample may have: what was asked for, or what all plans allow.

    Raises:
        ValueError: That is more than the model or a plan reads.
    """
    most = positions_of(model)
    if context_tokens is None:
        planned = [plan.context_tokens for plan in plans.values()] or [DEFAULT_CONTEXT]
        return min(planned if most is None else [*planned, most])
    check_room(model, plans, context_tokens, f"`context_tokens` is {context_tokens}")
    return context_tokens


def check_lengths(
    model: "PreTrainedModel",
    plans: Mapping[str, Plan],
    wording: Wording,
    samples: Iterable[Sample],
) -> None:
    """Refuse samples that are empty, or longer than the model or a plan allows.

    Raises:
        ValueError: Says which sample.
    """
    for number, sample in enumerate(samples, 1):
        if not sample.context:
            raise ValueError(
                f"Every context must hold text, but sample {number} ({sample.task}) has none."
            )
        what = f"sample {number} ({sample.task}) takes {wording.length(sample)}"
        check_room(model, plans, wording.length(sample), what)


def check_room(model: "PreTrainedModel", plans: Mapping[str, Plan], tokens: int, what: str) -> None:
    """Refuse more tokens than the model or a plan reads.

    Raises:
        ValueError: Says how many there are.
    """
    most = positions_of(model)
    if most is not None and tokens > most:
        raise ValueError(
            f"The model reads at most {most} tokens, but {what}. Give it less to read."
        )
    for name, plan in plans.items():
        if tokens > plan.context_tokens:
            raise ValueError(
                f"The plan {name!r} is for contexts of at most {plan.context_tokens} tokens, but "
                f"{what}. Ask for less, or make a plan for longer contexts."
            )


def positions_of(model: "PreTrainedModel") -> int | None:
    """Most tokens the model reads; None if it does not say."""
    config = model.config.get_text_config(decoder=True)
    most: int | None = getattr(config, "max_position_embeddings", None)
    return most
