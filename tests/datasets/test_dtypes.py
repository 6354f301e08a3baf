"""Which numbers can be coded."""

import numpy as np
import pytest

from approxifer.datasets import codable
from approxifer.datasets.dtypes import sent_dtype
from approxifer.errors import InputError

SCHEMES = ("systematic", "berrut", "parm", "uncoded", "replication")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_float32_is_sent_as_it_is(scheme):
    assert codable(np.float32, scheme) is None


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "dtype", ["float16", "float64", "bool", "uint8", "int8", "int16", "uint16"]
)
def test_narrow_numbers_are_cast(dtype, scheme):
    assert codable(dtype, scheme) == f"{dtype} rows are cast to float32"


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint32", "uint64", "complex64"])
def test_wide_integers_go_plain_or_not_at_all(dtype):
    assert codable(dtype, "uncoded") is None
    assert codable(dtype, "replication") is None
    for scheme in ("systematic", "berrut", "parm"):
        with pytest.raises(InputError, match="token ids"):
            codable(dtype, scheme)


@pytest.mark.parametrize("dtype", ["U5", "S5", "O", "M8[ns]", "m8[ns]", "i4,f4"])
def test_what_is_not_a_number_is_refused(dtype):
    for scheme in SCHEMES:
        with pytest.raises(InputError, match="not made of numbers"):
            codable(dtype, scheme)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_float64_stays_where_the_model_takes_it(scheme):
    assert codable("float64", scheme, "float64") is None
    assert codable("float64", scheme, "float16") == "float64 rows are cast to float32"
    assert codable("float32", scheme, "float64") is None


@pytest.mark.parametrize("dtype", ["int32", "uint32"])
def test_integers_that_float64_holds_can_be_measurements(dtype):
    for scheme in ("systematic", "berrut", "parm"):
        assert codable(dtype, scheme, "float64") == f"{dtype} rows are cast to float64"
        with pytest.raises(InputError, match='dtype="float64"'):
            codable(dtype, scheme)
        with pytest.raises(InputError, match="cannot be interpolated"):
            codable("int64", scheme, "float64")
    assert codable(dtype, "uncoded", "float64") is None


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int16", "float16", "float64", "int64"])
def test_rows_are_sent_as_stored_where_that_is_asked_for(dtype):
    assert sent_dtype(dtype, "uncoded", "stored") == dtype
    if np.dtype(dtype).kind == "f":
        assert sent_dtype(dtype, "systematic", "stored") == dtype
    else:
        with pytest.raises(InputError, match='not with dtype="stored"'):
            sent_dtype(dtype, "systematic", "stored")
