"""What was measured and planned, as terms and sentences that stand in the page itself."""

from collections.abc import Iterator

from kvbudget.allocator import Plan, format_bytes
from kvbudget.allocator.certificate import MEAN
from kvbudget.allocator.settings import call_text

from .source import Source

Fact = tuple[str, str]
MEASURES = {
    "divergence": "divergence: how far the predictions move from those of the full cache, in nats"
    " per predicted token, estimated for one cache at a time",
    "ablation": "ablation: how far the predictions move from those of the full cache, in nats per"
    " predicted token, found by running the model with one cache cut at a time",
    "output_error": "output_error: how much the attention output changes, relative to the residual"
    " stream",
    "attention_mass": "attention_mass: the share of later attention that falls on evicted tokens",
    "importance": "importance: shares of an importance, times minus the logarithm of what is kept;"
    " not a prediction of anything measured",
}


def facts_of(source: Source) -> Iterator[Fact]:
    """What the losses are and where they come from, then what the plan in the file is."""
    plan = source.plan
    yield "Model", plan.model or "unnamed"
    yield "Caches", str(plan.geometry)
    settings = plan.heuristic_settings
    yield "Tokens chosen by", call_text(plan.heuristic, settings) if plan.heuristic else "unknown"
    yield "Loss", MEASURES.get(plan.measure, plan.measure) or "of an unknown measure"
    if source.profile is not None and plan.measure != "importance":
        yield "Prompts measured", str(len(source.profile.sample_loss))
    yield "Made by", source.made_by or "unknown"
    if source.curves is not None:
        shares = source.curves.kept_fraction.tolist()
        text = ", ".join(f"{100 * share:.3g}" for share in shares)
        yield "Levels measured", f"{len(shares)}: {text} % of the context"
    yield from plan_facts(plan)


def plan_facts(plan: Plan) -> Iterator[Fact]:
    """What the plan in the file is."""
    full = plan.geometry.full_bytes(plan.context_tokens, plan.batch_size)
    yield (
        "Plan in the file",
        f"{format_bytes(plan.used_bytes)} of a budget of {format_bytes(plan.budget_bytes)},"
        f" {100 * plan.used_bytes / full:.3g} % of the full cache,"
        f" for {plan.context_tokens:,} tokens and batch size {plan.batch_size}",
    )
    yield "Its predicted loss", str(plan.certificate)
    if plan.certificate.risk != MEAN:
        yield "Risk", plan.certificate.risk
    if plan.certificate.constraints:
        yield "Constraints", ", ".join(plan.certificate.constraints)
