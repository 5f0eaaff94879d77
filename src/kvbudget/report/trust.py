"""How far predicted losses can be believed, in plain words."""

from kvbudget.allocator import ProfileCheck

CLOSE, ORDERED = 0.9, 0.8
LEAST_SOLVED, LEAST_PROMPTS = 10, 4


def verdict(check: ProfileCheck | None) -> str:
    """A sentence or two on what a check found.

    Predictions count as good if at least 90 % of the solved plans lost between half and double of
    what was predicted and the rank correlation is at least 0.9; from 0.8 on the order of plans
    counts as right. Fewer than 10 solved plans or 4 prompts say nothing, good or bad.
    """
    if check is None:
        return (
            "Never checked: no plan made from these losses was run and compared. Trust them to"
            " say which cache needs more, not how much a plan will lose; kvbudget check finds out."
        )
    chosen = f" In the check {check.heuristic} chose the tokens." if check.heuristic else ""
    return _found(check) + chosen


def _found(check: ProfileCheck) -> str:
    """What a check found, whatever chose the tokens."""
    solved = sum(check.is_solved)
    if solved < LEAST_SOLVED or check.prompts < LEAST_PROMPTS:
        return (
            f"Checked on too little to tell: {solved} solved plan(s) on {check.prompts} prompt(s)."
            f" Run kvbudget check with at least {2 * LEAST_SOLVED} plans, half of which are"
            f" solved, and {LEAST_PROMPTS} prompts."
        )
    if len(set(check.predicted)) == 1 or len(set(check.measured)) == 1:
        return (
            "Checked, but there was no order to compare: all plans were predicted to lose the"
            " same, or all lost the same."
        )
    if check.spearman < ORDERED:
        return (
            "Checked, and it does not hold: plans that were predicted to lose less often lost"
            " more. Measure again on more prompts, or prompts more like yours."
        )
    if not check.in_nats:
        return (
            "Checked, and the order holds. The losses have no unit that can be measured in a"
            " running model, so their size says nothing."
        )
    if check.spearman >= CLOSE and check.solved_within_two >= CLOSE:
        return "Checked, and it holds: plans lost about what was predicted, in the same order."
    return (
        "Checked, and the order holds, but not the size: which plan is better is predicted well,"
        " how much it loses is not."
    )
