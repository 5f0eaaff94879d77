"""The file of a path: what it was made from, because solving it again takes no longer."""

from .array_file import pack_arrays, unpack_arrays
from .constraint_json import constraint_from_json, constraint_to_json
from .geometry import Geometry
from .json_fields import read_field
from .origin import Origin
from .plan_curves import Curves
from .problem import Problem
from .profile import Profile
from .profile_check import read_check, written_check

FORMAT = "kvbudget-path"
VERSION = 1
ARRAYS = ("loss", "kept_fraction")


def pack_path(curves: Curves, origin: Origin) -> bytes:
    """The content of a file.

    Args:
        curves: Losses and constraints.
        origin: The model and the request.
    """
    content = {
        "context_tokens": origin.context_tokens,
        "batch_size": origin.batch_size,
        "constraints": [constraint_to_json(each) for each in curves.constraints],
        "geometry": origin.geometry.to_json(),
        "model": origin.model,
        "heuristic": origin.heuristic,
        "heuristic_settings": [list(pair) for pair in origin.heuristic_settings],
        "measure": origin.measure,
        "made_by": origin.made_by,
        "check": written_check(origin.check),
    }
    arrays = {name: getattr(curves, name) for name in ARRAYS}
    return pack_arrays(FORMAT, VERSION, content, arrays)


def unpack_problem(raw: bytes) -> Problem:
    """The problem that :func:`pack_path` stored, with a budget of everything.

    Raises:
        TypeError: If a field cannot be used.
        ValueError: If the content cannot be used; the message says what is wrong with it.
    """
    record, arrays = unpack_arrays(raw, FORMAT, VERSION, ARRAYS)
    profile = Profile(
        **arrays,
        sample_loss=arrays["loss"][None],
        geometry=Geometry.from_json(read_field(record, "geometry", dict)),
        model=read_field(record, "model", str),
        heuristic=read_field(record, "heuristic", str),
        heuristic_settings=tuple(read_field(record, "heuristic_settings", list)),
        measure=read_field(record, "measure", str),
        made_by=read_field(record, "made_by", str),
        check=read_check(record),
    )
    return Problem.from_profile(
        profile,
        budget="100%",
        context_tokens=read_field(record, "context_tokens", int),
        batch_size=read_field(record, "batch_size", int),
        constraints=tuple(map(constraint_from_json, read_field(record, "constraints", list))),
    )
