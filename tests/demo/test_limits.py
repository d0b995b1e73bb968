"""What a message may be, and how many of them there may be."""

from functools import partial
from uuid import UUID

import pytest
from demo.live.limits import Allowance, Refused, number_of, text_of, uuid_of

short_text_of = partial(text_of, length=10)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("hello", "hello"),
        ("  hello \n", "hello"),
        ("a\r\nb\rc", "a\nb\nc"),
        ("a\tb", "a\tb"),
        ("x" * 10, "x" * 10),
        ("😄" * 10, "😄" * 10),
        ("مرحبا", "مرحبا"),
        ("<b>&amp;", "<b>&amp;"),
    ],
)
def test_text_that_is_kept(given, kept):
    assert short_text_of(given) == kept


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ("", "empty"),
        (" \n\t ", "empty"),
        ("x" * 11, "too_long"),
        (None, "bad_message"),
        (7, "bad_message"),
        (["hello"], "bad_message"),
        ("a\0b", "bad_message"),
        ("a\x1bb", "bad_message"),
        ("\ud83d", "bad_message"),
    ],
)
def test_text_that_is_refused(given, code):
    with pytest.raises(Refused) as refused:
        short_text_of(given)
    assert refused.value.code == code
    assert str(refused.value).endswith(".")


def test_too_long_says_how_long():
    with pytest.raises(Refused, match="at most 10 characters; this one has 1,234"):
        short_text_of("x" * 1234)


def test_client_id():
    text = "6f1d7d2e-52a5-4b0e-9d5e-0d3b6a0b7c11"
    assert uuid_of(text) == UUID(text)


@pytest.mark.parametrize("given", [None, 5, "", "x", "6f1d7d2e", [], {}, "😄" * 32])
def test_client_id_that_is_none(given):
    with pytest.raises(Refused):
        uuid_of(given)


@pytest.mark.parametrize("given", [0, 1, 2**53 - 1])
def test_number(given):
    assert number_of(given, "before") == given


@pytest.mark.parametrize("given", [-1, 2**53, 1.0, True, None, "1", [], float("nan")])
def test_number_that_is_none(given):
    with pytest.raises(Refused, match="before"):
        number_of(given, "before")


def test_an_allowance_is_used_up_and_refilled():
    allowance = Allowance(burst=3, per_second=2)
    assert [allowance.take(100.0) for _ in range(3)] == [0, 0, 0]
    assert allowance.take(100.0) == pytest.approx(0.5)
    assert allowance.take(100.25) == pytest.approx(0.25)
    assert allowance.take(100.5) == 0
    assert allowance.take(100.5) == pytest.approx(0.5)


def test_an_allowance_is_never_more_than_its_burst():
    allowance = Allowance(burst=2, per_second=1)
    allowance.take(100.0)
    assert [allowance.take(10_000.0) == 0 for _ in range(3)] == [True, True, False]
