"""Text from elsewhere, as it is shown."""

from __future__ import annotations

import io
import logging

import pytest

from approxifer.errors import InputNotFoundError, OutputError, StoreError
from approxifer.text import (
    ShownFormatter,
    did_you_mean,
    one_line,
    printable,
    redacted,
    say,
    shortened,
)


@pytest.mark.parametrize(
    "text",
    [
        "\x1b]0;owned\x07",
        "a\x9b2Jb",
        "x\u202egnp.exe",
        "a\u2028b",
        "\ud800",
        "\r\x00\x7f",
        "\u200b",
    ],
)
def test_nothing_unseen_is_left(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert "\\" in shown
    shown.encode()
    assert printable("Grüße, 東京 🎉") == "Grüße, 東京 🎉"


@pytest.mark.parametrize(
    "text",
    [
        "s3://me:hunter2@host/a", "https://h/a?list=1&X-Amz-Signature=hunter2", "password=hunter2",
        "{'key': 'AKIA', 'secret': 'hunter2'}", '{"AWS_SECRET_ACCESS_KEY": "hunter2"}',
        "ftp://a:hunter2@b@host/", "session_token: 'hunter2'", "abfs://x?sig=hunter2",
    ],
)  # fmt: skip
def test_no_credential_is_left(text: str) -> None:
    assert "hunter2" not in redacted(text)
    assert "hunter2" not in one_line(text)
    assert "hunter2" not in str(StoreError(text))


def test_what_is_no_credential_stays() -> None:
    for text in ("unknown key 'straglers'", "tokens such as 17", "tcp://host:8786", "k=8, late=2"):
        assert redacted(text) == text


@pytest.mark.parametrize("kind", [StoreError, InputNotFoundError, OutputError])
def test_an_error_is_fit_to_be_shown_by_whomever(kind: type[Exception]) -> None:
    assert str(kind("line\n\x1b[2J")) == "line\n\\x1b[2J"


def test_a_stream_that_cannot_hold_it_gets_escapes() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    say("Grüße \x1b[2J", stream=stream)
    stream.seek(0)
    assert stream.read() == "Gr\\xfc\\xdfe \\x1b[2J\n"


def test_a_log_is_fit_for_a_terminal() -> None:
    record = logging.LogRecord("n", logging.ERROR, "p", 1, "%s", ("\x1b[2J s3://a:b@c",), None)
    assert ShownFormatter().format(record) == "\\x1b[2J s3://***@c"


def test_a_short_piece() -> None:
    assert shortened("\x1b" * 100, 20) == "\\x1b\\x1b\\x1b\\x1b\\..."


@pytest.mark.parametrize(
    ("given", "allowed", "aliases", "expected"),
    [
        ("similiar", ["none", "similar"], None, ", did you mean 'similar'?"),
        ("SIMILAR", ["none", "similar"], None, ", did you mean 'similar'?"),
        ("Imgae", ["Image"], None, ", did you mean 'Image'?"),
        ("n_wrokers", ["workers"], {"n_workers": "workers"}, ", did you mean 'workers'?"),
        ("inptu", ["data"], {"input": "elsewhere"}, ""),
        ("qqq", ["none"], None, ""),
        (7, ["none"], None, ""),
    ],
)
def test_the_nearest_name_is_suggested(given, allowed, aliases, expected) -> None:
    assert did_you_mean(given, allowed, aliases) == expected
