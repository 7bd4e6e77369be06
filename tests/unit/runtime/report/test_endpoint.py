import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.runtime.report.endpoint import MOST_BYTES, answer

LATEST = b'{"version":1}'


def status(received: bytes, latest: bytes = LATEST) -> int | None:
    found = answer(received, latest)
    if found is None:
        return None
    head, _, body = found.partition(b"\r\n\r\n")
    matched = re.match(rb"HTTP/1\.1 (\d{3}) [A-Z]", head)
    assert matched
    assert b"connection: close" in head
    length = re.search(rb"content-length: (\d+)", head)
    if not received.startswith(b"HEAD"):
        assert len(body) == int(length[1] if length else 0)
    return int(matched[1])


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("GET /report HTTP/1.1", 200),
        ("GET /report?x=1 HTTP/1.0", 200),
        ("GET /healthz HTTP/1.1", 200),
        ("HEAD /healthz HTTP/1.1", 200),
        ("GET / HTTP/1.1", 404),
        ("GET /report/ HTTP/1.1", 404),
        ("GET /../report HTTP/1.1", 404),
        ("POST /report HTTP/1.1", 400),
        ("GET report HTTP/1.1", 400),
        ("GET http://x/report HTTP/1.1", 400),
        ("GET /report", 400),
        ("GET /report HTTP/2.0", 400),
        ("", 400),
    ],
)
def test_two_paths_are_answered(request_line: str, expected: int) -> None:
    assert status(f"{request_line}\r\nHost: x\r\n\r\n".encode()) == expected


def test_there_may_be_no_report_yet() -> None:
    request = b"GET /report HTTP/1.1\r\n\r\n"
    assert status(request, b"") == 204
    assert (answer(request, LATEST) or b"").endswith(b"\r\n\r\n" + LATEST)
    assert (answer(request.replace(b"GET", b"HEAD"), LATEST) or b"").endswith(b"\r\n\r\n")


def test_a_head_that_never_ends_is_refused() -> None:
    start = b"GET /report HTTP/1.1\r\nx: "
    assert status(start + b"a" * (MOST_BYTES - len(start) - 1)) is None
    assert status(start + b"a" * (MOST_BYTES - len(start))) == 431


PIECES = st.lists(st.sampled_from([b"GET", b"HEAD", b" ", b"/report", b"/", b"HTTP/1.1", b"\r", b"\n", b"\r\n", b"\0"]))


@given(st.binary(max_size=200) | PIECES.map(b"".join), st.binary(max_size=20))
def test_whatever_comes_waits_or_is_answered(data: bytes, rest: bytes) -> None:
    found = status(data)
    assert found in (None, 200, 400, 404)
    if found is not None:
        assert status(data + rest) == found, "what follows the end of the head changes nothing"
