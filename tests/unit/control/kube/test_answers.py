"""What comes from the network: any bytes give events, a refusal or a ValueError, and nothing else."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelyard.control.kube import answers
from modelyard.control.kube.answers import ApiError, lines

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "object", "metadata", "name", "namespace", "resourceVersion", "code", "details"]),
            inner | st.sampled_from(["ADDED", "BOOKMARK", "ERROR", "DELETED", "5"]),
        )
    ),
    max_leaves=12,
)


@given(st.binary(max_size=60) | json_values.map(lambda value: json.dumps(value).encode()))
@example(b'{"type": "BOOKMARK", "object": {"metadata": 5}}')
@example(b'{"type": "ERROR", "object": {"code": "x", "details": {"causes": 5}}}')
@example(b"[" * 100_000)
def test_whatever_is_sent_is_an_event_or_refused(line: bytes) -> None:
    try:
        event = answers.event(line)
    except (ValueError, ApiError):
        return
    assert event["type"] in ("ADDED", "MODIFIED", "DELETED", "BOOKMARK")
    assert isinstance(event["object"]["metadata"]["resourceVersion"], str)
    if event["type"] != "BOOKMARK":
        assert isinstance(event["object"]["metadata"]["name"], str)


@given(st.lists(st.binary(max_size=8).map(lambda text: text.replace(b"\n", b"")), max_size=8), st.data())
async def test_lines_do_not_depend_on_how_they_arrive(wanted: list[bytes], data: st.DataObject) -> None:
    text = b"".join(line + b"\n" for line in wanted) + b"cut off"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

    async def chunks() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    assert [line async for line in lines(chunks())] == [line for line in wanted if line.strip()]


async def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "_MAX_LINE_BYTES", 100)

    async def chunks() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 60

    with pytest.raises(ValueError, match="more than 100 bytes"):
        await anext(lines(chunks()))


@pytest.mark.parametrize("text", [b'{"a": "\\ud800"}', b'{"a": NaN}', b"\xef\xbb\xbf{}"])
def test_what_servers_may_take_for_json_is_read(text: bytes) -> None:
    assert str(answers.parse(text)) == str(json.loads(text))


@given(json_values)
def test_what_is_read_is_what_was_written(value: Any) -> None:
    assert answers.parse(json.dumps(value).encode()) == value
