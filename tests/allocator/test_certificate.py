from dataclasses import asdict, replace
from typing import Any

import pytest

from kvbudget.allocator import Certificate

GOOD = Certificate("Hull", "FEASIBLE", 2.0, 1.0, 0.5)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"loss": float("nan")}, ValueError, "`loss` must be finite"),
        ({"bound": float("-inf")}, ValueError, "`bound` must be finite"),
        ({"gap": "0"}, TypeError, "`gap` must be a number"),
        ({"gap": True}, TypeError, "`gap` must be a number"),
        ({"status": "INFEASIBLE"}, ValueError, "`status` must be one of"),
        ({"status": "great"}, ValueError, "`status` must be one of"),
        ({"solver": None}, TypeError, "`solver` must be a string"),
    ],
)
def test_a_bad_certificate_is_refused(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error) as caught:
        replace(GOOD, **changes)
    assert message in str(caught.value)


def test_a_certificate_says_how_good_the_plan_is() -> None:
    assert "gap 50 %" in str(GOOD)
    assert "(optimal)" in str(Certificate("Hull", "OPTIMAL", 2.0, 2.0, 0.0))


def test_json_gives_the_same_certificate_back() -> None:
    assert Certificate.from_json(asdict(GOOD)) == GOOD
    assert Certificate.from_json({**asdict(GOOD), "loss": 2}).loss == 2.0
    with pytest.raises(ValueError, match="the field `bound` must be a number, but is None"):
        Certificate.from_json({**asdict(GOOD), "bound": None})
