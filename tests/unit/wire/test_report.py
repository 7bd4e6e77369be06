import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelyard.base.errors import UserError
from modelyard.wire import report
from modelyard.wire.work import TensorSpec


def test_a_report_reads_back() -> None:
    found = report.Report(prepare=report.PrepareReport(digest="sha256:x", format="onnx", size_bytes=3))
    assert report.decode(report.encode(found)) == found


@given(st.text(max_size=6000))
def test_a_failure_always_fits_whatever_the_message(message: str) -> None:
    data = report.encode(report.failure("LoadFailed", message, retry=True))
    assert len(data) <= report.MAX_BYTES
    read = report.decode(data)
    assert read.failure is not None
    assert read.failure.retry


def test_a_signature_that_is_too_large_is_refused() -> None:
    inputs = tuple(TensorSpec(name=f"column-{i}", datatype="FP64", shape=(-1,)) for i in range(200))
    with pytest.raises(UserError, match="too many inputs"):
        report.encode(report.Report(prepare=report.PrepareReport(digest="d", format="f", inputs=inputs)))


@given(st.binary(max_size=5000))
def test_no_bytes_break_the_decoder(data: bytes) -> None:
    with pytest.raises(UserError):
        report.decode(data)


@given(st.lists(st.sampled_from(["\0", "\\", "u0000", "a", "\n"]), max_size=12).map("".join))
def test_nul_in_a_text_is_replaced_and_nothing_else(text: str) -> None:
    read = report.decode(report.encode(report.failure("RowFailed", text)))
    assert read.failure is not None
    assert read.failure.message == text.replace("\0", "\ufffd")
