"""Everything that a page knows, as one JSON object."""

import json
import shlex

from kvbudget import __version__
from kvbudget.allocator import Geometry, Plan, ProfileCheck
from kvbudget.allocator.comparison_plot import UNITS
from kvbudget.allocator.plan import FORMAT, VERSION
from kvbudget.allocator.profile_check import written_check

from .rules import Rules, command_options, rules_of
from .source import Source
from .spread import spread_of
from .trust import verdict

Record = dict[str, object]


def content_of(source: Source, plan_name: str, profile_name: str) -> Record:
    """What the page's program reads.

    Args:
        source: The plan, and what it was made from.
        plan_name: What the file of the plan is called.
        profile_name: What the file of the profile is called.
    """
    plan, problem = source.plan, source.problem
    can_redraw = problem is not None and source.obstacle is None
    spread = None
    if can_redraw and problem is not None and source.profile is not None:
        spread = spread_of(problem, source.profile)
    return {
        "version": __version__,
        "name": plan_name,
        "unit": UNITS.get(plan.measure, ""),
        "model": model_record(plan.geometry),
        "plan": plan_record(plan),
        "obstacle": source.obstacle,
        "rules": (Rules() if problem is None else rules_of(problem)).to_json(),
        "fixed": fixed_fields(source),
        "command": allocate_command(source, profile_name) if can_redraw else None,
        "spread": None if spread is None else spread.to_json(),
        "check": None if source.check is None else check_record(source.check),
    }


def model_record(geometry: Geometry) -> Record:
    """What turns tokens into bytes, a number for each layer."""
    return {
        "kv_heads": [shape.kv_heads for shape in geometry.shapes],
        "token_bytes": geometry.token_bytes[:, 0].tolist(),
        "windows": list(geometry.windows),
    }


def plan_record(plan: Plan) -> Record:
    """The plan as it stands in its file."""
    return {
        "tokens": plan.capacity_tokens[plan.geometry.present].tolist(),
        "context_tokens": plan.context_tokens,
        "batch_size": plan.batch_size,
        "budget_bytes": plan.budget_bytes,
        "used_bytes": plan.used_bytes,
        "certificate": plan.certificate.to_json(),
    }


def fixed_fields(source: Source) -> Record:
    """Fields of a plan's file that stay as they are, each as the JSON text of its value."""
    plan = source.plan
    fields: Record = {
        "check": written_check(source.check),
        "curves": None if source.curves is None else source.curves.to_json(),
        "format": FORMAT,
        "geometry": plan.geometry.to_json(),
        "heuristic": plan.heuristic,
        "heuristic_settings": [list(pair) for pair in plan.heuristic_settings],
        "made_by": source.made_by,
        "measure": plan.measure,
        "model": plan.model,
        "version": VERSION,
    }
    certificate = plan.certificate
    return {
        "fields": {name: exact_json(value) for name, value in fields.items()},
        "constraints": exact_json(list(certificate.constraints)),
        "risk": exact_json(certificate.risk),
    }


def exact_json(value: object) -> str:
    """JSON text in the spelling that a file's checksum is taken of."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def allocate_command(source: Source, profile_name: str) -> str | None:
    """The command that makes a plan like this one, up to its budget, context and batch."""
    options = command_options(source.constraints)
    if options is None:
        return None
    return f"kvbudget allocate {shlex.quote(profile_name)}{options}"


def check_record(check: ProfileCheck) -> Record:
    """What plans were predicted to lose and what they lost."""
    return {**check.to_json(), "verdict": verdict(check)}
