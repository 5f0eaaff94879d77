import json
from dataclasses import replace
from typing import Any

import pytest

from kvbudget.allocator import Certificate

GOOD = Certificate("Hull", "FEASIBLE", 2.0, 1.0, 0.5)
OLDER = ("solver", "status", "loss", "bound", "gap")


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
        ({"risk": None}, TypeError, "`risk` must be a string"),
        ({"constraints": "LeastTokens"}, TypeError, "`constraints` must be a tuple of strings"),
        ({"constraints": (1,)}, TypeError, "`constraints` must be a string"),
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
    careful = replace(
        GOOD, risk="CVaR(level=0.9)", constraints=("LeastTokens(tokens=64)", "Custom")
    )
    for certificate in (GOOD, careful):
        record = json.loads(json.dumps(certificate.to_json()))
        assert Certificate.from_json(record) == certificate
        assert Certificate.from_json({**record, "loss": 2}).loss == 2.0
        with pytest.raises(ValueError, match="the field `bound` must be a number, but is None"):
            Certificate.from_json({**record, "bound": None})


def test_an_older_certificate_knows_no_risk_and_no_constraints() -> None:
    older = {name: value for name, value in GOOD.to_json().items() if name in OLDER}
    assert len(older) == len(OLDER)
    assert Certificate.from_json(older) == GOOD
    assert (GOOD.risk, GOOD.constraints) == ("Mean()", ())


@pytest.mark.parametrize("changes", [{"risk": None}, {"constraints": "x"}, {"constraints": [1]}])
def test_what_is_there_must_be_of_the_right_type(changes: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError), match=f"`{next(iter(changes))}` must be"):
        Certificate.from_json({**GOOD.to_json(), **changes})


def test_constraints_are_held_as_a_tuple() -> None:
    listed: Any = ["Custom"]
    assert replace(GOOD, constraints=listed).constraints == ("Custom",)
    assert hash(replace(GOOD, constraints=listed))


@pytest.mark.parametrize(
    ("gap", "words"),
    [(0.9969, "gap 99.7 %"), (1.0, "gap 100 %"), (0.0127, "gap 1.3 %"), (0.1667, "gap 16.7 %")],
)
def test_a_gap_reads_without_an_exponent(gap: float, words: str) -> None:
    assert words in str(replace(GOOD, gap=gap))
