"""An adapter for lm-evaluation-harness."""

from typing import TYPE_CHECKING, Any

from kvbudget.allocator import Plan
from kvbudget.runtime import Adaptation, geometry_of
from kvbudget.runtime.session import check_same_model

from .caches import FullCache, PlannedCache

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kvbudget.heuristics import TokenHeuristic


def harness_model(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    plan: Plan | None = None,
    *,
    heuristic: "TokenHeuristic | None" = None,
    adapt: Adaptation | None = None,
) -> Any:
    """A model for lm-evaluation-harness that runs within a plan.

        lm = kvb.evaluation.harness_model(model, tokenizer, plan)
        results = lm_eval.simple_evaluate(model=lm, tasks=["arc_easy"])

    Given answers are scored within the plan, too: the context is read and cut, and the answer
    follows; a text whose likelihood is asked for is read in pieces of 64 tokens, and the cache is
    cut after each. Generation is the harness' own. Texts are cut on the left to what the model and
    the plan read, as the harness does.

    Args:
        model: A causal LM of a supported family, in evaluation mode.
        tokenizer: Its tokenizer.
        plan: What to keep within; None for the full cache, scored in the same way.
        heuristic: Chooses the tokens to keep; the one the plan was made for by default.
        adapt: Divides the plan's bytes anew for each context.

    Returns:
        An `lm_eval.api.model.LM`.

    Raises:
        ImportError: lm-evaluation-harness is not installed.
        TypeError: The plan is none.
        WrongModel: The plan was made for another model.
    """
    try:
        from .harness_lm import HarnessLM
    except ImportError as error:
        raise ImportError(
            "lm-evaluation-harness must be installed for `harness_model`: "
            "run `pip install lm_eval`."
        ) from error
    if plan is None:
        return HarnessLM(model, tokenizer, FullCache(), None)
    if not isinstance(plan, Plan):
        raise TypeError(f"`plan` must be a Plan or None, but got {plan!r:.60}.")
    check_same_model(plan, geometry_of(model))
    planned = PlannedCache(plan, heuristic, adapt)
    return HarnessLM(model, tokenizer, planned, plan.context_tokens)
