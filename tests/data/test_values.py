"""Ids and texts of columns: where a number is larger, or a type rarer, than tables mostly have."""

from decimal import Decimal

import pyarrow as pa
import pytest

from rerank_batch.data.values import as_ids, as_strings
from rerank_batch.errors import InputError


@pytest.mark.parametrize("whole", [2**53, 2**60, 2**63, 10**22, -(2**60)])
def test_a_float_id_is_the_id_that_the_same_integer_has(whole):
    """2**60 in a column of floats met 1152921504606846976 in the judgements, and did not match."""
    assert as_ids(pa.array([float(whole)]), "test")[0].to_pylist() == [str(whole)]


def test_a_float32_id_is_the_number_that_is_stored():
    assert as_ids(pa.array([123456792.0], pa.float32()), "test")[0].to_pylist() == ["123456792"]


@pytest.mark.parametrize(
    ("number", "expected"), [("7.00", "7"), ("-0.0", "0"), ("1200", "1200"), ("2.50", "2.50")]
)
def test_a_whole_decimal_is_an_integer_as_an_id(number, expected):
    column = pa.array([Decimal(number)])
    assert as_ids(column, "test")[0].to_pylist() == [expected]
    assert as_ids(column.dictionary_encode(), "test")[0].to_pylist() == [expected]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.binary_view()])
def test_a_dictionary_of_views_is_read_as_its_text(kind):
    column = pa.DictionaryArray.from_arrays(pa.array([0, None]), pa.array(["007"], kind))
    assert as_ids(column, "test")[0].to_pylist() == ["007", None]
    assert as_strings(column, "test")[0].to_pylist() == ["007", None]


def test_infinity_is_no_text_as_it_is_none_in_json():
    with pytest.raises(InputError, match=r"^test: a column of double holds Infinity"):
        as_strings(pa.array([1.5, float("inf")]), "test")
