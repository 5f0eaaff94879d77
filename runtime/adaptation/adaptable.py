"""Which plans an adaptation would break."""

from kvbudget.allocator import Plan
from kvbudget.allocator.constraints import ByteLimit

from .adaptation import Adaptation


def check_adaptable(plan: Plan, adaptation: Adaptation) -> None:
    """Refuse a plan that was made within limits which a division made anew would not keep.

    A limit on the bytes of whole layers holds as long as memory stays within its layer.

    Raises:
        TypeError: It is no adaptation, for example a class instead of an instance.
        ValueError: The plan has such limits.
    """
    if not isinstance(adaptation, Adaptation):
        raise TypeError(
            f"`adapt` must be an adaptation such as WithinLayer(), but got {adaptation!r:.80}."
        )
    if not plan.certificate.constraints or _keeps_layers(plan, adaptation):
        return
    limits = ", ".join(plan.certificate.constraints)
    raise ValueError(
        f"`adapt` must be None for a plan with limits, but this one was made with {limits}, which "
        f"a division made anew for each prompt would not keep. Allocate without them, or leave "
        f"`adapt` out."
    )


def _keeps_layers(plan: Plan, adaptation: Adaptation) -> bool:
    """Whether all limits are on bytes of whole layers, and each layer keeps its bytes."""
    if plan.curves is None or adaptation.sees_all_layers:
        return False
    limits = plan.curves.constraints
    return all(isinstance(limit, ByteLimit) and limit.kv_heads is None for limit in limits)
