import json

import pytest

from kvbudget.allocator.envelope import checksum, seal, unseal


def test_sealed_fields_come_back() -> None:
    text = seal("kvbudget-plan", 1, {"a": [1, 2.5, None, "ü"]}, b"arrays")
    record = unseal(text, "kvbudget-plan", 1, b"arrays")
    assert record["a"] == [1, 2.5, None, "ü"]


def test_spaces_and_order_do_not_matter() -> None:
    record = json.loads(seal("kvbudget-plan", 1, {"a": 1, "b": 2}))
    text = json.dumps(dict(reversed(record.items())))
    assert unseal(text, "kvbudget-plan", 1)["b"] == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it does not hold JSON"),
        ("{", "it does not hold JSON"),
        ("[" * 200_000, "it does not hold JSON"),
        ('{"a": NaN}', "it does not hold JSON"),
        ("[]", "its JSON is not an object"),
        ("3", "its JSON is not an object"),
        ("{}", "the field `format` is missing"),
        ('{"format": 3}', "the field `format` must be a string"),
        ('{"format": "foreign"}', "its format is 'foreign', not 'kvbudget-plan'"),
        ('{"format": "kvbudget-plan"}', "the field `version` is missing"),
        ('{"format": "kvbudget-plan", "version": true}', "`version` must be an integer"),
        ('{"format": "kvbudget-plan", "version": 0}', "its version must be at least 1"),
        ('{"format": "kvbudget-plan", "version": 1}', "the field `sha256` is missing"),
        (
            '{"format": "kvbudget-plan", "version": 2}',
            "newer version of kvbudget, which uses file version 2 where this one reads 1",
        ),
    ],
)
def test_anything_else_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        unseal(text, "kvbudget-plan", 1)
    assert message in str(caught.value)


def test_a_change_breaks_the_seal() -> None:
    text = seal("kvbudget-plan", 1, {"budget": 10}, b"arrays")
    for changed, payload in ((text.replace("10", "11"), b"arrays"), (text, b"arrayz")):
        with pytest.raises(ValueError, match="damaged or edited"):
            unseal(changed, "kvbudget-plan", 1, payload)


def test_numbers_that_are_not_finite_are_never_written() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        seal("kvbudget-plan", 1, {"loss": float("nan")})


def test_the_checksum_tells_fields_from_payload() -> None:
    assert checksum({"a": 1}, b"") != checksum({"a": 1}, b"\n")
