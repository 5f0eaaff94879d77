import json
from dataclasses import MISSING, dataclass, fields
from typing import Any

import numpy as np
import pytest

from kvbudget.allocator import Constraint, Problem, Terms, Tokens, constraints
from kvbudget.allocator.constraint_json import (
    can_write,
    constraint_from_json,
    constraint_to_json,
    describe,
)
from kvbudget.allocator.constraints import (
    ByteLimit,
    Custom,
    EqualInLayer,
    LeastTokens,
    MostCapacities,
    MostTokens,
    Protected,
    WholePages,
)

WRITABLE: tuple[Constraint, ...] = (
    ByteLimit(2**40, layers=range(4)),
    ByteLimit(np.int64(2**40)),  # type: ignore[arg-type]
    ByteLimit("25%", kv_heads=(0, 1)),
    ByteLimit(Tokens(1024)),
    EqualInLayer(),
    EqualInLayer(layers=(2, 1)),
    LeastTokens(64, layers=(0,), kv_heads=(1,)),
    MostCapacities(4),
    MostTokens(64),
    Protected(layers=(0, 31)),
    WholePages(16),
)


@dataclass(frozen=True, slots=True)
class Foreign(Constraint):
    """A constraint of somebody else."""

    tokens: int = 1

    def terms(self, problem: Problem) -> Terms:
        """Nothing."""
        return Terms()


@pytest.mark.parametrize("constraint", WRITABLE, ids=repr)
def test_a_constraint_comes_back_from_json(constraint: Constraint) -> None:
    assert can_write(constraint)
    text = json.dumps(constraint_to_json(constraint))
    assert constraint_from_json(json.loads(text)) == constraint


def test_every_constraint_of_ours_but_custom_can_be_written() -> None:
    assert {type(each).__name__ for each in WRITABLE} == {*constraints.__all__} - {"Custom"}


def test_what_cannot_be_written_is_known() -> None:
    assert not can_write(Custom(lambda share: []))
    assert not can_write(Foreign())
    impostor = dataclass(frozen=True)(type("LeastTokens", (Foreign,), {"__slots__": ()}))
    assert not can_write(impostor())


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "a constraint must be an object, but is None"),
        (["LeastTokens"], "a constraint must be an object"),
        ({}, "the field `name` is missing"),
        ({"name": 3}, "the field `name` must be a string"),
        ({"name": "Nothing"}, "the constraint 'Nothing' is not known"),
        ({"name": "__doc__"}, "the constraint '__doc__' is not known"),
        ({"name": "Constraint"}, "the constraint 'Constraint' is not known"),
        ({"name": "LeastTokens"}, "LeastTokens needs the field `tokens`"),
        ({"name": "LeastTokens", "tokens": 1, "more": 2}, "LeastTokens has no field `more`"),
        ({"name": "LeastTokens", "tokens": 0}, "`tokens` must be at least 1"),
        ({"name": "LeastTokens", "tokens": 1.5}, "`tokens` must be an integer"),
        ({"name": "LeastTokens", "tokens": True}, "`tokens` must be an integer"),
        ({"name": "LeastTokens", "tokens": {"tokens": 3}}, "`tokens` must be an integer"),
        ({"name": "LeastTokens", "tokens": 1, "layers": "all"}, "`layers` must be a list"),
        ({"name": "LeastTokens", "tokens": 1, "layers": []}, "`layers` must name at least one"),
        ({"name": "LeastTokens", "tokens": 1, "layers": [[0]]}, "`layers` must be an integer"),
        ({"name": "ByteLimit", "budget": {}}, "the field `tokens` is missing"),
        ({"name": "ByteLimit", "budget": {"tokens": 0}}, "`count` must be at least 1"),
        ({"name": "ByteLimit", "budget": "a lot"}, "`budget` must be a number with a unit"),
        ({"name": "ByteLimit", "budget": None}, "`budget` must be an int of bytes"),
        ({"name": "Protected"}, "`layers` or `kv_heads` must say"),
        ({"name": "Custom", "function": "print"}, "`function` must be a function"),
    ],
)
def test_a_bad_record_is_refused(record: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        constraint_from_json(record)
    assert message in str(caught.value)


def test_fields_with_a_default_may_be_missing() -> None:
    assert constraint_from_json({"name": "LeastTokens", "tokens": 3}) == LeastTokens(3)


@pytest.mark.parametrize("name", constraints.__all__)
def test_no_name_lets_a_file_call_anything_but_a_constraint(name: str) -> None:
    needed = [f.name for f in fields(getattr(constraints, name)) if f.default is MISSING]
    for value in ("__import__('os')", ["x"], {"tokens": "x"}, 1.5):
        with pytest.raises((TypeError, ValueError)):
            constraint_from_json({"name": name, **dict.fromkeys(needed or ["layers"], value)})


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (LeastTokens(64), "LeastTokens(tokens=64)"),
        (EqualInLayer(), "EqualInLayer()"),
        (ByteLimit("1GiB", layers=(0, 1)), "ByteLimit(budget='1GiB', layers=(0, 1))"),
        (Custom(lambda share: []), "Custom"),
        (Foreign(), "Foreign"),
    ],
)
def test_a_constraint_is_described_in_words(constraint: Constraint, words: str) -> None:
    assert describe(constraint) == words
