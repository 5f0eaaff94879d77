"""Which models can be measured by what."""

from transformers import PreTrainedModel

from kvbudget.allocator import UnsupportedModel
from kvbudget.heuristics import CacheHeuristic, RereadingHeuristic, TokenHeuristic
from kvbudget.heuristics.measures import Measure

from .anatomy import Anatomy, anatomy_of
from .tensor_parallel import refuse_divided


def check_measurable(model: PreTrainedModel, heuristic: TokenHeuristic, measure: Measure) -> None:
    """Refuse to measure what would come out wrong.

    Raises:
        UnsupportedModel: Says what stands in the way, and what can be measured instead.
    """
    refuse_divided(model, "`measure_profile`")
    anatomy, name = anatomy_of(model), type(model).__name__
    if any(layer.cached.has_own_logits for layer in anatomy.layers):
        raise UnsupportedModel(
            f"{name} adds a bias of its own to the logits of its attention, which no loss knows "
            f"of. Make its profile with Profile.from_importance."
        )
    reason = _several_readings(anatomy)
    if reason and isinstance(heuristic, RereadingHeuristic):
        raise UnsupportedModel(
            f"{type(heuristic).__name__} cannot let {name} read a prompt twice, because {reason}. "
            f"Choose another heuristic."
        )
    if reason and (measure.needs_gradient or measure.needs_reruns):
        raise UnsupportedModel(
            f"The measure {measure.name!r} runs parts of a prompt again, which {name} cannot do, "
            f'because {reason}. Use measure="output_error".'
        )


def check_weighable(model: PreTrainedModel, heuristic: CacheHeuristic) -> None:
    """Refuse to weigh caches by what would come out wrong.

    Raises:
        UnsupportedModel: Says what stands in the way.
    """
    refuse_divided(model, "`measure_importance`")
    anatomy, name = anatomy_of(model), type(model).__name__
    if any(layer.cached.is_rewritten or layer.cached.calls > 1 for layer in anatomy.layers):
        raise UnsupportedModel(
            f"A cache heuristic weighs the KV heads of one attention, but {name} has caches that "
            f"several heads or layers share. Use measure_profile."
        )
    if heuristic.needs_gradient and anatomy.layout.keeps_states:
        raise UnsupportedModel(
            f"{type(heuristic).__name__} runs tokens over keys and values alone, but the layers of "
            f"{name} keep states besides. Choose a heuristic that needs no gradient."
        )


def _several_readings(anatomy: Anatomy) -> str:
    """Why tokens cannot be run again over keys and values alone; empty if they can."""
    if anatomy.layout.keeps_states:
        return "its layers keep states besides keys and values"
    if any(layer.cached.calls > 1 for layer in anatomy.layers):
        return "several attentions read one cache"
    return ""
