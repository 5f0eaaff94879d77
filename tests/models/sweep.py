"""Every class of the zoo; `make test-models` runs this, since it takes minutes."""

import pytest
from findings import find
from table import PAGE, row_of, rows_in
from zoo import class_names

ROWS = {row.name: row for row in rows_in(PAGE.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("name", class_names())
def test_a_class_is_what_the_table_says(name):
    found, row = row_of(find(name)), ROWS[name]
    assert (found.verdict, found.kinds) == (row.verdict, row.kinds)
    assert found.verdict.startswith("exact") or found.result == row.result
